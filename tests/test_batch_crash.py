"""A batch is killed with signal 9 at many moments; it ends as if it had never been stopped.

Run as a program, this file is the one that starts and kills: it imports what is slow once and
forks for each start of the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures"
PICTURES = 30

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not hasattr(os, "waitid"), reason="processes are others' here"
)

# Where a start is killed: at which call of which function, before it, after it, or halfway.
MOMENTS = [
    (function, when)
    for function in ("fsync", "replace", "write") for when in ("before", "after")
] + [("write", "halfway"), ("file.write", "halfway")]


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        (folder / f"{name}.txt").write_text("\n".join(f"{name} {word}" for word in "abc"))
    return folder


# The command line, where a picture takes so long that a signal comes before the last.
SLOW = """
import sys, time
from clip_interrogator_ext.faces import cli
from clip_interrogator_ext.service import Service
interrogate = Service.interrogate
def slow(*given, **named):
    time.sleep(0.2)
    return interrogate(*given, **named)
Service.interrogate = slow
sys.exit(cli.main())
"""

CASES = {
    "append": ["--existing", "append", "--trigger", "sks"],
    "replace": ["--existing", "replace"],
    "output": ["--output", "OUT", "--negative"],
    "jsonl": ["--form", "jsonl"],
    "two passes": [
        "--output", "OUT", "--low-memory", "--captioner", "demo", "--mode", "fast",
    ],
}


@pytest.fixture(scope="module")
def ended(backbone_folder, lists_dir, tmp_path_factory) -> dict[str, Path]:
    """For each case a folder with a run never stopped, and one that was killed again and again."""
    folders, plans = {}, []
    for case, options in CASES.items():
        folder = folders[case] = tmp_path_factory.mktemp(case.replace(" ", "-"))
        unbroken, broken = folder / "unbroken" / "photos", folder / "broken" / "photos"
        fill(unbroken)
        shutil.copytree(unbroken, broken, copy_function=shutil.copy2)
        engine = [
            *(["--captioner", "none", "--mode", "style"] if case != "two passes" else []),
            "--clip", str(backbone_folder), "--lists-dir", str(lists_dir),
            "--cache-dir", str(lists_dir / "cache"), "--device", "cpu", "--quiet",
        ]
        for photos, moments in ((unbroken, []), (broken, kills(case))):
            given = [str(photos.parent / "out") if one == "OUT" else one for one in options]
            arguments = ["batch", str(photos), "--recursive", *given, *engine]
            log = str(photos.parent) + ".log"
            plans.append({"arguments": arguments, "log": log, "kills": moments})
    plan = lists_dir / "plan.json"
    plan.write_text(json.dumps(plans))
    program = subprocess.run(
        [sys.executable, __file__, str(plan)], cwd=ROOT, text=True, timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, check=False,
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return folders


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_it_ends_as_if_never_stopped(ended, case):
    """Byte for byte; nothing was asked twice but the picture, or the group, in flight."""
    folder = ended[case]
    assert (folder / "broken.log").read_text().count("killed") >= 12
    assert files(folder / "broken") == files(folder / "unbroken")
    nothing_was_asked_twice(folder / "broken.log")
    (journal,) = folder.glob("broken/*/.clip-interrogator-ext.journal")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    answers = [line["key"] for line in lines if line["kind"] == "answer"]
    assert len(answers) == len(set(answers)) == PICTURES - 2


def test_ctrl_c_ends_after_the_picture_in_hand(backbone_folder, lists_dir, tmp_path):
    """With code 130 and a line that says so; the same command goes on from there."""
    from PIL import Image

    for number in range(80):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    command = [
        sys.executable, "-c", SLOW, "batch", str(tmp_path), "--mode", "style",
        "--clip", str(backbone_folder), "--lists-dir", str(lists_dir), "--device", "cpu",
        "--cache-dir", str(lists_dir / "cache"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )
    assert process.stderr is not None
    shown = ""
    while "Prompts" not in shown:
        sign = process.stderr.read(1)
        assert sign, shown
        shown += sign
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=300)
    assert process.returncode == 130, rest
    assert "Stopping after this picture" in rest
    assert "Stopped: the same command goes on" in out
    done = int(out.split()[0])
    assert 0 < done < 80
    assert len(list(tmp_path.glob("*.txt"))) == done
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment,
                            check=True)
    assert answer.stdout == f"80 of 80 done ({done} of them earlier), 0 skipped.\n"


def fill(photos: Path) -> None:
    """Make a nested folder of small pictures, some with texts: one bad, and two alike."""
    from PIL import Image

    samples = sorted(DEMO.iterdir())
    for number in range(PICTURES - 2):
        with Image.open(samples[number % len(samples)]) as image:
            path = photos / ("sub" if number % 3 else "") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.resize((24 + number, 24)).save(path)
    shutil.copy2(photos / "3.png", photos / "sub" / "3.jpg")
    (photos / "sub" / "bad.png").write_bytes(b"bad")
    for name in ("0.txt", "sub/1.txt", "sub/2.txt", "6.txt", "sub/8.txt"):
        (photos / name).write_text(f"what stood in {name}\n")


def kills(case: str) -> list[Any]:
    """Return where one start after the other is killed: every kind of moment, then any time."""
    dice = random.Random(case)
    moments: list[Any] = [[*moment, dice.randint(1, 3)] for moment in MOMENTS for _ in range(2)]
    moments += [["any time", dice.uniform(0, 0.05), dice.randint(0, 2)] for _ in range(6)]
    dice.shuffle(moments)
    if case == "jsonl":  # whose file is written at the end only
        moments.sort(key=lambda moment: ("replace", "file.write").count(moment[0]))
    return moments


def files(folder: Path) -> dict[str, bytes]:
    """Return every file but the journal; what a picture took is not the same twice."""
    return {
        path.relative_to(folder).as_posix():
            re.sub(rb'"seconds": [\d.e-]+', b'"seconds": 0', path.read_bytes())
            .replace(os.fsencode(folder), b"")
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".clip-interrogator-ext.journal"
    }


def nothing_was_asked_twice(log: Path) -> None:
    """Read what each start asked: what was asked again was the last question of a killed one."""
    starts = [start.split() for start in log.read_text().replace("killed\n", "").split("start\n")]
    for number, asked in enumerate(starts):
        assert len(asked) == len(set(asked))
        for question in asked[:-1]:
            assert not any(question in later for later in starts[number + 1 :]), question


# The program that starts and kills


def main(plans: list[dict[str, Any]]) -> int:
    """Start each command until it ends by itself, killing it as planned."""
    import_everything()
    for plan in plans:
        kills = list(plan["kills"])
        while True:
            kill = kills.pop(0) if kills else ["never"]
            child = os.fork()
            if child == 0:
                start(plan["arguments"], Path(plan["log"]), *kill)
            if kill[0] == "any time":
                wait_for_questions(child, Path(plan["log"]), kill[2])
                time.sleep(kill[1])
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                break
            with Path(plan["log"]).open("a") as log:
                log.write("killed\n")
        if os.WEXITSTATUS(status) != 1:  # one picture can't be read
            return 1
    return 0


def wait_for_questions(child: int, log: Path, count: int) -> None:
    """Return when a start has asked so many, or has ended."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, child, ended) is None:
        if log.exists() and log.read_text().rpartition("killed\n")[2].count("\n") > count:
            return  # its first line says that it has begun
        time.sleep(0.002)


def import_everything() -> None:
    from clip_interrogator_ext.models.torchvision_operators import import_torchvision

    import_torchvision()
    import open_clip  # noqa: F401 - so that no start has to
    import transformers  # noqa: F401

    from clip_interrogator_ext import interrogator  # noqa: F401
    from clip_interrogator_ext.batch import folder  # noqa: F401


def start(arguments: list[str], log: Path, moment: str, *when: Any) -> None:
    """Run the command in this process, which ends here, or is killed on the way."""
    from clip_interrogator_ext.batch import folder
    from clip_interrogator_ext.faces import cli
    from clip_interrogator_ext.service import Service

    folder._TOGETHER = 4  # so that there are several groups
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    unkilled_write = os.write
    unkilled_write(descriptor, b"start\n")
    asked: list[str] = []

    def noted(name: str, content: Callable[[Any], bytes]) -> None:
        real = getattr(Service, name)

        def noting(self: Service, what: Any, *others: Any) -> Any:
            question = f"{name}-{hashlib.sha256(content(what)).hexdigest()}\n"
            unkilled_write(descriptor, question.encode())
            asked.append(question)
            if moment == "any time" and len(asked) > when[1] + 1:
                time.sleep(600)  # whoever kills may be late, and is not to find it done
            return real(self, what, *others)

        setattr(Service, name, noting)

    noted("captions", lambda group: b"".join(one.caption.numpy().tobytes() for one in group))
    noted("vectors", lambda group: b"".join(one.vectors[0].numpy().tobytes() for one in group))
    noted("interrogate", lambda look: repr(look).encode())
    if moment not in ("never", "any time"):
        arm(moment, *when)
    os._exit(cli.main(arguments))


def arm(function: str, when: str, count: int) -> None:
    """Have this process killed at a call of a function that writes."""
    if function == "file.write":
        arm_file_write(count)
        return
    real, calls = getattr(os, function), []

    def killing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) < count:
            return real(*arguments)
        if when == "after":
            real(*arguments)
        elif when == "halfway":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        return os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, function, killing)


def arm_file_write(count: int) -> None:
    """Have this process killed when half of a text is in its neighbouring file."""
    from clip_interrogator_ext.files import WholeFiles

    real, calls = WholeFiles.write, []

    def killing(self: WholeFiles, path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) < count:
            real(self, path, content)
            return

        def fill(file: Any) -> None:
            file.write(content[: len(content) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        self.stage(path, fill)

    WholeFiles.write = killing  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
