"""How far a batch is and what became of it, as pieces of HTML."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from clip_interrogator_ext import images
from clip_interrogator_ext.errors import BadImage
from clip_interrogator_ext.faces.tab import elements
from clip_interrogator_ext.faces.tab.elements import PREFIX
from clip_interrogator_ext.files import shown

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchProgress, BatchState, Failure
    from clip_interrogator_ext.results import Run

FAILURES_SHOWN = 20
_THUMBNAIL_PIXELS = 192
_WORDS_OF_STATES = {
    "waiting": "Waiting in line", "running": "Running", "stopping": "Stopping",
    "done": "Done", "stopped": "Stopped", "failed": "Failed",
}


def report(
    state: BatchState,
    title: str,
    run: Run | None,
    worded: Callable[[str], str],
    *,
    uploaded: bool = False,
) -> str:
    """Return all about a batch; `run` is the run of the service for the picture in hand.

    `worded` takes out of a sentence what whoever reads it may not know. Where the pictures were
    uploaded, no places on this machine are told.
    """
    pieces = [f"<h4>{escape(title)}</h4>"]
    if state.ended:
        pieces.append(_end(state, worded, uploaded=uploaded))
    else:
        pieces.append(_bar(state, run))
        if state.progress is not None:
            pieces += [_counts(state.progress), _last(state.progress, worded)]
    result = state.result
    if result is None:
        number = len(state.failures) if state.progress is None else state.progress.failed
        pieces.append(failures(state.failures, number, worded))
    else:
        pieces.append(failures(result.failures, len(result.failures), worded))
    going_on = "" if state.ended else " data-going-on"
    return f'<section class="{PREFIX}-card {PREFIX}-batch"{going_on}>{"".join(pieces)}</section>'


def line(states: Sequence[tuple[BatchState, str]]) -> str:
    """Return the line of batches, each with its title."""
    rows = [(title, state_in_words(state), _how_far(state)) for state, title in states]
    return elements.table(("Batch", "State", "Pictures"), rows, "Batches in line")


def state_in_words(state: BatchState) -> str:
    """Return a batch's state for people."""
    return _WORDS_OF_STATES[state.state]


def failures(first: Sequence[Failure], number: int, worded: Callable[[str], str]) -> str:
    """Return the first failures with their reasons, and how many more there are."""
    if not number:
        return ""
    listed = "".join(
        f"<li>{escape(shown(worded(failure.reason)))}</li>" for failure in first[:FAILURES_SHOWN]
    )
    more = number - min(len(first), FAILURES_SHOWN)
    if more > 0:
        listed += f"<li>and {more} more</li>"
    heading = "1 picture failed" if number == 1 else f"{number} pictures failed"
    return (
        f'<div class="{PREFIX}-warning {PREFIX}-failures"><b>{heading}</b>'
        f"<ul>{listed}</ul></div>"
    )


def _bar(state: BatchState, run: Run | None) -> str:
    if state.state == "waiting":
        return elements.bar(0, f"Waiting in line · {_pictures(state.total)}")
    if state.state == "stopping":
        return elements.bar(0, "Stopping")
    # Within a picture, and before the first one, the engine's own steps tell that it goes on.
    step = "" if run is None else _words(elements.told(run)[1])
    progress = state.progress
    if progress is None:
        return elements.bar(0, f"Starting · {_pictures(state.total)}") + step
    words = f"{progress.step} · {progress.step_done} of {progress.total}"
    if progress.rate is not None:
        words += f" · {_rate(progress.rate)}"
    if progress.seconds_left is not None:
        words += f" · {elements.duration(progress.seconds_left)} left"
    return elements.bar(min(1.0, progress.step_done / max(1, progress.total)), words) + step


def _pictures(number: int) -> str:
    return "1 picture" if number == 1 else f"{number} pictures"


def _rate(rate: float) -> str:
    return f"{rate:.1f} a second" if rate >= 1 else f"{elements.duration(1 / rate)} each"


def _how_far(state: BatchState) -> str:
    if state.result is not None:
        return state.result.counted
    if state.progress is not None:
        return f"{state.progress.step_done} of {state.progress.total}"
    return str(state.total)


def _counts(progress: BatchProgress) -> str:
    return _words(
        f"{progress.done} done · {progress.skipped} skipped · {progress.failed} failed"
    )


def _words(words: str) -> str:
    """Return words that change so often that no screen reader should read each of them."""
    return f'<div class="{PREFIX}-note">{escape(words)}</div>'


def _last(progress: BatchProgress, worded: Callable[[str], str]) -> str:
    """Return the last picture, small, with its prompt."""
    path = progress.picture
    if path is None or not progress.prompt:
        return ""
    source = thumbnail(path)
    image = f'<img src="{source}" alt="">' if source else ""
    return (
        f'<div class="{PREFIX}-last">{image}<div><b>{escape(shown(worded(path.name)))}</b>'
        f"<p>{escape(shown(progress.prompt))}</p></div></div>"
    )


def _end(state: BatchState, worded: Callable[[str], str], *, uploaded: bool) -> str:
    result = state.result
    if state.state == "failed":
        return elements.note(shown(worded(state.error)), "error")
    if result is None:
        return elements.note("Stopped before it began.", "warning")
    sentences = [f"{result.counted} It took {elements.duration(state.seconds)}."]
    if not uploaded:
        sentences.append(f"The prompts are in {shown(result.output)}.")
        if result.failures_file is not None:
            sentences.append(f"Those that failed are listed in {shown(result.failures_file)}.")
    if state.state != "stopped":
        return elements.notes(sentences)
    again = "Stopped: start it again with the same choices, and it goes on from here."
    return elements.notes(sentences) + elements.note(again, "warning")


@lru_cache(maxsize=4)
def thumbnail(path: Path) -> str:
    """Return a picture, small, as a data URL, or "" where it can't be read any more."""
    try:
        small = images.thumbnail(path, _THUMBNAIL_PIXELS)
    except BadImage:
        return ""
    data = BytesIO()
    small.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
