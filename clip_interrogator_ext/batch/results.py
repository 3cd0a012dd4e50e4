"""How far a batch is, and what became of it: frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """A picture that has no prompt, and the sentence that says why."""

    picture: Path
    reason: str


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Of `total` pictures `done` have their prompt, those of an earlier start among them; `skipped`
    had a text that was left alone. `rate` is in pictures a second and `seconds_left` an
    estimate; both are None while there is nothing to go by. `step` is the pass through all
    pictures that goes on, and `step_done` how many it has come to. `picture` is the last one,
    `prompt` its prompt or "", and `problem` says why it failed, if it did.
    """

    done: int
    total: int
    skipped: int
    failed: int
    rate: float | None
    seconds_left: float | None
    step: str = ""
    step_done: int = 0
    picture: Path | None = None
    prompt: str = ""
    problem: str = ""


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch.

    `earlier` of the `done` were finished before this start. `output` is the folder or the file of
    prompts; `failures_file` lists the pictures that failed, and can be given as the next input.
    `stopped` says that pictures are left for the next start.
    """

    total: int
    done: int
    earlier: int
    skipped: int
    failures: tuple[Failure, ...]
    output: Path
    failures_file: Path | None
    stopped: bool = False

    @property
    def counted(self) -> str:
        """How many are done, skipped and failed, in a sentence."""
        earlier = f" ({self.earlier} of them earlier)" if self.earlier else ""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{self.done} of {self.total} done{earlier}, {self.skipped} skipped{failed}."


@dataclass(frozen=True)
class BatchState:
    """A batch that a page or another program has asked for.

    Its `name` is no secret: runs are told with it. `token` is known to whoever asked for it alone,
    and opens it to them.

    `state` is "waiting", "running", "stopping", or, when it has ended, "done", "stopped" or
    "failed"; then `result` says what became of it, or `error` in a sentence why it failed.
    `total` is the number of pictures found when it was asked for. `seconds` is the time that it has
    waited, and from its beginning on the time that it has taken, without the line. `failures` are
    the first that it has met.
    """

    name: str
    state: str
    input: str
    total: int
    seconds: float = 0.0
    progress: BatchProgress | None = None
    result: BatchResult | None = None
    error: str = ""
    failures: tuple[Failure, ...] = ()
    token: str = field(default="", repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "stopped", "failed")
