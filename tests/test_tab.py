"""The parts of the page that work without a browser."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

gr = pytest.importorskip("gradio")

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption, BrokenModel
from clip_interrogator_ext.faces.tab import asking, components, draw, elements
from clip_interrogator_ext.faces.tab.prompt import Memory, _toggled
from clip_interrogator_ext.faces.tab.running import Running, follow, stop
from clip_interrogator_ext.faces.tab.surroundings import Boxes, Surroundings, Target
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
from clip_interrogator_ext.results import Run
from clip_interrogator_ext.service import Service

pytestmark = pytest.mark.hosts

NASTY = '<img src=x onerror="alert(1)"> & \'co\''
CATEGORIES = ("artists", "flavors")
NUMBERS = [2048, 8, "", "", 1, 0, 32, 64]
RUN = Run("t", "interrogate", True, False, "ranking flavors", 3, 12, 5.0, 75.4)


# Pieces of HTML


@pytest.mark.parametrize(
    "html",
    [
        elements.note(NASTY),
        elements.notes([NASTY, NASTY], "error"),
        elements.bars({NASTY: [(NASTY, 0.5)]}),
        elements.table([NASTY], [[NASTY]], NASTY),
        elements.progress(replace(RUN, label=NASTY)),
    ],
)
def test_texts_never_become_html(html):
    """Names of models, phrases of word lists and errors come from anywhere."""
    assert "<img" not in html
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt; &amp; &#x27;co&#x27;" in html


def test_a_note_says_how_urgent_it_is():
    """Screen readers interrupt for errors only; nothing is shown where there is nothing to say."""
    assert 'class="cliext-error" role="alert"' in elements.note("x", "error")
    assert 'class="cliext-warning" role="status"' in elements.note("x", "warning")
    assert elements.note("", "error") == ""
    assert elements.notes([]) == ""


@pytest.mark.parametrize(
    ("run", "words", "percent"),
    [
        (RUN, "Ranking flavors · 3 of 12 · 1 min 15 s left", 25),
        (replace(RUN, seconds_left=None), "Ranking flavors · 3 of 12", 25),
        (replace(RUN, done=12, seconds_left=0.0), "Ranking flavors · 12 of 12 · 0 s left", 100),
        (replace(RUN, done=99), "Ranking flavors · 99 of 12 · 1 min 15 s left", 100),
        (replace(RUN, done=0, total=1), "Ranking flavors", 0),
        (replace(RUN, label="", total=0), "Loading models", 0),
        (replace(RUN, running=False), "Waiting for the GPU", 0),
        (replace(RUN, stopping=True), "Stopping", 0),
    ],
)
def test_progress_in_words(run, words, percent):
    """The step, how far it is, and the time left, where they are known."""
    html = elements.progress(run)
    assert f"<span>{words}</span>" in html
    assert f'aria-valuenow="{percent}"' in html
    assert f"width:{percent}%" in html


def test_no_run_has_no_bar():
    """A run that is not listed yet, or any more, shows nothing."""
    assert elements.progress(None) == ""


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 kB"), (999_000, "999 kB"), (1e6, "1 MB"), (605_157_884, "605 MB"),
     (1_710_517_724, "1.7 GB"), (15_770_000_000, "15.8 GB")],
)
def test_sizes_as_people_say_them(size_bytes, words):
    """In the unit that leaves a short number."""
    assert elements.size(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (125, "2 min 5 s"), (3599.6, "1 h 0 min"),
     (12345, "3 h 25 min")],
)
def test_times_as_people_say_them(seconds, words):
    """Minutes from one minute on, and hours without seconds."""
    assert elements.duration(seconds) == words


@pytest.mark.parametrize("scores", [[0.3, 0.29, 0.2], [0.2, -0.1], [-0.1, -0.3], [0.0], []])
def test_bars_are_longer_where_a_phrase_is_nearer(scores):
    """From 0 to 100 percent, whatever the signs, to one scale; no phrases give no bars."""
    html = elements.bars({f"list {score}": [(f"phrase {score}", score)] for score in scores})
    widths = [float(part.split("%")[0]) for part in html.split("width:")[1:]]
    assert len(widths) == len(scores)
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
    assert all(0 <= width <= 100 for width in widths)
    assert all(f"{score:.3f}" in html for score in scores)


# What is asked


def ask(mode: str = "best", **changes: object) -> asking.Request:
    """Return what the page asks for with its boxes at their defaults, but for some."""
    given = {
        "negative": False, "backbones": "demo", "captioner": "demo", "caption": "", "subject": "",
        "known": CATEGORIES, "vocabulary": "all", "categories": list(CATEGORIES),
        "leave_out": "", "replacements": "",
        "numbers": NUMBERS, "low_memory": False, **changes,
    }
    numbers, low = given.pop("numbers"), given.pop("low_memory")
    return asking.request(mode, *given.values(), *numbers, low)


def test_boxes_at_their_defaults_ask_for_the_defaults():
    """So that the page, the routes and the command line answer alike."""
    asked = ask()
    assert asked.options == InterrogateOptions()
    assert asked.models == ModelOptions(backbones=("demo",), captioner="demo")


def test_each_number_lands_in_its_option():
    """The order of the boxes is that in which they are read."""
    asked = ask(numbers=[100, 1, "9", " 40 ", 2, 3, 20, 16.0], low_memory=True)
    options, captioning = asked.options, asked.options.captioning
    assert (options.pool_size, options.min_flavors) == (100, 1)
    assert (options.max_flavors, options.token_budget) == (9, 40)
    assert (captioning.beams, captioning.min_length, captioning.max_length) == (2, 3, 20)
    assert (asked.models.chunk_size, asked.models.low_memory) == (16, True)


@pytest.mark.parametrize("written", ["many", "1.5", "nan", "inf", "1e999"])
def test_what_is_no_whole_number_is_refused_by_name(written):
    """The sentence names the box and repeats what was written."""
    with pytest.raises(BadOption, match="Maximum flavors must be a whole number, not '"):
        ask(numbers=[2048, 8, written, "", 1, 0, 32, 64])


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_emptied_number_is_its_default(empty):
    """A box that was cleared asks for nothing of its own."""
    assert ask(numbers=[empty] * 8).options == InterrogateOptions()


def test_a_number_out_of_range_is_refused():
    """By the options themselves."""
    with pytest.raises(BadOption, match="Chunk size must be from 1 to 4096, not 0"):
        ask(numbers=[2048, 8, "", "", 1, 0, 32, 0])


def test_hidden_boxes_ask_for_nothing():
    """A caption or a subject left from another mode does not count in this one."""
    written = {"caption": " mine ", "subject": " yours "}
    assert ask("best", **written).options.caption == "mine"
    assert ask("best", **written).options.subject is None
    assert ask("style", **written).options.caption is None
    assert ask("style", **written).options.subject == "yours"
    assert ask("negative", negative=True).options.negative is False
    assert ask("fast", negative=True).options.negative is True


@pytest.mark.parametrize("mode", ["best", "style"])
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_emptied_texts_ask_for_nothing(mode, empty):
    """Whichever way the page says that there is none."""
    options = ask(mode, caption=empty, subject=empty).options
    assert options == InterrogateOptions(mode=mode)


def test_all_categories_are_no_choice():
    """Only a choice among them is passed on; none at all is refused."""
    assert ask(categories=["flavors", "artists"]).options.categories is None
    assert ask(categories=["flavors"]).options.categories == ("flavors",)
    with pytest.raises(BadOption):
        ask(categories=[])


def test_lists_are_chosen_among_all_of_them_only():
    """Another set chooses its lists itself, whatever the hidden boxes hold."""
    asked = ask(vocabulary="no artists", categories=["flavors"]).options
    assert (asked.vocabulary, asked.categories) == ("no artists", None)
    assert ask(vocabulary="no artists", categories=[]).options.categories is None
    assert ask(vocabulary=None).options == InterrogateOptions()


def test_words_are_left_out_and_replaced_as_they_are_written():
    """One a line or with commas; what can't be read is refused by name; emptied boxes ask none."""
    asked = ask(leave_out="by\n me , you", replacements="old=new\n x y = z").options
    assert asked.leave_out == ("by", "me", "you")
    assert asked.replacements == (("old", "new"), ("x y", "z"))
    assert ask(leave_out=None, replacements=None).options == InterrogateOptions()
    with pytest.raises(BadOption, match="OLD=NEW") as caught:
        ask(replacements="only")
    assert caught.value.field == "replacements"


def test_backbones_are_split_at_their_joint():
    """A plus inside a path is part of it."""
    assert asking.split_backbones("a/b + c/d") == ("a/b", "c/d")
    assert asking.split_backbones(" x=/models/c++/v.pt ") == ("x=/models/c++/v.pt",)
    assert asking.split_backbones(None) == asking.split_backbones("  ") == ()
    with pytest.raises(BadOption, match="at least one CLIP backbone"):
        asking.models_of("")


@pytest.mark.parametrize("generator", catalog.GENERATORS)
def test_a_generators_own_backbones_fit(generator):
    """In any order; so do the demo models, which fit nothing better or worse."""
    wanted = catalog.GENERATORS[generator]
    assert asking.fit_note(generator, asking.JOINT.join(reversed(wanted))) == ""
    assert asking.fit_note(generator, "demo") == ""
    assert asking.fit_note(asking.CUSTOM, "anything/else") == ""
    named = asking.generator_of(asking.JOINT.join(wanted))
    assert catalog.GENERATORS[named] == wanted


def test_a_misfit_is_a_warning_and_a_part_a_hint():
    """One of SDXL's two backbones is a start."""
    other = asking.fit_note("SDXL", "ViT-H-14/laion2b_s32b_b79k")
    assert 'class="cliext-warning"' in other
    assert "ViT-L-14/openai and ViT-bigG-14/laion2b_s39b_b160k" in other
    part = asking.fit_note("SDXL", "ViT-L-14/openai")
    assert 'class="cliext-note"' in part
    assert "with ViT-bigG-14/laion2b_s39b_b160k too" in part


def test_a_backbone_of_nobody_is_custom():
    """Then no generator is shown as the target."""
    assert asking.generator_of("demo") == asking.CUSTOM
    assert asking.generator_of("") == asking.CUSTOM


# Phrases taken out and put back


def test_phrases_follow_their_checkboxes():
    """Several may change at once; what was written stays."""
    found = ["one", "two", "three"]
    memory = _toggled("mine, one, two, three", ["1"], Memory(("0", "1", "2")), found)
    assert memory.made == "mine, two"
    memory = _toggled(memory.made, ["0", "1", "2"], memory, found)
    assert memory.made == "mine, one, two, three"
    assert _toggled("mine", ["0"], Memory(("0",)), found).made == "mine"


def test_a_click_that_comes_before_the_answer_to_another_counts_too():
    """It brings the text from before both, in either direction."""
    found, text = ["one", "two"], "mine, one, two"
    first = _toggled(text, ["1"], Memory(("0", "1")), found)
    second = _toggled(text, [], first, found)
    assert second.made == "mine"
    third = _toggled("mine", ["0"], second, found)
    fourth = _toggled("mine", ["0", "1"], third, found)
    assert fourth.made == text


def test_clicks_may_bring_any_text_that_the_box_has_shown_since():
    """The third brings what the first has made, when the second's answer is not shown yet."""
    found = ["one", "two", "three"]
    text = "mine, one, two, three"
    first = _toggled(text, ["1", "2"], Memory(("0", "1", "2")), found)
    second = _toggled(text, ["2"], first, found)
    third = _toggled(first.made, [], second, found)
    assert (first.made, second.made, third.made) == ("mine, two, three", "mine, three", "mine")
    assert _toggled("yours", ["2"], third, found).made == "yours, three"



# Runs


@pytest.fixture
def service(tmp_path) -> Service:
    return Service(StandaloneHost("cpu"), cache_dir=tmp_path)


def test_a_run_shows_how_far_it_is_and_then_its_answer(service):
    """By the name under which the service lists it."""
    seen = threading.Event()

    def work(task: str) -> str:
        with service._runs.announced("interrogate", task) as run:
            run.running = True
            run.report("ranking", 1, 2)
            assert seen.wait(60)
        return "answer"

    running = Running(service, work)
    labels = []
    for run in running:
        if run is not None:
            labels.append(run.label)
            seen.set()
    assert "ranking" in labels
    assert (running.answer, running.failure) == ("answer", "")


def test_a_failure_is_its_sentence(service):
    """Errors of ours are written for whoever reads the page."""

    def work(task: str) -> str:
        raise BrokenModel("The weights are cut off. Download them again.")

    running = Running(service, work)
    list(running)
    assert running.answer is None
    assert running.failure == "The weights are cut off. Download them again."


def test_something_unforeseen_is_a_sentence_and_a_log(service, caplog):
    """The trace goes to the log, and the page says to look there."""

    def work(task: str) -> str:
        raise ZeroDivisionError("by nothing")

    running = Running(service, work)
    list(running)
    assert running.answer is None
    assert running.failure == "Something went wrong (ZeroDivisionError: by nothing); see the log."
    assert caplog.records[-1].exc_info is not None


def test_a_run_that_waits_can_be_stopped_at_once(service, picture):
    """The page does not wait for the device; the run itself never begins."""
    models = ModelOptions(("demo",), "none")
    with service.host.exclusive("another"):
        running = Running(service, lambda task: service.similarity(picture, ["x"], models, task))
        steps = iter(running)
        while next(steps) is None:
            pass
        stop(service, running.task)
        asked = time.monotonic()
        list(steps)
        assert time.monotonic() - asked < 30
        assert running.failure == "Stopped: nothing had been found yet."
        assert running.answer is None
    while service.status().runs:
        time.sleep(0.01)
    assert service.status().loaded == ()


def test_stop_leaves_the_runs_of_others_alone(service):
    """A page stops its own; loaded anew it stops those of pages, never those of the routes."""
    mine, other = Running(service, str).task, Running(service, str).task
    announced = partial(service._runs.announced, "interrogate")
    with announced("task(api)"), announced(mine), announced(other):
        stop(service, mine)
        assert [run.stopping for run in service.status().runs] == [False, True, False]
        stop(service, "")
        assert [run.stopping for run in service.status().runs] == [False, True, True]


def test_a_run_can_be_followed_from_a_page_loaded_anew(service):
    """Until it has ended; where none runs, nothing is shown."""
    assert list(follow(service)) == []
    task = Running(service, str).task
    with service._runs.announced("interrogate", task):
        seen = follow(service)
        assert next(seen).task == task
    assert list(seen) == []


def test_strangers_are_told_no_folders(service, tmp_path):
    """Of the machine's, as in the routes."""
    service.host.trusted, service.host.models_dirs = False, (tmp_path,)

    def work(task: str) -> str:
        raise BrokenModel(f"{tmp_path}/model is broken.")

    running = Running(service, work)
    list(running)
    assert running.failure == "(models folder)/model is broken."


def test_without_streams_the_last_step_is_shown():
    """Where Gradio has no queue, its generators can't be used."""

    def steps(value: int):
        yield value
        yield value + 1

    asked = gr.Request(headers={})
    plain = components._plain(steps, streams=False)
    assert plain(asked, 1) == 2
    assert list(components._plain(steps, streams=True)(asked, 1)) == [1, 2]


# The page


def build(service: Service, surroundings: Surroundings) -> tuple[gr.Blocks, Boxes]:
    """Return a page of its own, and its boxes."""
    with gr.Blocks() as blocks:
        boxes = draw(service, surroundings)
    return blocks, boxes


def props(blocks: gr.Blocks, name: str) -> dict[str, object]:
    """Return what Gradio tells the browser about an element."""
    wanted = elements.element_id(name)
    for component in blocks.get_config_file()["components"]:
        if component["props"].get("elem_id") == wanted:
            return component["props"]
    raise AssertionError(f"{wanted} is not on the page")


def shown(blocks: gr.Blocks, name: str) -> bool:
    """Say whether an element and all that it stands in are visible."""
    config = blocks.get_config_file()
    by_id = {component["id"]: component["props"] for component in config["components"]}
    wanted = elements.element_id(name)

    def search(node: dict, visible: bool) -> bool | None:
        own = by_id.get(node["id"], {})
        visible = visible and own.get("visible", True) is not False
        if own.get("elem_id") == wanted:
            return visible
        found = (search(child, visible) for child in node.get("children") or [])
        return next((one for one in found if one is not None), None)

    return bool(search(config["layout"], True))


def test_the_page_builds_with_the_defaults_it_is_given(service):
    """Each box begins at the user's own setting; a backbone of one's own is among the choices."""
    given = {"clip": "mine/own", "mode": "classic", "min_flavors": 3, "max_flavors": 7}
    default = Surroundings().setting
    surroundings = Surroundings(setting=lambda key: given.get(key, default(key)))
    blocks, boxes = build(service, surroundings)
    assert props(blocks, "backbones")["value"] == "mine/own"
    assert "mine/own" in json.dumps(props(blocks, "backbones")["choices"])
    assert props(blocks, "mode")["value"] == "classic"
    assert props(blocks, "min-flavors")["value"] == 3
    assert props(blocks, "max-flavors")["value"] == "7"
    assert props(blocks, "token-budget")["value"] == ""
    assert boxes.prompt.elem_id == "cliext-prompt"


def choices_of(blocks: gr.Blocks, name: str) -> list[str]:
    """Return the choices of an element, of which Gradio 4 and 6 make pairs."""
    choices = props(blocks, name)["choices"]
    return [one if isinstance(one, str) else one[0] for one in choices]


def test_the_sets_of_word_lists_are_offered_at_the_settings(service):
    """One that is not there any more can still be shown; a line says what the set is about."""
    blocks, _ = build(service, Surroundings())
    assert choices_of(blocks, "vocabulary") == list(service.word_sets())
    assert props(blocks, "vocabulary")["value"] == "all"
    assert props(blocks, "categories")["visible"] is True
    assert choices_of(blocks, "categories") == list(service.positive_categories())
    about = service.word_sets()["all"].about
    assert elements.note(about) in str(props(blocks, "vocabulary-help")["value"])
    given = {"vocabulary": "gone", "leave_out": "a, b", "replacements": "old=new"}
    default = Surroundings().setting
    blocks, _ = build(service, Surroundings(setting=lambda key: given.get(key, default(key))))
    assert choices_of(blocks, "vocabulary") == [*service.word_sets(), "gone"]
    assert props(blocks, "vocabulary")["value"] == "gone"
    assert props(blocks, "categories")["visible"] is False
    assert "no set of word lists called gone" in str(props(blocks, "vocabulary-help")["value"])
    assert props(blocks, "leave-out")["value"] == "a, b"
    assert props(blocks, "replacements")["value"] == "old=new"


def test_lists_that_are_not_here_are_told_of():
    """In a line that warns, under what the set is about."""
    classic = SimpleNamespace(about="As <they> were.", missing=lambda _: ("classic:flavors",))
    sets = {"classic": classic}
    service = SimpleNamespace(word_sets=lambda: sets, categories=dict)
    html = asking.vocabulary_help(service, "classic")
    assert "As &lt;they&gt; were." in html
    assert 'class="cliext-warning"' in html
    assert "Not on this machine: classic:flavors." in html
    sets["classic"] = SimpleNamespace(about="As they were.", missing=lambda _: ())
    assert "warning" not in asking.vocabulary_help(service, "classic")


def test_notices_stand_first_and_are_text(service):
    """What the user must see before anything else."""
    blocks, _ = build(service, Surroundings(notices=lambda: ["Restart <now>.", "Second."]))
    html = props(blocks, "notices")["value"]
    assert "Restart &lt;now&gt;." in html
    assert html.count("cliext-warning") == 2
    assert props(build(service, Surroundings())[0], "notices")["value"] == ""


def test_targets_take_the_place_of_the_copy_buttons(service):
    """In a WebUI results are sent; alone they are copied."""
    connected = []
    target = Target("txt2img", "Send to txt2img", lambda _, boxes: connected.append(boxes))
    blocks, boxes = build(service, Surroundings(targets=(target,)))
    assert connected == [boxes]
    assert shown(blocks, "send-txt2img")
    assert not shown(blocks, "copy-prompt")
    assert shown(build(service, Surroundings())[0], "copy-prompt")


def test_models_are_neither_downloaded_nor_deleted_where_others_listen(service):
    """The buttons are gone, a sentence says why, and paths of this machine are not told."""
    blocks, _ = build(service, Surroundings())
    assert shown(blocks, "download")
    assert shown(blocks, "delete")
    service.host.trusted = False
    blocks, _ = build(service, Surroundings())
    assert not shown(blocks, "download")
    assert not shown(blocks, "delete")
    assert "switched off" in str(props(blocks, "models-closed")["value"])
    assert shown(blocks, "models-unload")


def test_events_are_no_gradio_api(service):
    """There are routes for programs."""
    blocks, _ = build(service, Surroundings())
    for event in blocks.get_config_file()["dependencies"]:
        if "api_visibility" in event:
            assert event["api_visibility"] == "private"
        else:
            assert event["api_name"] is False
