"""What the service tells of its runs, how they are stopped, and what it keeps."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.errors import (
    BadOption,
    InterrogatorError,
    Interrupted,
    NotAllowed,
    OutOfMemory,
    UnknownModel,
)

pytestmark = pytest.mark.hosts

FAST = InterrogateOptions(mode="style", min_flavors=2, max_flavors=4)


class Recorder(StandaloneHost):
    """A host that holds a run at its first step until it may go on, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.left: list[object] = []

    def progress(self, label: str, done: int, total: int) -> None:
        self.reached.set()
        self.go_on.wait(120)

    def off_device(self, network: object) -> None:
        self.left.append(network)


@pytest.fixture
def host() -> Recorder:
    return Recorder()


@pytest.fixture
def lists_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("artists", "mediums", "movements", "sites", "negative"):
        (folder / f"{name}.txt").write_text(f"one of the {name}\nanother of the {name}")
    (folder / "flavors.txt").write_text("\n".join(f"flavor {number}" for number in range(20)))
    return folder


@pytest.fixture
def service(host, lists_dir, tmp_path) -> Service:
    return Service(host, cache_dir=tmp_path / "cache", lists_dir=lists_dir)


@pytest.fixture
def models(backbone_folder) -> ModelOptions:
    return ModelOptions(backbones=(str(backbone_folder),), captioner="none")


def in_thread(work) -> tuple[threading.Thread, list]:
    """Run work beside the test; what it returns or raises is put into the list."""
    outcome: list = []

    def run() -> None:
        try:
            outcome.append(work())
        except InterrogatorError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_status_tells_of_the_run_and_of_what_is_loaded(service, host, models, picture):
    """While it runs, with its step; afterwards the networks stay, with their size."""
    assert service.status().runs == ()
    assert service.status().loaded == ()
    host.go_on.clear()
    thread, outcome = in_thread(lambda: service.interrogate(picture, FAST, models, "my run"))
    assert host.reached.wait(120)
    (run,) = service.status().runs
    assert (run.task, run.kind, run.running, run.stopping) == ("my run", "interrogate", True, False)
    assert run.label
    assert 0 <= run.done <= run.total
    assert run.seconds > 0
    host.go_on.set()
    thread.join()
    assert outcome[0].text
    status = service.status()
    assert status.runs == ()
    (loaded,) = status.loaded
    assert (loaded.name, loaded.kind, loaded.device) == (models.backbones[0], "backbone", "cpu")
    assert status.size_bytes == loaded.size_bytes > 100_000
    assert status.as_dict()["size_bytes"] == status.size_bytes
    service.unload()
    assert service.status().loaded == ()


def test_time_left_is_told_from_the_pace_of_the_step(service, host, models, picture, monkeypatch):
    """Half of a step done in two seconds leaves two seconds."""
    seen = []

    def note(label: str, done: int, total: int) -> None:
        if done:
            seen.append(service.status().runs[0])

    monkeypatch.setattr(host, "progress", note)
    service.interrogate(picture, FAST, models)
    finished = [run for run in seen if run.done == run.total]
    assert finished
    assert all(run.seconds_left == 0 for run in finished)
    assert all(run.seconds_left is not None for run in seen)


def test_interrupt_stops_the_run_of_that_name_only(service, host, models, picture):
    """A run that waits in line ends without having begun; the other goes on to its end."""
    host.go_on.clear()
    first, outcome_of_first = in_thread(lambda: service.interrogate(picture, FAST, models, "a"))
    assert host.reached.wait(120)
    second, outcome_of_second = in_thread(lambda: service.interrogate(picture, FAST, models, "b"))
    deadline = time.monotonic() + 120
    while len(service.status().runs) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [run.running for run in service.status().runs] == [True, False]
    assert service.interrupt("b")
    assert [run.stopping for run in service.status().runs] == [False, True]
    host.go_on.set()
    first.join()
    second.join()
    assert not outcome_of_first[0].interrupted
    assert isinstance(outcome_of_second[0], Interrupted)


def test_interrupt_with_nothing_running_is_no_trap_for_the_next_run(service, models, picture):
    """It says that there was nothing, and the next run ends as it should."""
    assert not service.interrupt()
    assert not service.interrogate(picture, FAST, models).interrupted


def test_a_stopped_run_keeps_what_was_found(service, host, models, picture, monkeypatch):
    """Stopped in the middle of the search, the phrases so far come back."""
    def stop_after_two(label: str, done: int, total: int) -> None:
        if label == "Searching" and done == 2:
            service.interrupt()

    monkeypatch.setattr(host, "progress", stop_after_two)
    prompt = service.interrogate(picture, FAST, models)
    assert prompt.interrupted
    assert prompt.text


@pytest.mark.parametrize(
    ("after_run", "loaded", "left"), [("keep", 1, 0), ("offload", 1, 1), ("unload", 0, 1)]
)
def test_after_a_run_networks_are_kept_moved_or_let_go(
    service, host, models, picture, after_run, loaded, left
):
    """As the setting says, and the host is told of every network that leaves the device."""
    host.after_run = after_run
    service.interrogate(picture, FAST, models)
    assert len(service.status().loaded) == loaded
    assert len(host.left) == left
    again = service.interrogate(picture, FAST, models)
    assert again.text


def test_the_setting_after_a_run_holds_after_a_failure_too(service, host, models, picture):
    """A bad option found late lets go of the networks as a good end does."""
    host.after_run = "unload"
    with pytest.raises(Exception, match="no category"):
        service.interrogate(picture, InterrogateOptions(mode="fast", categories=("x",)), models)
    assert service.status().loaded == ()


def test_strangers_may_not_name_paths_or_change_files(
    service, host, models, picture, backbone_folder
):
    """What lies in a models folder may be named; anything else is refused before it is touched."""
    host.trusted = False
    with pytest.raises(NotAllowed, match="outside the models folders"):
        service.interrogate(picture, FAST, models)
    with pytest.raises(NotAllowed, match="outside"):
        service.similarity(picture, ["x"], ModelOptions(("ViT-B-32=/etc/passwd",), "none"))
    with pytest.raises(NotAllowed, match="ViT-B-32/openai is not on this machine, and downloading"):
        service.interrogate(picture, FAST, ModelOptions(("ViT-B-32/openai",), "none"))
    with pytest.raises(UnknownModel):
        service.interrogate(picture, FAST, ModelOptions(("ViT-B-32/opneai",), "none"))
    with pytest.raises(NotAllowed, match="Downloading models is switched off"):
        service.download("ViT-B-32/openai")
    with pytest.raises(NotAllowed, match="Deleting models is switched off"):
        service.delete("ViT-B-32/openai")
    host.chosen_models = frozenset({str(backbone_folder)})
    assert service.interrogate(picture, FAST, models).text
    host.chosen_models = frozenset()
    host.models_dirs = (backbone_folder.parent,)
    assert service.interrogate(picture, FAST, models).text


def test_folders_can_change_between_two_runs(service, models, picture, tmp_path):
    """Other word lists are read at the next question."""
    service.interrogate(picture, FAST, models)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("artists", "mediums", "movements", "sites", "flavors"):
        (other / f"{name}.txt").write_text(f"new {name}")
    service.use_folders(tmp_path / "cache", other)
    prompt = service.interrogate(picture, FAST, models)
    assert prompt.parts
    assert all(part.phrase.startswith("new ") for part in prompt.parts)


def test_tokens_are_counted_by_the_generator_or_by_clip(service, host, monkeypatch):
    """Out of 75 where no generator is loaded."""
    assert service.count_tokens("a red cat, on a beach") == (7, 75)
    monkeypatch.setattr(host, "count_tokens", lambda text: (len(text), 150))
    assert service.count_tokens("abc") == (3, 150)


def test_another_device_is_used_at_the_next_run(service, host, models, picture, monkeypatch):
    """The networks are loaded anew for it."""
    service.interrogate(picture, FAST, models)
    before = service._interrogator
    service.interrogate(picture, FAST, models)
    assert service._interrogator is before
    monkeypatch.setattr(host, "device", None)
    service.interrogate(picture, FAST, models)
    assert service._interrogator is not before


def test_networks_that_never_reached_the_device_are_let_go_too(
    service, host, models, picture, monkeypatch
):
    """Memory runs out while the host makes room: it is asked for all it has, then told."""
    asked_for_room = []

    def no_room(network: object, size_bytes: int) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(host, "on_device", no_room)
    monkeypatch.setattr(host, "make_room", lambda: asked_for_room.append(True), raising=False)
    with pytest.raises(OutOfMemory):
        service.interrogate(picture, FAST, models)
    assert asked_for_room == [True]
    assert len({id(network) for network in host.left}) == 2  # the first's and the retry's
    assert service.status().loaded == ()


class Turns(StandaloneHost):
    """A host that notes when the device changes hands."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.hands: list[str] = []

    @contextlib.contextmanager
    def exclusive(self, task: str) -> Iterator[None]:
        with super().exclusive(task):
            self.hands.append(task)
            yield


def test_a_series_holds_the_device_until_others_want_it(lists_dir, tmp_path, models, picture):
    """Its networks go only then; whoever waits has it before the next run, in their order."""
    host = Turns()
    host.after_run = "unload"
    service = Service(host, cache_dir=tmp_path, lists_dir=lists_dir)
    order: list[str] = []

    def wait_for_device(name: str) -> None:
        with host.exclusive(name):
            assert not service.status().loaded
            order.append(name)

    with service.series("batch") as series:
        for _ in range(3):
            service.interrogate(picture, FAST, models, "batch")
        assert host.hands == ["batch"]
        assert service.status().loaded
        series.give_way()  # nobody waits
        assert service.status().loaded
        others = [threading.Thread(target=wait_for_device, args=(name,)) for name in "ab"]
        for number, other in enumerate(others, 1):
            other.start()
            while len(host._line) <= number:
                time.sleep(0.01)
        with pytest.raises(UnknownModel):
            service.interrogate(picture, FAST, ModelOptions(backbones=("none/such",)), "batch")
        for other in others:
            other.join(120)
        service.interrogate(picture, FAST, models, "batch")
    assert order == ["a", "b"]
    assert host.hands == ["batch", "a", "b", "batch"]
    assert not service.status().loaded
    service.interrogate(picture, FAST, models, "alone")
    assert host.hands[-1] == "alone"
    assert not host.others_wait()


def test_what_can_be_told_of_a_question_is_told_before_networks_are_loaded(service, models):
    """A name that nobody knows, a category that is not there, a caption that nobody writes."""
    with pytest.raises(UnknownModel):
        service.check(FAST, ModelOptions(backbones=("none/such",)))
    with pytest.raises(BadOption, match=r"no category 'flavor'.*Did you mean"):
        service.check(InterrogateOptions(categories=("flavor",)), models)
    with pytest.raises(BadOption, match="needs a caption"):
        service.check(InterrogateOptions(mode="fast"), models)
    service.check(FAST, models)
    assert not service.status().loaded
