"""Memory runs out at every step, by a limit set on the process; what follows is as ever.

Run as a program, this file is the process that is limited.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTO = sorted((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())[0]
MEBIBYTE = 2**20
STEPS = ("Loading", "caption", "Looking", "flavors words", "Searching")
ENOUGH = 1024
"""How many mebibytes more are enough for any step."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the limit is set, and told, as Linux does"
)


@pytest.fixture(scope="module")
def told(tmp_path_factory, pytestconfig) -> list[dict]:
    """What came of each step with so little more memory."""
    margins = [*range(0, 64, 2), *range(64, 256, 16), ENOUGH]
    if not pytestconfig.getoption("--thorough"):
        margins = [0, 20, ENOUGH]
    folder = tmp_path_factory.mktemp("memory")
    done = subprocess.run(
        [sys.executable, __file__, str(folder), json.dumps(margins)], cwd=ROOT, text=True,
        capture_output=True, check=False,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            # What is freed goes back at once, so that each step has to ask for its memory.
            "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        },
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("step", STEPS)
def test_too_little_memory_is_told_and_forgotten(told, step):
    """Either the answer comes, or one sentence; all is let go of, and the next run is right."""
    tries = [one for one in told if one["step"] == step]
    assert tries[0]["outcome"] == "OutOfMemory"
    assert tries[-1]["outcome"] == "right"
    for one in tries:
        assert one["outcome"] in ("right", "OutOfMemory"), one
        if one["outcome"] == "OutOfMemory":
            assert one["loaded"] == 0
            # A library may keep a little of its own, whatever we let go of.
            assert one["resident"] < one["resident_before"] + 16 * MEBIBYTE
        assert one["next"] == "right"


def test_each_is_tried_once_more_in_smaller_chunks(told):
    """With all the room that the host can make."""
    for one in told:
        if one["outcome"] == "OutOfMemory" and one["step"] != "Loading":
            assert one["rooms_made"] == 1, one


def limited(folder: Path, margins: list[int]) -> None:
    """Ask again and again, with a limit from a step on, and print what comes of it."""
    import resource

    from PIL import Image

    from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
    from clip_interrogator_ext.errors import InterrogatorError

    def pages() -> tuple[int, int]:
        """Return the bytes of all pages, and of those that hold no file and are there."""
        whole, resident, of_files = Path("/proc/self/statm").read_text().split()[:3]
        size = resource.getpagesize()
        return int(whole) * size, (int(resident) - int(of_files)) * size

    def limit(more: int | None) -> None:
        soft = -1 if more is None else pages()[0] + more * MEBIBYTE
        resource.setrlimit(resource.RLIMIT_AS, (soft, -1))

    class Host(StandaloneHost):
        step: str | None = None
        margin = 0
        rooms_made = 0

        def progress(self, label: str, done: int, total: int) -> None:
            if label == self.step:
                self.step = None
                limit(self.margin)

        def make_room(self) -> None:
            self.rooms_made += 1

    lists = folder / "lists"
    lists.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "sites"):
        words = [f"{name} number {number}" for number in range(600 if name == "flavors" else 2)]
        (lists / f"{name}.txt").write_text("\n".join(words))
    host = Host("cpu")
    service = Service(host, lists_dir=lists)
    models = ModelOptions(("demo",), "demo", chunk_size=16)
    options = InterrogateOptions(mode="best", min_flavors=2, max_flavors=3)
    image = Image.open(PHOTO)

    def ask() -> str:
        try:
            text = service.interrogate(image, options, models).text
        except InterrogatorError as error:
            return type(error).__name__
        return "right" if text == right else f"wrong: {text}"

    right = service.interrogate(image, options, models).text
    for number, (step, margin) in enumerate((s, m) for s in STEPS for m in margins):
        service.unload()
        service.use_folders(folder / f"cache-{number}", lists)
        if step != "Loading":
            service.similarity(image, ["x"], models)  # so that it is not loading that fails
        host.margin, host.rooms_made, host.step = margin, 0, step
        before = pages()[1]
        host.progress("Loading", 0, 0)
        outcome = ask()
        limit(None)
        after, loaded = pages()[1], len(service.status().loaded)
        told = json.dumps({
            "step": step, "margin": margin, "outcome": outcome, "loaded": loaded,
            "resident_before": before, "resident": after, "rooms_made": host.rooms_made,
            "next": ask(),
        })
        sys.stdout.write(f"{told}\n")


if __name__ == "__main__":
    limited(Path(sys.argv[1]), json.loads(sys.argv[2]))
