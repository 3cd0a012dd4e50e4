"""The engine end to end through real networks: a tiny random backbone, captions given or none."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.errors import BadOption, BrokenModel, Interrupted, OutOfMemory
from clip_interrogator_ext.models import open_clip
from clip_interrogator_ext.results import Look
from clip_interrogator_ext.search.modes import MODES
from tests.conftest import save_backbone, tiny_config, tiny_model

pytestmark = pytest.mark.hosts

CAPTION = "a red cat on a beach"


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short lists in place of the bundled ones, so that tests take no time."""
    folder = tmp_path_factory.mktemp("lists")
    lists = {
        "artists": ["Ann Alpha", "Bob Beta", "Cy Gamma"],
        "mediums": ["an oil painting", "a photo", "pixel art"],
        "movements": ["cubism", "pop art", "realism"],
        "sites": ["Somewhere", "Elsewhere"],
        "flavors": [
            f"{one} {two}" for one in ("soft", "hard", "blue") for two in ("light", "fog", "edges")
        ],
        "negative": ["blurry", "watermark", "bad hands"],
    }
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def host() -> StandaloneHost:
    return StandaloneHost("cpu")


@pytest.fixture
def service(host, lists_dir, tmp_path) -> Service:
    return Service(host, cache_dir=tmp_path / "cache", lists_dir=lists_dir)


@pytest.fixture
def models(backbone_folder) -> ModelOptions:
    return ModelOptions(backbones=(str(backbone_folder),), captioner="none")


def options(mode: str = "best", **changes: object) -> InterrogateOptions:
    settings: dict = {"caption": CAPTION, "min_flavors": 2, "max_flavors": 6, **changes}
    return InterrogateOptions(mode=mode, **settings)


@pytest.mark.parametrize("mode", list(MODES))
def test_every_mode_answers_with_text_parts_and_similarity(service, models, picture, mode):
    """The text holds each part's phrase, and its similarity is what `similarity` says of it."""
    prompt = service.interrogate(picture, options(mode), models)
    assert prompt.text
    assert prompt.mode == mode
    assert all(part.phrase in prompt.text for part in prompt.parts)
    assert prompt.similarity == pytest.approx(
        service.similarity(picture, [prompt.text], models)[0], abs=1e-5
    )
    row = open_clip.import_open_clip().tokenize([prompt.text])[0]
    assert prompt.tokens == int((row != 0).sum()) - 2
    assert prompt.seconds > 0
    assert json.loads(json.dumps(prompt.as_dict()))["text"] == prompt.text


def test_a_parts_gain_is_what_the_prompt_loses_without_it(service, models, picture):
    """Measured again from outside, text by text."""
    prompt = service.interrogate(picture, options("fast"), models)
    for index, part in enumerate(prompt.parts):
        rest = [other.phrase for place, other in enumerate(prompt.parts) if place != index]
        whole, without, alone = service.similarity(
            picture, [prompt.text, ", ".join([CAPTION, *rest]), part.phrase], models
        )
        assert part.gain == pytest.approx(whole - without, abs=1e-5)
        assert part.similarity == pytest.approx(alone, abs=1e-5)


def test_positive_and_negative_come_from_one_run(service, models, picture):
    """The negative is that of negative mode, and the positive is not changed by asking for it."""
    alone = service.interrogate(picture, options("fast"), models)
    both = service.interrogate(picture, options("fast", negative=True), models)
    only = service.interrogate(picture, options("negative"), models)
    assert both.text == alone.text
    assert both.negative is not None
    assert both.negative.text == only.text
    assert not set(only.text.split(", ")) & set(alone.text.split(", "))


def test_categories_can_be_switched_off(service, models, picture):
    """Without artists no phrase of an artist comes out, in any mode."""
    for mode in ("best", "turbo", "fast", "classic", "style"):
        prompt = service.interrogate(
            picture, options(mode, categories=("flavors", "mediums")), models
        )
        assert {part.category for part in prompt.parts} <= {"flavors", "mediums"}
        assert "Alpha" not in prompt.text
    with pytest.raises(BadOption, match=r"no category .flavours.*Did you mean flavors"):
        service.interrogate(picture, options(categories=("flavours",)), models)


def test_the_budget_limits_every_mode(service, models, picture):
    """No mode returns more tokens than asked for, and a longer caption ends at a word."""
    for mode in MODES:
        prompt = service.interrogate(picture, options(mode, token_budget=9), models)
        assert prompt.tokens <= 9
    cut = service.interrogate(picture, options("fast", caption="word " * 200), models)
    assert cut.tokens == 75
    assert cut.text == " ".join(["word"] * 75)


def test_a_mode_that_needs_a_caption_says_so(service, models, picture):
    """Without a captioner and a caption, the sentence tells what to do; style does without."""
    with pytest.raises(BadOption, match="needs a caption"):
        service.interrogate(picture, InterrogateOptions(mode="fast"), models)
    style = InterrogateOptions(mode="style", min_flavors=1)
    assert service.interrogate(picture, style, models).text


def test_a_subject_is_refused_where_it_would_be_ignored():
    """It goes with style only."""
    with pytest.raises(BadOption, match="goes with the mode style"):
        InterrogateOptions(mode="fast", subject="a dog")


def test_a_pictures_file_will_do(service, models, picture, tmp_path):
    """A path in place of a picture is opened."""
    picture.save(tmp_path / "picture.png")
    asked = options("fast")
    from_file = service.interrogate(tmp_path / "picture.png", asked, models)
    assert from_file.text == service.interrogate(picture, asked, models).text


def test_analyze_ranks_each_category(service, models, picture):
    """The nearest phrases of each positive category come first, with their similarities."""
    analysis = service.analyze(picture, models, top=3)
    assert list(analysis.categories) == ["artists", "flavors", "mediums", "movements", "sites"]
    for ranked in analysis.categories.values():
        scores = [score for _, score in ranked]
        assert scores == sorted(scores, reverse=True)
        assert len(ranked) == 3
        measured = service.similarity(picture, [phrase for phrase, _ in ranked], models)
        assert scores == pytest.approx(measured, abs=2e-3)  # kept vectors are float16


def test_two_backbones_answer_together(service, backbone_folder, picture, tmp_path):
    """Both networks' tables are made, and the prompt's similarity is the mean of both."""
    other = save_backbone(tmp_path / "other", tiny_model(9), tiny_config())
    names = (str(backbone_folder), str(other))
    together = service.interrogate(
        picture, options("best"), ModelOptions(backbones=names, captioner="none")
    )
    each = [
        service.similarity(
            picture, [together.text], ModelOptions(backbones=(name,), captioner="none")
        )[0]
        for name in names
    ]
    assert together.similarity == pytest.approx(sum(each) / 2, abs=1e-5)


def test_the_same_picture_gives_the_same_prompt_on_every_start(backbone_folder, lists_dir, tmp_path,
                                                               picture):
    """Whatever PYTHONHASHSEED is, in processes of their own, with and without kept vectors."""
    picture.save(tmp_path / "picture.png")
    command = [
        sys.executable, "-m", "clip_interrogator_ext", "prompt", str(tmp_path / "picture.png"),
        "--clip", str(backbone_folder), "--caption", CAPTION, "--lists-dir", str(lists_dir),
        "--negative", "--quiet", "--cache-dir", str(tmp_path / "cache"),
    ]
    root = Path(__file__).parents[1]
    answers = {
        subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in ("0", "4242")
    }
    assert len(answers) == 1
    assert "Negative prompt: " in answers.pop()


def test_a_stop_keeps_what_was_found(lists_dir, models, picture, tmp_path):
    """Stopped in the search, the answer is the caption and the phrases found, marked as such."""

    def show(label: str, done: int, total: int) -> None:
        if label == "Searching" and done == 3:
            host.interrupt()

    host = StandaloneHost("cpu", show=show)
    service = Service(host, cache_dir=tmp_path, lists_dir=lists_dir)
    stopped = service.interrogate(picture, options("best", min_flavors=6), models)
    assert stopped.interrupted
    assert stopped.text.startswith(CAPTION)
    assert stopped.similarity is not None
    whole = service.similarity(picture, ["the next run works"], models)
    assert len(whole) == 1


def test_a_stop_before_anything_was_found_is_an_error(lists_dir, models, picture, tmp_path):
    """There is no prompt to return, and the next run works."""
    host = StandaloneHost("cpu", show=lambda *_: host.interrupt())
    service = Service(host, cache_dir=tmp_path, lists_dir=lists_dir)
    with pytest.raises(Interrupted):
        service.interrogate(picture, options("negative"), models)
    service.host = StandaloneHost("cpu")
    assert service.interrogate(picture, options("negative"), models).text


def test_progress_is_told_step_by_step(lists_dir, models, picture, tmp_path):
    """Each step counts up to its total, tables by name and the search by flavors."""
    seen: dict[str, list[tuple[int, int]]] = {}

    def show(label: str, done: int, total: int) -> None:
        seen.setdefault(label, []).append((done, total))

    service = Service(StandaloneHost("cpu", show=show), cache_dir=tmp_path, lists_dir=lists_dir)
    service.interrogate(picture, options("best"), models)
    assert {"Looking", "Searching", "flavors words"} <= set(seen)
    for label, steps in seen.items():
        assert steps == sorted(steps), label
        assert all(0 <= done <= total for done, total in steps), label


def test_out_of_memory_is_tried_again_with_smaller_chunks(service, models, picture, monkeypatch,
                                                          caplog):
    """Memory is freed and the task done with chunks a quarter as large; the answer is the same."""
    right = service.interrogate(picture, options("fast"), models).text
    plain = open_clip.OpenClip.encode_texts

    def greedy(self, texts, *arguments):
        if self.chunk_size > 16:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, texts, *arguments)

    service.unload()
    monkeypatch.setattr(open_clip.OpenClip, "encode_texts", greedy)
    assert service.interrogate(picture, options("fast"), models).text == right
    assert "chunks of 16" in caplog.text
    kept = service._interrogator
    assert service.interrogate(picture, options("fast"), models).text == right
    assert service._interrogator is kept, "the smaller chunks are remembered"


@pytest.mark.parametrize("mode", ["fast", "style", "negative"])
def test_a_look_at_several_pictures_gives_the_answers_of_each(service, models, picture, mode):
    """Prepared apart and looked at together, then forgotten but for what was seen."""
    images = [picture, picture.rotate(90), picture.resize((30, 70))]
    prepare = service.preparer(models, captions=False)
    seen = service.vectors([prepare(image) for image in images], models)
    for image, vectors in zip(images, seen, strict=True):
        (vector,) = vectors
        assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-5)
        prompt = service.interrogate(Look(None, vectors), options(mode), models)
        expected = service.interrogate(image, options(mode), models)
        assert (prompt.text, prompt.caption) == (expected.text, expected.caption)
        assert prompt.similarity == pytest.approx(expected.similarity, abs=1e-5)


def test_a_look_without_a_caption_is_no_look_for_modes_that_need_one(service, models, picture):
    """What was seen stands in for the captioner's words; nothing seen is said, not guessed."""
    fast = InterrogateOptions(mode="fast")
    vectors = service.vectors([service.preparer(models, captions=False)(picture)], models)[0]
    with pytest.raises(BadOption, match="needs a caption"):
        service.interrogate(Look(None, vectors), fast, models)
    assert service.interrogate(Look(" a  cat ", vectors), fast, models).text.startswith("a cat, ")


def test_memory_that_runs_out_halves_the_pictures_at_once(service, models, picture, monkeypatch,
                                                          caplog):
    """The vectors are those of the pictures, in their order, and the size is remembered."""
    images = [picture.rotate(30 * number) for number in range(7)]
    prepare = service.preparer(models, captions=False)
    prepared = [prepare(image) for image in images]
    right = service.vectors(prepared, models)
    sizes, plain = [], open_clip.OpenClip.encode_images

    def greedy(self, pixels):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, pixels)

    monkeypatch.setattr(open_clip.OpenClip, "encode_images", greedy)
    for _ in range(2):
        seen = service.vectors(prepared, models)
        for (one,), (other,) in zip(seen, right, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert sizes == [7, 3, *[1] * 7, *[1] * 7]
    assert "looking at 3 pictures at once" in caplog.text


@pytest.mark.parametrize("mode", ["best", "negative"])
def test_an_answer_depends_on_no_question_before(host, lists_dir, tmp_path, models, picture, mode):
    """To the last bit: with vectors that were just made or were kept, first or after another."""
    asked = options(mode)
    answers = []
    for _ in range(2):
        service = Service(host, cache_dir=tmp_path, lists_dir=lists_dir)
        answers.append(service.interrogate(picture, asked, models))
        service.interrogate(picture.rotate(90), options("style", caption=None), models)
        service.similarity(picture, ["a red cat", "a red cat, soft light"], models)
        answers.append(service.interrogate(picture, asked, models))
    for answer in answers[1:]:
        assert answer.similarity == answers[0].similarity
        assert answer.parts == answers[0].parts


def test_phrases_are_weighed_if_asked(service, models, picture):
    """Without it the text and its score are the same, and nothing is known of the parts."""
    weighed = service.interrogate(picture, options("fast"), models)
    plain = service.interrogate(picture, options("fast", weigh=False), models)
    assert (plain.text, plain.tokens) == (weighed.text, weighed.tokens)
    assert plain.similarity == pytest.approx(weighed.similarity, abs=1e-6)
    assert [part.phrase for part in plain.parts] == [part.phrase for part in weighed.parts]
    assert {(part.similarity, part.gain) for part in plain.parts} == {(None, None)}
    assert all(part.gain is not None for part in weighed.parts)


def test_out_of_memory_twice_is_an_error_that_says_what_to_do(service, models, picture,
                                                              monkeypatch):
    """Never a prompt; and the next request works."""

    def never(*_arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(open_clip.OpenClip, "encode_images", never)
        with pytest.raises(OutOfMemory, match=r"not enough memory.*Choose a smaller"):
            service.interrogate(picture, options("fast"), models)
    assert service.interrogate(picture, options("fast"), models).text


def test_unloading_leaves_nothing_behind(service, models, picture):
    """After unload nothing of ours is referenced."""
    service.interrogate(picture, options("best"), models)
    module = weakref.ref(service._interrogator.encoders[0].module)
    table = weakref.ref(service._interrogator._tables["flavors"].vectors[0])
    service.unload()
    assert module() is None
    assert table() is None


def test_a_failure_leaves_nothing_behind(service, models, picture, monkeypatch):
    """After an unforeseen failure nothing of ours is referenced, though the error is still held."""
    service.interrogate(picture, options("fast"), models)
    module = weakref.ref(service._interrogator.encoders[0].module)

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(open_clip.OpenClip, "encode_images", fail)
    with pytest.raises(ZeroDivisionError) as held:
        service.interrogate(picture, options("fast"), models)
    gc.collect()
    assert module() is None
    assert held.value is not None


@pytest.mark.parametrize("mode", ["best", "turbo", "style", "negative", "fast"])
def test_a_stop_at_any_moment_is_survived(service, models, picture, mode):
    """Stopped at each tick in turn: an answer marked as stopped, or Interrupted; never less later.

    Once phrases have been found a later stop does not lose them.
    """
    service.interrogate(picture, options(mode), models)  # the tables are made
    engine, found, last = service._interrogator, [], 0
    for limit in range(1, 400):
        calls = []

        def tick(label: str, *_: int, limit: int = limit, calls: list = calls) -> None:
            calls.append(label)
            if len(calls) == limit:
                raise Interrupted("stop")

        try:
            prompt = engine.interrogate(picture, options(mode), tick)
        except Interrupted:
            assert not last, "what had been found was lost"
            continue
        found.append(prompt.interrupted)
        last = len(prompt.parts)
        if not prompt.interrupted:
            break
    assert found[-1] is False
    assert True in found


@pytest.mark.parametrize("cycle", [True, False])
def test_cycles_are_looked_for_only_where_a_network_is_in_one(
    service, models, picture, monkeypatch, cycle
):
    """Some versions of transformers build them; looking holds up every thread."""
    service.interrogate(picture, options("fast"), models)
    module = service._interrogator.encoders[0].module
    if cycle:
        module.itself = [module]
    freed = weakref.ref(module)
    del module
    looked = []
    collect = gc.collect
    monkeypatch.setattr(gc, "collect", lambda: looked.append(collect()))
    service.unload()
    assert freed() is None
    assert bool(looked) is cycle


def test_a_stop_before_the_run_stops_it(service, models, picture):
    """A stop that comes between two runs is not lost, and counts once."""
    service.host.interrupt()
    with pytest.raises(Interrupted):
        service.interrogate(picture, options("fast"), models)
    assert service.interrogate(picture, options("fast"), models).text


def test_a_long_text_is_cut_in_little_time(service, models, picture):
    """A caption of a million letters, in words or in one, takes no more than a short one."""
    for text in ("word " * 200_000, "x" * 1_000_000, "." * 100_000):
        prompt = service.interrogate(picture, options("caption", caption=text), models)
        assert 0 < prompt.tokens <= 75


def test_damaged_weights_are_an_error(service, models, picture, monkeypatch):
    """A network that computes no numbers makes no prompt."""
    service.interrogate(picture, options("fast"), models)
    with torch.no_grad():
        service._interrogator.encoders[0].module.visual.proj.fill_(float("nan"))
    with pytest.raises(BrokenModel, match="computes no numbers"):
        service.interrogate(picture, options("fast"), models)


def test_memory_returns_to_what_it_was(tmp_path, lists_dir):
    """Unloading gives back what a network took, and no further load leaves more behind.

    What the first load leaves in the heap differs by up to 35 MB between processes, and then stays.
    """
    program = """
import sys, torch
from PIL import Image
from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.models import open_clip
from clip_interrogator_ext.models.residency import return_free_memory

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6

big, small, cache, lists = sys.argv[1:]
service = Service(StandaloneHost("cpu"), cache_dir=cache, lists_dir=lists)
image = Image.new("RGB", (64, 64), "red")
asked = InterrogateOptions(mode="fast", caption="a cat")
service.interrogate(image, asked, ModelOptions(backbones=(small,), captioner="none"))
service.unload()
before = resident()
for _ in range(4):
    service.interrogate(image, asked, ModelOptions(backbones=(big,), captioner="none"))
    loaded = resident()
    service.unload()
    print(before, loaded, resident())
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    config = tiny_config()
    config["text_cfg"].update(width=512, heads=8, layers=12)
    torch.manual_seed(0)
    big = save_backbone(tmp_path / "big", open_clip.build(config), config)
    small = save_backbone(tmp_path / "small", tiny_model(0), tiny_config())
    answer = subprocess.run(
        [sys.executable, "-c", program, str(big), str(small), str(tmp_path), str(lists_dir)],
        cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True,
    ).stdout
    rounds = [[float(number) for number in line.split()] for line in answer.splitlines()]
    before, loaded, first = rounds[0]
    assert loaded > before + 150  # the network is 250 MB
    assert first - before < 0.2 * (loaded - before)
    assert [after for _, _, after in rounds if after > first * 1.05] == []


def test_a_request_checks_itself():
    """Each wrong value is named with its field and what it may be."""
    wrong = {
        "mode": ({"mode": "bset"}, "Did you mean best"),
        "pool_size": ({"pool_size": 0}, "from 1 to"),
        "max_flavors": ({"max_flavors": "3"}, "whole number"),
        "categories": ({"categories": ()}, "at least one"),
    }
    for field, (settings, words) in wrong.items():
        with pytest.raises(BadOption, match=words) as caught:
            InterrogateOptions(**settings)
        assert caught.value.field == field
    with pytest.raises(BadOption, match="once only"):
        ModelOptions(backbones=("a", "a"))
