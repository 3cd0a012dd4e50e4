"""A run is stopped at random moments, while it loads and captions too, and leaves no trace."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost, catalog
from clip_interrogator_ext.errors import Interrupted, QueueFull
from clip_interrogator_ext.runs import MOST_RUNS

if TYPE_CHECKING:
    from clip_interrogator_ext.results import Prompt

ROOT = Path(__file__).parents[1]
DEMO = ModelOptions(("demo",), "demo")
PATIENCE = 120.0


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        (folder / f"{name}.txt").write_text("\n".join(f"{name} {word}" for word in range(30)))
    return folder


@pytest.fixture(scope="module")
def photo() -> Path:
    return next(iter(sorted((ROOT / "clip_interrogator_ext/models/demo/pictures").iterdir())))


def wait_for_the_end(service: Service) -> None:
    """Wait until nothing is under way, which may be loaded to its end first."""
    end = time.monotonic() + PATIENCE
    while service.status().runs:
        assert time.monotonic() < end
        time.sleep(0.005)


def words_of(answer: Prompt) -> tuple[str, str | None]:
    return answer.text, answer.negative and answer.negative.text


def stop(service: Service, stopped: list[float]) -> None:
    """Stop the run, and note when there was one."""
    if service.interrupt("mine"):
        stopped.append(time.monotonic())


@pytest.mark.parametrize("mode", catalog.MODES)
def test_a_stop_at_any_moment_is_answered_within_a_second(
    mode, lists_dir, photo, tmp_path, pytestconfig
):
    """Models are loaded and lists are encoded in each run; the next one answers as ever."""
    host = StandaloneHost("cpu")
    host.after_run = "unload"
    service = Service(host, cache_dir=tmp_path / "first", lists_dir=lists_dir)
    options = InterrogateOptions(mode=mode, negative=True, max_flavors=6, min_flavors=3)
    service.interrogate(photo, options, DEMO)  # imports what it needs
    service.use_folders(tmp_path / "second", lists_dir)
    began = time.monotonic()
    right = service.interrogate(photo, options, DEMO)
    lasts = time.monotonic() - began
    moments = random.Random(mode)
    answered_in = []
    for number in range(200 if pytestconfig.getoption("--thorough") else 3):
        service.use_folders(tmp_path / f"{number}", lists_dir)
        stopped: list[float] = []
        timer = threading.Timer(moments.uniform(0, lasts), stop, [service, stopped])
        timer.start()
        try:
            answer = service.interrogate(photo, options, DEMO, "mine")
        except Interrupted:
            pass
        else:
            assert answer.interrupted or words_of(answer) == words_of(right)
        answered_in.append(time.monotonic() - min(stopped, default=time.monotonic()))
        timer.cancel()
        timer.join()
        wait_for_the_end(service)
        assert service.status().loaded == ()
        assert not host.others_wait()
        again = service.interrogate(photo, options, DEMO)
        assert words_of(again) == words_of(right)
    # Alone on a machine; beside other tests what is computed, and so waited for, takes longer.
    assert max(answered_in) < (1 if pytestconfig.getoption("--thorough") else PATIENCE)


class HeldHost(StandaloneHost):
    """A host with which a step takes until it may go on."""

    def __init__(self, step: str) -> None:
        super().__init__("cpu", show=self._hold)
        self._step = step
        self.at_work, self.go_on = threading.Event(), threading.Event()

    def _hold(self, label: str, _done: int = 0, _total: int = 0) -> None:
        if self._step in label:
            self.at_work.set()
            self.go_on.wait()

    @contextmanager
    def on_device(self, network: object, size_bytes: int) -> Iterator[None]:
        self._hold("moving")
        with super().on_device(network, size_bytes):
            yield


@pytest.mark.parametrize("step", ["moving", "caption", "Looking", "words", "Searching"])
def test_a_step_that_takes_long_is_not_waited_for(step, lists_dir, photo, tmp_path):
    """Whoever asked is told while it is still at work, which then ends unheard."""
    host = HeldHost(step)
    service = Service(host, cache_dir=tmp_path, lists_dir=lists_dir)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(service.interrogate, photo, None, DEMO, "mine")
        try:
            assert host.at_work.wait(PATIENCE)
            assert service.interrupt("mine")
            with pytest.raises(Interrupted):
                asked.result(PATIENCE)
            assert [run.stopping for run in service.status().runs] == [True]
        finally:
            host.go_on.set()
    wait_for_the_end(service)
    assert service.interrogate(photo, None, DEMO).text


def test_a_stop_does_not_wait_for_packages_to_be_imported(photo, tmp_path):
    """The first question of a process imports torch and transformers, which takes seconds.

    Here it takes until whoever asked has been told.
    """
    program = f"""
import json, sys, threading, time
from clip_interrogator_ext import Service, StandaloneHost, ModelOptions
from clip_interrogator_ext.errors import Interrupted
from PIL import Image
image = Image.open({str(photo)!r})
service = Service(StandaloneHost("cpu"), cache_dir={str(tmp_path)!r})
assert "torch" not in sys.modules
importing, go_on = threading.Event(), threading.Event()
class Slow:
    def find_spec(self, name, *_):
        if name == "torch":
            importing.set()
            go_on.wait()
sys.meta_path.insert(0, Slow())
def stop():
    importing.wait()
    service.interrupt("mine")
threading.Thread(target=stop).start()
try:
    service.interrogate(image, None, ModelOptions(("demo",), "demo"), "mine")
    outcome = "answered"
except Interrupted:
    outcome = "stopped"
under_way = len(service.status().runs)
go_on.set()
while service.status().runs:
    time.sleep(0.05)
text = service.interrogate(image, None, ModelOptions(("demo",), "demo")).text
print(json.dumps([outcome, under_way, text]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=10 * PATIENCE,
    )
    outcome, under_way, text = json.loads(done.stdout)
    assert (outcome, under_way) == ("stopped", 1)
    assert text


def test_runs_that_were_stopped_while_they_waited_do_not_pile_up(photo, tmp_path):
    """Each has a thread until the device is free; there are not any number of them."""
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path)
    outcomes = []

    def ask() -> None:
        try:
            service.interrogate(photo, None, DEMO, "mine")
        except (Interrupted, QueueFull) as error:
            outcomes.append(type(error))

    with service.host.exclusive("a generation"):
        threads = [threading.Thread(target=ask) for _ in range(MOST_RUNS + 6)]
        for thread in threads:
            thread.start()
        while len(outcomes) < 6:
            time.sleep(0.01)
        service.interrupt("mine")
        for thread in threads:
            thread.join(PATIENCE)
        assert outcomes.count(Interrupted) == MOST_RUNS
        assert outcomes.count(QueueFull) == 6
        with pytest.raises(QueueFull, match="ask again later"):
            service.interrogate(photo, None, DEMO)
    wait_for_the_end(service)
    assert service.interrogate(photo, InterrogateOptions(mode="caption"), DEMO).text
