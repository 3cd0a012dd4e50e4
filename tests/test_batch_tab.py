"""The tab Batch and uploaded pictures, as far as they work without a browser."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

gr = pytest.importorskip("gradio")

from clip_interrogator_ext import ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.batch import folder as folder_module
from clip_interrogator_ext.batch import jobs, uploads
from clip_interrogator_ext.batch.jobs import FAILURES_TOLD, jobs_of
from clip_interrogator_ext.batch.journal import NAME
from clip_interrogator_ext.batch.options import BatchOptions
from clip_interrogator_ext.batch.results import BatchProgress, BatchResult, BatchState, Failure
from clip_interrogator_ext.batch.uploads import Upload
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.errors import BadOption, InterrogatorError, Interrupted, QueueFull
from clip_interrogator_ext.faces.api.answers import batch_answer
from clip_interrogator_ext.faces.tab import batch_report, components, draw
from clip_interrogator_ext.faces.tab.batch import FOLDER, UPLOADED, BatchTab
from clip_interrogator_ext.faces.tab.prompt import PromptTab
from clip_interrogator_ext.faces.tab.surroundings import Surroundings
from clip_interrogator_ext.results import Prompt, Run
from tests.colors import Colors, red_of

pytestmark = pytest.mark.hosts

NASTY = '<img src=x onerror="alert(1)">'
NUMBERS = [2048, 8, "", "", 1, 0, 32, 64]
PATIENCE_SECONDS = 120


class Painted(Colors, Service):
    """A service whose prompt of a picture is its color; while `open` is unset it is asked on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(StandaloneHost("cpu"), cache_dir=folder / "cache")
        self.open = threading.Event()
        self.open.set()
        self.asked = 0

    def interrogate(self, look, options, models, task):
        with self._runs.announced("interrogate", task) as run:
            run.running = True
            run.report("looking", 1, 2)
            while not self.open.wait(0.01):
                if run.stopped.is_set():
                    raise Interrupted("The run was stopped.")
        self.asked += 1
        text = f"red {red_of(look)}"
        return Prompt(text, options.mode, "", 2, 0.25, 0.1, (), None)


@pytest.fixture
def service(tmp_path) -> Iterator[Painted]:
    service = Painted(tmp_path)
    yield service
    service.open.set()
    for state in jobs_of(service).all():
        jobs_of(service).stop(state.name)
        ended(service, state)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of three pictures."""
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


def paint(path: Path, red: int) -> Path:
    """Write a picture that has its own content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path, format="PNG")
    return path


def ended(service: Service, state: BatchState) -> BatchState:
    """Wait for the end of a batch."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        now = jobs_of(service).get(state.name)
        assert now is not None
        if now.ended:
            return now
        time.sleep(0.01)
    raise AssertionError("the batch did not end")


def batch_of(service: Service, token: str) -> BatchState:
    """Return the batch that a page knows by its token."""
    (found,) = (state for state in jobs_of(service).all() if state.token == token)
    return found


def running(service: Service, state: BatchState) -> None:
    """Wait until the engine is asked for a batch."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(run.task == state.name for run in service.status().runs):
        assert time.monotonic() < end
        time.sleep(0.01)


# Uploads


def options(**changes: Any) -> BatchOptions:
    return BatchOptions("uploaded", models=ModelOptions(("demo",), "demo"), **changes)


def uploaded(tmp_path: Path, *named: tuple[str, int]) -> list[Upload]:
    """Return uploads of these names and colors, which lie under other names."""
    return [
        Upload(name, paint(tmp_path / "gradio" / f"{place}" / "file.png", red))
        for place, (name, red) in enumerate(named)
    ]


def run(service: Service, files: list[Upload], **changes: Any) -> BatchState:
    return ended(service, uploads.add(service, files, options(**changes)))


def texts(service: Service, state: BatchState) -> dict[str, str]:
    """Return the texts in the zip that a batch offers."""
    with zipfile.ZipFile(uploads.downloads(service, state)[0]) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_uploads_give_a_zip_of_texts_under_their_own_names(service, tmp_path):
    """Two pictures of one name both have one, in whatever order they come."""
    files = uploaded(tmp_path, ("café (1).png", 1), ("b.png", 2), ("B.PNG", 3))
    state = run(service, files)
    found = texts(service, state)
    assert len(found) == 3
    assert found["café (1).txt"] == "red 1"
    assert sorted(found.values()) == ["red 1", "red 2", "red 3"]
    again = run(service, files[::-1])
    assert texts(service, again) == found
    assert service.asked == 3


def test_two_pictures_of_one_name_are_two(service, tmp_path):
    """And one that was uploaded twice is one."""
    state = run(service, uploaded(tmp_path, ("a.png", 1), ("a.png", 2), ("a.png", 1)))
    assert sorted(texts(service, state).values()) == ["red 1", "red 2"]


def test_the_copies_go_and_the_answers_stay(service, tmp_path):
    """So that a repeat, another form and other words ask the engine nothing."""
    files = uploaded(tmp_path, ("a.png", 1), ("b.png", 2))
    state = run(service, files)
    folder = Path(state.input)
    assert not folder.exists()
    assert (folder.parent / "output" / NAME).is_file()
    worded = run(service, files, wording=Wording(trigger="sks"))
    assert texts(service, worded) == {"a.txt": "sks, red 1", "b.txt": "sks, red 2"}
    table = run(service, files, form="csv")
    (file,) = uploads.downloads(service, table)
    assert file.name == "prompts.csv"
    assert "b.png,,red 2" in file.read_text(encoding="utf-8-sig")
    renamed = run(service, files, name="{stem}.caption")
    assert set(texts(service, renamed)) == {"a.caption", "b.caption"}
    assert service.asked == 2


def test_a_stopped_upload_goes_on_where_it_was(service, tmp_path):
    """What was finished can be fetched meanwhile."""
    files = uploaded(tmp_path, ("a.png", 1), ("b.png", 2))
    inner = service.interrogate

    def hold_the_second(image, *rest):
        if service.asked:
            service.open.clear()
        return inner(image, *rest)

    service.interrogate = hold_the_second
    state = uploads.add(service, files, options())
    end = time.monotonic() + PATIENCE_SECONDS
    while service.open.is_set() and time.monotonic() < end:
        time.sleep(0.01)
    running(service, state)
    assert jobs_of(service).stop(state.name)
    state = ended(service, state)
    assert (state.state, texts(service, state)) == ("stopped", {"a.txt": "red 1"})
    service.interrogate = inner
    service.open.set()
    assert len(texts(service, run(service, files))) == 2
    assert service.asked == 2


def test_failures_are_listed_without_this_machines_folders(service, tmp_path):
    """They can be fetched beside the texts."""
    files = uploaded(tmp_path, ("a.png", 1), ("broken.png", 2))
    files[1].path.write_bytes(b"no picture")
    state = run(service, files)
    zipped, failures = uploads.downloads(service, state)
    assert (zipped.name, failures.name) == ("texts.zip", "failures.txt")
    written = failures.read_text(encoding="utf-8")
    assert written.startswith('# "broken.png" is no picture')
    assert written.endswith("\nbroken.png\n")
    assert str(tmp_path) not in written
    assert texts(service, state) == {"a.txt": "red 1"}


@pytest.mark.parametrize(
    ("named", "changes", "sentence"),
    [
        ([], {}, "Choose the pictures"),
        ([("notes.txt", 1)], {}, '"notes.txt" is no picture, by its name'),
        ([("a.png", 1)], {"form": "kohya"}, "choose one of txt, txt-one, csv"),
    ],
)
def test_what_can_not_be_uploaded_is_refused(service, tmp_path, named, changes, sentence):
    """In a sentence, and nothing is left behind."""
    with pytest.raises(BadOption, match=sentence):
        uploads.add(service, uploaded(tmp_path, *named), options(**changes))
    assert not list((tmp_path / "cache").glob("uploads/*/pictures/*"))


def test_an_upload_that_still_goes_on_is_refused(service, tmp_path):
    """Gradio 3 hands over an empty file meanwhile."""
    files = uploaded(tmp_path, ("a.png", 1), ("b.png", 2))
    files[1].path.write_bytes(b"")
    with pytest.raises(BadOption, match=r'"b.png" is empty, or its upload still goes on'):
        uploads.add(service, files, options())
    files[1].path.unlink()
    with pytest.raises(BadOption, match=r'The upload of "b.png" is gone'):
        uploads.add(service, files, options())


def test_the_same_pictures_wait_for_each_other(service, tmp_path):
    """One batch at a time has their folder."""
    service.open.clear()
    files = uploaded(tmp_path, ("a.png", 1))
    state = uploads.add(service, files, options())
    with pytest.raises(InterrogatorError, match="in the line already"):
        uploads.add(service, files, options(form="csv"))
    service.open.set()
    assert texts(service, ended(service, state)) == {"a.txt": "red 1"}


def test_equal_uploads_have_their_own_downloads(service, tmp_path):
    """Answers are shared; what one batch offers is never that of another."""
    files = uploaded(tmp_path, ("a.png", 1), ("b.png", 2))
    first = run(service, files)
    table = run(service, files, form="csv")
    worded = run(service, files, wording=Wording(trigger="sks"))
    assert texts(service, first) == {"a.txt": "red 1", "b.txt": "red 2"}
    assert [file.name for file in uploads.downloads(service, table)] == ["prompts.csv"]
    assert texts(service, worded) == {"a.txt": "sks, red 1", "b.txt": "sks, red 2"}
    assert service.asked == 2


def test_what_is_refused_loses_nothing(service, tmp_path, monkeypatch):
    """Of an earlier batch of the same pictures, what can be fetched and what was answered stay."""
    files = uploaded(tmp_path / "1", ("a.png", 1))
    first = run(service, files)
    found = texts(service, first)
    service.open.clear()
    going_on = uploads.add(service, uploaded(tmp_path / "2", ("b.png", 2)), options())
    monkeypatch.setattr(jobs, "WAITING_LIMIT", 0)
    with pytest.raises(QueueFull):
        uploads.add(service, files, options())
    with pytest.raises(BadOption):
        uploads.add(service, files, options(beside=(("demo", "demo"),)))
    assert texts(service, first) == found
    service.open.set()
    ended(service, going_on)
    assert texts(service, run(service, files)) == found
    assert service.asked == 2


def test_a_stopped_upload_looks_at_the_same_groups(service, tmp_path, monkeypatch):
    """Its vectors stay too: else rounding might differ from that of a run never stopped."""
    monkeypatch.setattr(folder_module, "_TOGETHER", 4)
    groups: list[list[int]] = []
    vectors, inner = service.vectors, service.interrogate

    def looked(pictures, *rest):
        groups.append(list(pictures))
        return vectors(pictures, *rest)

    def stop_in_the_second(look, *rest):
        if service.asked == 1:
            jobs_of(service).stop()
        return inner(look, *rest)

    service.vectors, service.interrogate = looked, stop_in_the_second
    files = uploaded(tmp_path, *((f"{red}.png", red) for red in range(6)))
    assert run(service, files).state == "stopped"
    service.interrogate = inner
    assert run(service, files).state == "done"
    assert groups == [[0, 1, 2, 3], [4, 5]]


def test_a_batch_that_is_stopped_in_the_line_keeps_its_folder_to_the_end(service, tmp_path):
    """The same pictures are laid anew only when the copies of before are gone."""
    service.open.clear()
    files = uploaded(tmp_path / "2", ("b.png", 2))
    running(service, uploads.add(service, uploaded(tmp_path / "1", ("a.png", 1)), options()))
    waiting = uploads.add(service, files, options())
    clear, refused = uploads._clear, []

    def meanwhile(folder):
        if not refused and folder == Path(waiting.input):
            refused.append(jobs_of(service).get(waiting.name).state)
            with pytest.raises(InterrogatorError, match="in the line already"):
                uploads.add(service, files, options())
        clear(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "_clear", meanwhile)
        assert jobs_of(service).stop(waiting.name)
    assert refused == ["stopping"]
    assert jobs_of(service).get(waiting.name).state == "stopped"
    again = uploads.add(service, files, options())
    assert Path(again.input, "b.png").is_file()
    service.open.set()
    assert texts(service, ended(service, again)) == {"b.txt": "red 2"}


def test_copies_of_what_never_began_go_too(service, tmp_path):
    """A batch that is stopped while it waits leaves no pictures."""
    service.open.clear()
    first = uploads.add(service, uploaded(tmp_path / "1", ("a.png", 1)), options())
    running(service, first)
    second = uploads.add(service, uploaded(tmp_path / "2", ("b.png", 2)), options())
    assert Path(second.input, "b.png").is_file()
    assert jobs_of(service).stop(second.name)
    assert not Path(second.input).exists()
    assert Path(first.input, "a.png").is_file()
    assert uploads.downloads(service, ended(service, second)) == ()


def test_copies_stay_as_long_as_their_process_lives(service, tmp_path):
    """Of two services, or programs, that share a folder, none clears or lays what another has."""
    service.open.clear()
    files = uploaded(tmp_path, ("a.png", 1))
    state = uploads.add(service, files, options())
    other = Painted(tmp_path)
    uploads.clear_left(other)
    with pytest.raises(InterrogatorError, match="in the line already"):
        uploads.add(other, files, options())
    assert Path(state.input, "a.png").is_file()
    service.open.set()
    ended(service, state)
    assert texts(other, run(other, files)) == {"a.txt": "red 1"}


def test_what_a_killed_process_left_goes_when_the_page_is_drawn(service, tmp_path):
    """Copies, and what was half packed; not what is to be fetched, and nothing of other programs.

    Where locks tell nothing, as in folders of earlier versions, it stays for some days.
    """
    state = run(service, uploaded(tmp_path, ("a.png", 1)))
    folder = Path(state.input).parent
    half = folder / "downloads" / ".batch-0123456789ab"
    unknown = folder.with_name("0" * 32)
    for left in (folder / "pictures", half, unknown / "pictures"):
        paint(left / "a.png", 1)
    with gr.Blocks(analytics_enabled=False):
        draw(service, Surroundings())
    assert not (folder / "pictures").exists()
    assert not half.exists()
    assert (unknown / "pictures" / "a.png").is_file()
    assert texts(service, state) == {"a.txt": "red 1"}


def test_folders_of_uploads_are_forgotten_after_some_days(service, tmp_path):
    """When something new is uploaded; never those in use, nor those of yesterday."""
    old = Path(run(service, uploaded(tmp_path / "1", ("a.png", 1))).input).parent
    young = Path(run(service, uploaded(tmp_path / "2", ("b.png", 2))).input).parent
    service.open.clear()
    used = uploads.add(service, uploaded(tmp_path / "3", ("c.png", 3)), options())
    in_use = Path(used.input).parent
    for folder, days in ((old, 8), (young, 1), (in_use, 8)):
        then = time.time() - days * 86400
        os.utime(folder, (then, then))
    uploads.add(service, uploaded(tmp_path / "4", ("d.png", 4)), options())
    assert not old.exists()
    assert young.exists()
    assert in_use.exists()


def test_old_downloads_go_though_their_pictures_come_again(service, tmp_path):
    """Those of a batch that ended days ago, of which the answers are still in use."""
    files = uploaded(tmp_path, ("a.png", 1))
    old, young = run(service, files), run(service, files)
    then = time.time() - 8 * 86400
    os.utime(uploads.downloads(service, old)[0].parent, (then, then))
    run(service, files)
    assert uploads.downloads(service, old) == ()
    assert texts(service, young) == {"a.txt": "red 1"}


def test_old_folders_that_stay_are_logged(service, tmp_path, monkeypatch, caplog):
    """They are no reason not to take pictures."""
    old = Path(run(service, uploaded(tmp_path / "1", ("a.png", 1))).input).parent
    then = time.time() - 8 * 86400
    os.utime(old, (then, then))
    remove = shutil.rmtree

    def refuse(folder, **more):
        if folder == old:
            raise PermissionError(13, "Permission denied", str(folder))
        remove(folder, **more)

    monkeypatch.setattr(uploads.shutil, "rmtree", refuse)
    state = run(service, uploaded(tmp_path / "2", ("b.png", 2)))
    assert texts(service, state) == {"b.txt": "red 2"}
    assert f"{old} is old, but can't be removed" in caplog.text


def test_a_folder_of_uploads_that_is_closed_is_logged(service, tmp_path, monkeypatch, caplog):
    """What can be laid into it all the same is."""
    run(service, uploaded(tmp_path / "1", ("a.png", 1)))
    root, inside = service.cache_dir / "uploads", Path.iterdir

    def refuse(folder):
        if folder == root:
            raise PermissionError(13, "Permission denied", str(folder))
        return inside(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert run(service, uploaded(tmp_path / "2", ("b.png", 2))).state == "done"
    assert f"{root} can't be looked into" in caplog.text


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/a.png", "a.png"),
        ("C:\\photos\\a.png", "a.png"),
        (".png", "picture.png"),
        (" ..a. .png", "a.png"),
        ("a\0b\nc<d>.png", "a_b_c_d_.png"),
        ("con.png", "_con.png"),
        ("nul.x.jpg", "_nul.x.jpg"),
        ("Grüße 猫.webp", "Grüße 猫.webp"),
        ("lone \udc80.png", "lone _.png"),
    ],
)
def test_names_of_uploads_are_made_safe(name, safe):
    """They come from anywhere; what any file system holds stays as it is."""
    assert uploads._safe(name) == safe


def test_names_of_uploads_are_cut_between_letters():
    """Long ones leave room for what the names of texts add."""
    name = uploads._safe("é" * 300 + ".jpeg")
    assert name.endswith("é.jpeg")
    assert len(name.encode()) <= 156


def test_a_full_disk_at_the_end_is_told(service, tmp_path, monkeypatch):
    """The batch has failed, with a sentence, and the copies are gone."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "_zip", full)
    state = run(service, uploaded(tmp_path, ("a.png", 1)))
    assert state.state == "failed"
    assert "make room on the disk" in state.error
    assert not Path(state.input).exists()


# What is seen


STATE = BatchState("b", "running", "photos", 30)
PROGRESS = BatchProgress(
    2, 30, 1, 0, 0.5, 54.4, step="Prompts", step_done=3, picture=Path("x/a.png"), prompt="a cat"
)


def html_of(state: BatchState, run: Run | None = None, **more: Any) -> str:
    return batch_report.report(state, "photos", run, str, **more)


def test_progress_tells_step_rate_time_and_counts():
    """And the last picture with its prompt; before it, the engine's own step."""
    html = html_of(replace(STATE, progress=PROGRESS))
    assert "<span>Prompts · 3 of 30 · 2 s each · 54 s left</span>" in html
    assert "width:10%" in html
    assert "2 done · 1 skipped · 0 failed" in html
    assert "<b>a.png</b><p>a cat</p>" in html
    assert "data-going-on" in html
    engine = Run("b", "interrogate", True, False, "encoding flavors", 3, 12, 5.0, None)
    assert "Encoding flavors · 3 of 12" in html_of(STATE, engine)
    assert "Waiting in line · 30 pictures" in html_of(replace(STATE, state="waiting"))
    assert "1.5 a second" in html_of(replace(STATE, progress=replace(PROGRESS, rate=1.5)))


def test_the_end_tells_where_everything_is():
    """But of uploads no place on this machine; a stop tells how it goes on."""
    result = BatchResult(
        3, 2, 1, 0, (Failure(Path("x/a.png"), '"a.png" is damaged.'),), Path("/out"),
        Path("/out/failures.txt"),
    )
    done = replace(STATE, state="done", result=result, seconds=65)
    html = html_of(done)
    for words in (
        "2 of 3 done (1 of them earlier), 0 skipped, 1 failed. It took 1 min 5 s.",
        "The prompts are in /out.", "listed in /out/failures.txt", "&quot;a.png&quot; is damaged.",
    ):
        assert words in html
    assert "data-going-on" not in html
    assert "/out" not in html_of(done, uploaded=True)
    assert "goes on from here" in html_of(replace(done, state="stopped"))
    assert "Stopped before it began" in html_of(replace(STATE, state="stopped"))
    failed = html_of(replace(STATE, state="failed", error="The disk is full."))
    assert 'role="alert">The disk is full.' in failed


def test_the_first_failures_are_told_and_how_many_more():
    """While a batch goes on and at its end alike."""
    all_of_them = tuple(Failure(Path(f"{n}.png"), f"reason {n}.") for n in range(25))
    html = batch_report.failures(all_of_them, 25, str)
    assert "<b>25 pictures failed</b>" in html
    assert "reason 19." in html
    assert "reason 20." not in html
    assert "and 5 more" in html
    going_on = replace(
        STATE, progress=replace(PROGRESS, failed=25), failures=all_of_them[:FAILURES_TOLD]
    )
    assert html in html_of(going_on)
    assert batch_report.failures((), 0, str) == ""


def test_names_and_prompts_never_become_html():
    """They come from files, and from models."""
    progress = replace(PROGRESS, picture=Path(f"{NASTY}.png"), prompt=NASTY, step=NASTY)
    state = replace(STATE, progress=progress, failures=(Failure(Path("a"), NASTY),))
    for html in (
        batch_report.report(state, NASTY, None, str),
        batch_report.report(replace(state, state="failed", error=NASTY), NASTY, None, str),
        batch_report.line([(state, NASTY)] * 2),
        batch_report.failures(state.failures, 1, str),
    ):
        assert "<img" not in html
        assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in html


def test_names_that_are_no_text_are_shown_with_escapes(tmp_path):
    """A browser takes UTF-8 only."""
    name = os.fsdecode(b"caf\xe9.png")
    failure = Failure(Path(name), f'"{name}" is damaged.')
    progress = replace(PROGRESS, picture=Path(name), prompt=name, failed=1)
    html = html_of(replace(STATE, progress=progress, failures=(failure,)))
    html += html_of(replace(STATE, state="failed", error=name))
    assert html.encode("utf-8").count(b"caf\\udce9.png") == 4


def test_a_thumbnail_is_small_and_upright(tmp_path):
    """A picture that is gone has none."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1000, 500), (200, 0, 0)).save(tmp_path / "a.jpg", exif=exif)
    source = batch_report.thumbnail(tmp_path / "a.jpg")
    kind, _, data = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        assert image.size == (96, 192)
    assert batch_report.thumbnail(tmp_path / "gone.jpg") == ""


# The tab


def tab_of(service: Service, **surroundings: Any) -> BatchTab:
    around = Surroundings(**surroundings)
    with gr.Blocks(analytics_enabled=False):
        return BatchTab(service, around, PromptTab(service, around))


def boxes(service: Service, tab: BatchTab, source: str, **changes: Any) -> list[Any]:
    """Return what the boxes of a tab hold after the first six, at their defaults but for some."""
    written = {name: box.value or "" for name, box in tab.written.items()}
    others = {"mode", "subject", "min_flavors", "leave_out", "replacements"}
    assert set(changes) <= {*written, *others}
    numbers = [NUMBERS[0], changes.get("min_flavors", 8), *NUMBERS[2:]]
    return [
        changes.get("mode", "fast"), False, changes.get("subject", ""), "demo", "demo",
        *(changes.get(name, value) for name, value in written.items()),
        service.positive_categories(), "all", list(service.positive_categories()),
        changes.get("leave_out", ""), changes.get("replacements", ""), *numbers, False,
    ]


def asked(service: Service, tab: BatchTab, folder: str, **changes: Any) -> BatchOptions:
    return tab._options(FOLDER, folder, False, *boxes(service, tab, FOLDER, **changes))


def press_start(
    service: Service, tab: BatchTab, source: str, folder: Any = "", files: Any = (),
    mine: str = "", **changes: Any,
) -> list[Any]:
    """Press Start; return what the boxes show at last: message, button, names, and what is seen."""
    given = boxes(service, tab, source, **changes)
    steps = list(tab._start(mine, "", source, str(folder), False, files, *given))
    assert steps[0][1]["interactive"] is False
    assert steps[-1][1]["interactive"] is True
    return steps[-1]


def test_the_boxes_ask_for_what_is_written_in_them(service):
    """Each in its own option, without blanks and with the quotes of copied paths gone."""
    tab = tab_of(service)
    assert asked(service, tab, ' "photos/*.png" ') == BatchOptions(
        "photos/*.png", asked=asked(service, tab, "x").asked, models=ModelOptions(("demo",), "demo")
    )
    form, existing = tab.written["form"].choices, tab.written["existing"].choices
    full = asked(
        service, tab, "photos", mode="style", subject=" a fox ", min_flavors=3,
        form=next(str(_text(one)) for one in form if "csv:" in _text(one)),
        existing=next(str(_text(one)) for one in existing if "replace:" in _text(one)),
        output=" out ", name=" {name}.cap ", caption_from="{stem}.caption", prefix="a", suffix="b",
        trigger="sks", replacements="old=new\n\n x y = z=1 \n", leave_out="by\n me ",
        beside="one, two\nthree + four\n",
    )
    assert (full.form, full.existing, full.output) == ("csv", "replace", "out")
    assert (full.name, full.caption_from) == ("{name}.cap", "{stem}.caption")
    assert full.wording == Wording("a", "b", "sks")
    assert full.asked.replacements == (("old", "new"), ("x y", "z=1"))
    assert full.asked.leave_out == ("by", "me")
    assert full.beside == (("one", "two"), ("three", "four"))
    assert (full.asked.mode, full.asked.min_flavors) == ("style", 3)
    assert full.asked.subject == "a fox"
    assert asked(service, tab, "photos", mode="best", subject="a fox").asked.subject is None


def test_the_subject_is_asked_for_in_its_mode_only(service):
    """As in the tab Prompt; there a second negative prompt has no box either."""
    tab = tab_of(service)
    assert (tab.subject.visible, tab.negative.visible) == (False, True)
    _help, subject, negative = tab._show_mode("style")
    assert (subject["visible"], negative["visible"]) == (True, True)
    _help, subject, negative = tab._show_mode("negative")
    assert (subject["visible"], negative["visible"]) == (False, False)


def _text(choice: Any) -> str:
    """Return a choice, of which Gradio 4 and 6 make pairs."""
    return choice if isinstance(choice, str) else choice[0]


def test_boxes_that_were_emptied_ask_for_the_defaults(service):
    """Gradio 6 hands over None for them."""
    tab = tab_of(service)
    emptied = {
        name: None for name in tab.written if name not in ("form", "existing")
    }
    assert asked(service, tab, "x", **emptied) == asked(service, tab, "x")


@pytest.mark.parametrize(
    ("source", "folder", "changes", "sentence"),
    [
        (FOLDER, "", {}, "Name a folder of pictures."),
        (FOLDER, "{photos}/none", {}, "There is no folder and no file"),
        (FOLDER, "{photos}/empty", {}, "There are no pictures in"),
        (FOLDER, "{photos}", {"replacements": "only"}, "OLD=NEW"),
        (FOLDER, "{photos}", {"name": "same.txt"}, "must hold {stem} or {name}"),
        (FOLDER, "{photos}", {"beside": "other"}, "The form txt holds one prompt a picture"),
        (FOLDER, "{photos}", {"min_flavors": "x"}, "Minimum flavors must be a whole number"),
        (FOLDER, "{photos}/<b>", {}, "&lt;b&gt;"),
        (UPLOADED, "", {}, "Choose the pictures that are to be uploaded first."),
    ],
)
def test_what_is_refused_is_a_sentence(service, photos, source, folder, changes, sentence):
    """In the line of messages; nothing is started."""
    (photos / "empty").mkdir()
    tab = tab_of(service)
    message, _, mine, *_ = press_start(
        service, tab, source, folder.replace("{photos}", str(photos)), **changes
    )
    assert 'class="cliext-error" role="alert"' in message
    assert sentence in message
    assert mine == ""
    assert jobs_of(service).all() == ()


def test_something_unforeseen_is_a_sentence_and_a_log(service, photos, monkeypatch, caplog):
    """And the button can be pressed again."""

    def fail(*_):
        raise ZeroDivisionError("by nothing")

    tab = tab_of(service)
    monkeypatch.setattr(tab._jobs, "add", fail)
    message, *_ = press_start(service, tab, FOLDER, photos)
    assert "Something went wrong (ZeroDivisionError: by nothing); see the log." in message
    assert caplog.records[-1].exc_info is not None


@pytest.mark.parametrize("trusted", [True, False])
def test_something_unforeseen_tells_strangers_its_kind_only(
    service, tmp_path, monkeypatch, trusted
):
    """Others are told all, but for bytes that are no text, which no browser takes."""
    service.host.trusted = trusted

    def fail(*_):
        raise RuntimeError(os.fsdecode(b"/secret/caf\xe9"))

    tab = tab_of(service)
    monkeypatch.setattr(tab._jobs, "add", fail)
    files = [(one.name, one.path) for one in uploaded(tmp_path, ("a.png", 1))]
    message, *_ = press_start(service, tab, UPLOADED, files=files)
    assert "Something went wrong (RuntimeError" in message
    assert ("/secret/caf" in message) == trusted
    message.encode()


def test_a_folder_is_followed_to_its_end(service, photos):
    """Start names the batch, looks show how far it is, and the texts lie beside the pictures."""
    service.open.clear()
    tab = tab_of(service)
    message, _, mine, status, *_ = press_start(service, tab, FOLDER, photos)
    assert message == ""
    state = batch_of(service, mine)
    running(service, state)
    status, line, stop, empty, *_ = tab._look(mine, "")
    assert "Starting · 3 pictures" in status
    assert "Looking · 1 of 2" in status
    assert line == ""
    assert (stop["interactive"], empty["visible"]) == (True, False)
    service.open.set()
    ended(service, state)
    status, line, stop, _, downloads, _ = tab._look(mine, "")
    assert "3 of 3 done, 0 skipped." in status
    assert f"The prompts are in {photos}." in status
    assert (stop["interactive"], downloads["visible"]) == (False, False)
    assert (photos / "2.txt").read_text(encoding="utf-8") == "red 2"


def test_uploads_are_offered_once(service, tmp_path):
    """The files are copied to where Gradio may serve them, and not again at each look."""
    tab = tab_of(service)
    files = [(one.name, one.path) for one in uploaded(tmp_path, ("a.png", 1), ("b.png", 2))]
    _, _, mine, *_ = press_start(service, tab, UPLOADED, files=files)
    ended(service, batch_of(service, mine))
    status, *_, downloads, offered = tab._look(mine, "")
    assert "2 uploaded pictures" in status
    assert str(tmp_path) not in status
    (file,) = map(Path, downloads["value"])
    name = batch_of(service, mine).name
    assert (file.name, downloads["visible"], offered) == ("texts.zip", True, name)
    assert file.is_relative_to(tempfile.gettempdir())
    assert not {mine, name} & set(file.parts), "one is known, and a path gets into logs"
    *_, downloads, again = tab._look(mine, offered)
    assert "value" not in downloads
    assert again == components.skip()


def test_batches_wait_in_line_and_can_be_stopped(service, photos, tmp_path):
    """The line is shown while there is more than one; those that wait are stopped together."""
    service.open.clear()
    tab = tab_of(service)
    shutil.copytree(photos, tmp_path / "others")
    _, _, mine, *_ = press_start(service, tab, FOLDER, photos)
    running(service, batch_of(service, mine))
    _, _, mine, _, line, _, empty, *_ = press_start(
        service, tab, FOLDER, tmp_path / "others", mine=mine
    )
    first, second = mine.split()
    assert [line.count(word) for word in ("Running", "Waiting in line")] == [1, 1]
    assert str(tmp_path / "others") in line
    assert empty["visible"]
    _, line, stop, empty, *_ = tab._stop(("waiting",), mine, "")
    assert batch_of(service, second).state == "stopped"
    assert (stop["interactive"], empty["visible"]) == (True, False)
    assert "Stopped" in line
    tab._stop(("running",), mine, "")
    assert ended(service, batch_of(service, first)).state == "stopped"
    assert "goes on from here" in tab._look(mine, "")[0]


def test_a_page_loaded_anew_sees_what_goes_on(service, photos):
    """Also where the browser remembers nothing; what has ended is shown where it was started."""
    service.open.clear()
    tab = tab_of(service)
    _, _, mine, *_ = press_start(service, tab, FOLDER, photos)
    running(service, batch_of(service, mine))
    status, _, stop, *_ = tab._look("", "")
    assert str(photos) in status
    assert stop["interactive"]
    service.open.set()
    ended(service, batch_of(service, mine))
    assert "No batch goes on" in tab._look("", "")[0]
    assert "3 of 3 done" in tab._look(f"forgotten {mine}", "")[0]


def test_strangers_see_and_stop_their_own_only(service, photos, tmp_path):
    """Where others listen: that somebody's batch goes on is all that they are told."""
    service.open.clear()
    tab = tab_of(service)
    _, _, mine, *_ = press_start(service, tab, FOLDER, photos)
    running(service, batch_of(service, mine))
    service.host.trusted = False
    name = batch_of(service, mine).name  # which whoever asks for the status is told
    assert name in [one.task for one in service.status().runs]
    for known in ("", name):
        tab._stop(("running", "waiting"), known, "")
        status, line, stop, *_ = tab._look(known, "")
        assert "Somebody else&#x27;s batch goes on" in status
        assert "data-going-on" in status
        assert "Somebody else&#x27;s</td>" in line
        assert str(photos) not in status + line
        assert stop["interactive"] is False
    assert batch_of(service, mine).state == "running"
    files = [(one.name, one.path) for one in uploaded(tmp_path, ("a.png", 1))]
    _, _, theirs, status, line, *_ = press_start(service, tab, UPLOADED, files=files)
    assert "1 uploaded picture<" in status
    assert "Somebody else" in line
    assert str(photos) not in status + line
    assert batch_of(service, mine).state == "running"
    tab._stop(("waiting",), theirs, "")
    assert batch_of(service, theirs).state == "stopped"


def test_strangers_fetch_their_own_only(service, tmp_path):
    """A batch's name, which others are told, opens nothing; its token is in no words."""
    service.host.trusted = False
    tab = tab_of(service)
    files = [(one.name, one.path) for one in uploaded(tmp_path, ("a.png", 1))]
    _, _, mine, *_ = press_start(service, tab, UPLOADED, files=files)
    state = ended(service, batch_of(service, mine))
    status, *_, downloads, offered = tab._look(state.name, "")
    assert (downloads["value"], offered) == (None, "")
    assert "No batch goes on" in status
    assert tab._look(mine, "")[-1] == state.name
    assert mine not in f"{state!r} {batch_answer(state)} {tab._look(mine, '')[:2]}"


def test_closed_folders_are_neither_drawn_nor_read(service, photos):
    """A sentence says by which flags; uploading is left, and a forged request is refused."""
    service.host.paths_hidden = True
    with gr.Blocks(analytics_enabled=False) as blocks:
        draw(service, Surroundings())
    parts = blocks.get_config_file()["components"]
    by_id = {part["props"].get("elem_id"): part["props"] for part in parts}
    assert by_id["cliext-batch-source"]["visible"] is False
    assert by_id["cliext-batch-source"]["value"] == UPLOADED
    assert "--hide-ui-dir-config" in by_id["cliext-batch-closed"]["value"]
    tab = tab_of(service)
    for group, visible in ((tab.of_folder, False), (tab.of_upload, True), (tab.places, False)):
        assert group.visible is visible
    message, *_ = press_start(service, tab, FOLDER, photos)
    assert "Folders of this machine are closed here" in message
    assert jobs_of(service).all() == ()


def test_source_chooses_the_boxes(service):
    """Places of output are for folders only."""
    tab = tab_of(service)
    for source, shown in ((FOLDER, [True, False, True]), (UPLOADED, [False, True, False])):
        assert [one["visible"] for one in tab._choose_source(source)] == shown


def test_the_models_in_use_are_named(service):
    """Those of the tab Prompt, which nothing else on the tab tells."""
    tab = tab_of(service)
    assert "Asks a/b + c/d and the captioner none," in tab.name_models("a/b + c/d", "")
    assert "&lt;b&gt;" in tab.name_models("<b>", "x")


def test_without_streams_start_shows_its_last_step(service, photos):
    """Where Gradio has no queue; looks need none anyway."""
    tab = tab_of(service, streams=False)
    given = boxes(service, tab, FOLDER)
    start = components._plain(tab._start, streams=False)
    asked = gr.Request(headers={})
    message, button, mine, *_ = start(asked, "", "", FOLDER, str(photos), False, (), *given)
    assert (message, button["interactive"]) == ("", True)
    assert ended(service, batch_of(service, mine)).state == "done"


def test_ids_on_the_page_are_unique(service):
    """Each element has one of its own."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        draw(service, Surroundings())
    names = [part["props"].get("elem_id") for part in blocks.get_config_file()["components"]]
    counted = Counter(name for name in names if name)
    assert [name for name, number in counted.items() if number > 1] == []
    assert counted["cliext-batch-start"] == 1
