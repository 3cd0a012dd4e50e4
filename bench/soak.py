"""Keep the page's server busy as many clients at once would, and tell what became of it.

Round after round: a batch is started, fifty requests come at once, runs are stopped in their midst,
nonsense is sent, and now and then all networks are let go of; meanwhile somebody asks again and
again how things are. Each answer is compared with what the same question brought when nobody else
asked. The exit code is 1 where one was wrong, or none came.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import MEBIBYTE, ROOT, versions

SAMPLES = sorted((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())
MODES = ("fast", "classic", "caption", "negative", "style")
AT_ONCE = 50
ENDED = ("done", "stopped", "failed")
NONSENSE: tuple[dict[str, Any] | bytes, ...] = (
    b"", b"{", b"[]", b"\xff\xfe", {}, {"image": 5}, {"image": "x"}, {"image": "aGVsbG8="},
    {"image": base64.b64encode(SAMPLES[0].read_bytes()[:500]).decode()},
    {"image": "http://127.0.0.1/x.png"}, {"image": "x", "mode": "worst"},
    {"image": "x", "clip_model_name": "../../etc/passwd"}, {"image": "x", "token_budget": 10**30},
)


@dataclass
class Tally:
    """What has happened so far."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    batches: int = 0
    rounds: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)
    """After each round how many requests there have been, and how many bytes are resident."""

    def fault(self, sentence: str) -> None:
        """Note something that must not be."""
        print(f"WRONG: {sentence}", file=sys.stderr)
        self.wrong.append(sentence)

    @property
    def requests(self) -> int:
        """How many requests were answered, pings not counted."""
        return sum(self.statuses.values())


class Client:
    """Asks the server's routes."""

    def __init__(self, address: str, tally: Tally) -> None:
        self.address = address
        self._tally = tally
        self._lock = threading.Lock()

    def ask(self, route: str, body: dict[str, Any] | bytes | None = None) -> tuple[int, Any]:
        """Return the status and the answer; a body makes it a POST."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(
            f"{self.address}/interrogator/{route}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        except OSError as error:
            self._tally.fault(f"{route} was not answered: {error!r}")
            return 0, None
        with self._lock:
            self._tally.statuses[status] += 1
        return status, json.loads(content)


class Soak:
    """Rounds of work for one server."""

    def __init__(self, client: Client, tally: Tally, process: int, folder: Path) -> None:
        self._client = client
        self._tally = tally
        self._process = process
        self._folder = folder
        self._random = random.Random(1)  # noqa: S311 - the same rounds each time
        self._images = [base64.b64encode(path.read_bytes()).decode() for path in SAMPLES]
        self._right: dict[tuple[str, int], str] = {}
        self._texts: dict[str, bytes] = {}

    def run(self, seconds: float) -> None:
        """Learn the right answers, then go on for so long."""
        for mode in MODES:
            for number in range(len(SAMPLES)):
                _, answer = self._client.ask("prompt", self._question(mode, number))
                self._right[mode, number] = answer["prompt"]
        self._batch("first")
        with ping(self._client.address, self._tally.pings):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._round()
        status = self._client.ask("status")[1]
        if status["runs"] or status["waiting"]:
            self._tally.fault(f"Something goes on after the end: {status}")

    def _question(self, mode: str, number: int, **more: Any) -> dict[str, Any]:
        models = {"clip_model_name": "demo", "captioner": "demo"}
        return {"image": self._images[number], "mode": mode, **models, **more}

    def _round(self) -> None:
        batch = threading.Thread(target=self._batch, args=(f"{self._tally.rounds}",))
        batch.start()
        self._storm()
        for body in NONSENSE:
            status, answer = self._client.ask("prompt", body)
            if not 400 <= status < 500 or set(answer) != {"error", "detail", "field", "nearest"}:
                self._tally.fault(f"{body!r:.80} was answered with {status} {answer!r:.200}")
        for _ in range(4):
            self._stop()
        if self._tally.rounds % 5 == 4:
            self._client.ask("unload", {})
        batch.join()
        self._tally.rounds += 1
        self._tally.memory.append((self._tally.requests, resident(self._process)))

    def _storm(self) -> None:
        """Ask fifty questions at once; those for whom there is no room are told so."""
        def one(number: int) -> int:
            mode, picture = MODES[number % len(MODES)], number % len(SAMPLES)
            status, answer = self._client.ask("prompt", self._question(mode, picture))
            if status == 200:
                if answer["prompt"] != self._right[mode, picture]:
                    self._tally.fault(f"{mode} of {SAMPLES[picture].name} was {answer['prompt']!r}")
            elif (status, (answer or {}).get("error")) != (503, "QueueFull"):
                self._tally.fault(f"{mode} was answered with {status} {answer!r:.200}")
            return status

        with ThreadPoolExecutor(AT_ONCE) as threads:
            statuses = Counter(threads.map(one, range(AT_ONCE)))
        if statuses[200] < 8:  # who wait; beside a batch, whoever has the turn is one of them
            self._tally.fault(f"Of {AT_ONCE} at once too few were answered: {statuses}")

    def _stop(self) -> None:
        """Stop a run at a random moment; it is to be answered within a second."""
        task = f"soak-{self._random.random()}"
        stopped: list[float] = []

        def stop() -> None:
            if self._client.ask("interrupt", {"task": task})[1]["interrupted"]:
                stopped.append(time.monotonic())

        timer = threading.Timer(self._random.uniform(0, 1.5), stop)
        timer.start()
        status, answer = self._client.ask("prompt", self._question("best", 0, task=task))
        answered = time.monotonic()
        timer.cancel()
        timer.join()
        if stopped and stopped[0] < answered:
            self._tally.stops.append(answered - stopped[0])
        if status not in (200, 409):
            self._tally.fault(f"A run that was stopped was answered with {status} {answer!r:.200}")

    def _batch(self, name: str) -> None:
        """Have a batch write its texts, which are the same each time."""
        output = self._folder / f"texts-{name}"
        _, state = self._client.ask("batch", {
            "input": str(SAMPLES[0].parent), "output": str(output), "mode": "classic",
            "clip_model_name": "demo", "captioner": "demo",
        })
        while state["state"] not in ENDED:
            time.sleep(0.1)
            _, state = self._client.ask(f"batch/{state['id']}")
        texts = {path.name: path.read_bytes() for path in output.glob("*.txt")}
        if state["state"] != "done" or len(texts) != len(SAMPLES):
            self._tally.fault(f"The batch {name} ended so: {state!r:.300}")
        elif texts != (self._texts or texts):
            self._tally.fault(f"The batch {name} has other texts than the first")
        self._texts = self._texts or texts
        self._tally.batches += 1


@contextmanager
def ping(address: str, seconds: list[float]) -> Iterator[None]:
    """Meanwhile ask again and again how things are; add how long each answer took.

    In a process of its own: the threads of the fifty would take turns with it otherwise.
    """
    spawn = multiprocessing.get_context("spawn")
    over = spawn.Event()
    answers, into = spawn.Pipe(duplex=False)
    pinging = spawn.Process(target=_ping, args=(address, over, into))
    pinging.start()
    into.close()  # so that nothing is waited for where the process has ended
    try:
        yield
    finally:
        over.set()
        seconds.extend(answers.recv())
        pinging.join()


def _ping(address: str, over: Any, into: Any) -> None:
    taken: list[float] = []
    while not over.wait(0.05):
        asked = time.monotonic()
        with urllib.request.urlopen(f"{address}/interrogator/captioners", timeout=60) as answer:
            answer.read()
        taken.append(time.monotonic() - asked)
    into.send(taken)


def resident(process: int) -> int:
    """Return how many bytes of memory a process has."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {process} has no memory")


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the page with the demo models and short word lists; return it and its address."""
    lists = folder / "lists"
    lists.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        words = [f"{name} {number}" for number in range(40)]
        (lists / f"{name}.txt").write_text("\n".join(words), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "clip_interrogator_ext", "page", "--demo", "--port", str(port),
        "--lists-dir", str(lists), "--cache-dir", str(folder / "cache"),
    ]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/interrogator/captioners", timeout=5).close()
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
        else:
            return server, address
    raise SystemExit((folder / "server.log").read_text(encoding="utf-8"))


def report_of(tally: Tally, seconds: float, log: str) -> dict[str, Any]:
    """Return what was measured; times in milliseconds, memory in MiB."""
    pings = sorted(tally.pings)
    memory = [(requests, round(size / MEBIBYTE, 1)) for requests, size in tally.memory]
    return {
        "versions": versions(), "seconds": round(seconds), "rounds": tally.rounds,
        "requests": tally.requests, "statuses": dict(sorted(tally.statuses.items())),
        "batches": tally.batches, "pings": len(pings),
        "ping_ms": {
            "median": round(1000 * statistics.median(pings), 1),
            "99 %": round(1000 * pings[int(0.99 * (len(pings) - 1))], 1),
            "longest": round(1000 * pings[-1], 1),
        },
        "stops": len(tally.stops),
        "longest_stop_ms": round(1000 * max(tally.stops, default=0)),
        "memory_mib": memory[:: max(1, len(memory) // 12)] + memory[-1:],
        "tracebacks": log.count("Traceback"),
        "wrong": tally.wrong,
    }


def main() -> int:
    """Soak a server, and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    chosen = parser.parse_args()
    tally = Tally()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, address = serve(folder)
        try:
            Soak(Client(address, tally), tally, server.pid, folder).run(chosen.seconds)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        log = (folder / "server.log").read_text(encoding="utf-8")
        sys.stderr.write(log)
        report = report_of(tally, time.monotonic() - began, log)
    print(json.dumps(report, indent=1))
    return 1 if report["wrong"] or report["tracebacks"] else 0


if __name__ == "__main__":
    sys.exit(main())
