"""Ids, and small pieces of HTML that the page is drawn with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_interrogator_ext.results import Run

PREFIX = "cliext"
DEMO_NOTE = (
    "Demo models are in use: they know only pictures drawn by this project's own program. "
    "Choose a real backbone and captioner for your own pictures."
)


def element_id(name: str) -> str:
    """Return the id of an element of the page."""
    return f"{PREFIX}-{name}"


def note(sentence: str, kind: str = "note") -> str:
    """Return a sentence as a line of its own; `kind` is "note", "warning" or "error"."""
    if not sentence:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<div class="{PREFIX}-{kind}" role="{role}">{escape(sentence)}</div>'


def notes(sentences: Iterable[str], kind: str = "note") -> str:
    """Return several sentences, each on a line of its own."""
    return "".join(note(sentence, kind) for sentence in sentences)


def progress(run: Run | None) -> str:
    """Return a progress bar with the step, how far it is, and the time left."""
    return "" if run is None else bar(*told(run))


def told(run: Run) -> tuple[float, str]:
    """Return how far a run is, from 0 to 1, and the same in words."""
    if not run.running:
        return 0.0, "Waiting for the GPU"
    if run.stopping:
        return 0.0, "Stopping"
    words = run.label[:1].upper() + run.label[1:] if run.label else "Loading models"
    fraction = 0.0
    if run.total > 1:
        fraction = min(1.0, run.done / run.total)
        words += f" · {run.done} of {run.total}"
    if run.seconds_left is not None and run.total > 1:
        words += f" · {duration(run.seconds_left)} left"
    return fraction, words


def bar(fraction: float, words: str) -> str:
    """Return a progress bar with words in it."""
    percent = round(100 * fraction)
    return (
        f'<div class="{PREFIX}-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}" aria-label="{escape(words)}">'
        f'<div class="{PREFIX}-progress-done" style="width:{percent}%"></div>'
        f'<span>{escape(words)}</span></div>'
    )


def duration(seconds: float) -> str:
    """Return a time as people say it: "4 s", "2 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def size(size_bytes: float) -> str:
    """Return a size as people say it: "1.7 GB", "12 MB"."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def bars(ranked: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """Return a card for each title, with a bar for each (phrase, similarity), all to one scale."""
    scores = [score for rows in ranked.values() for _, score in rows]
    # Cosines of CLIP lie close together: measured from zero, all bars would look alike.
    low = min(scores, default=0.0)
    low = low * 0.75 if low > 0 else low
    span = max([*scores, low + 1e-6]) - low
    cards = "".join(
        f'<section class="{PREFIX}-card"><h4>{escape(title)}</h4>'
        + "".join(_bar_row(phrase, score, (score - low) / span) for phrase, score in rows)
        + "</section>"
        for title, rows in ranked.items()
    )
    return f'<div class="{PREFIX}-cards">{cards}</div>'


def _bar_row(phrase: str, score: float, length: float) -> str:
    return (
        f'<div class="{PREFIX}-row"><span class="{PREFIX}-phrase">{escape(phrase)}</span>'
        f'<span class="{PREFIX}-score">{score:.3f}</span>'
        f'<span class="{PREFIX}-bar" style="width:{100 * length:.1f}%"></span></div>'
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """Return a table of texts, which can be scrolled sideways where it is too wide."""
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join(
        "<tr>" + "".join(
            f'<td data-heading="{escape(heading)}">{escape(cell)}</td>'
            for heading, cell in zip(headings, row, strict=True)
        ) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="{PREFIX}-table"><table aria-label="{escape(label)}"><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
