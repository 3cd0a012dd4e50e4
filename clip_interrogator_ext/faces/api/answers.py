"""The service's results, as they are answered."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.batch.results import BatchProgress
from clip_interrogator_ext.files import shown
from clip_interrogator_ext.phrases import escape_brackets

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchState
    from clip_interrogator_ext.results import Analysis, Prompt
    from clip_interrogator_ext.service import Service

# How the old clip-interrogator-ext called the categories in its answers.
_OLD_NAMES = {
    "medium": "mediums", "artist": "artists", "movement": "movements", "trending": "sites",
    "flavor": "flavors",
}


def prompt_answer(prompt: Prompt, *, escape: bool) -> dict[str, Any]:
    """Return a prompt as PromptAnswer has it."""
    negative = prompt.negative
    return {
        **_one_answer(prompt, escape=escape),
        "negative_prompt": None if negative is None else _written(negative.text, escape=escape),
        "negative": None if negative is None else _one_answer(negative, escape=escape),
    }


def _one_answer(prompt: Prompt, *, escape: bool) -> dict[str, Any]:
    answer = prompt.as_dict()
    del answer["negative"]
    answer["prompt"] = _written(answer.pop("text"), escape=escape)
    answer["caption"] = _written(prompt.caption, escape=escape)
    answer["parts"] = [
        {**asdict(part), "phrase": _written(part.phrase, escape=escape)} for part in prompt.parts
    ]
    return answer


def _written(text: str, *, escape: bool) -> str:
    return escape_brackets(text) if escape else text


def analyze_answer(analysis: Analysis, *, demo: bool) -> dict[str, Any]:
    """Return an analysis as AnalyzeAnswer has it."""
    categories = {name: dict(ranked) for name, ranked in analysis.categories.items()}
    old = {name: categories.get(category, {}) for name, category in _OLD_NAMES.items()}
    return {**old, "categories": categories, "seconds": analysis.seconds, "demo": demo}


def vocabularies_answer(service: Service) -> list[dict[str, Any]]:
    """Return the sets of word lists, each as WordSetAnswer has it."""
    categories = service.categories()
    return [
        {
            "name": one.name,
            "about": one.about,
            "lists": [{"list": choice.list, "count": choice.count} for choice in one.choices],
            "missing": list(one.missing(categories)),
            "without": list(one.without),
            "leave_out": list(one.leave_out),
            "own": one.own,
        }
        for one in service.word_sets().values()
    ]


def lists_answer(service: Service) -> list[dict[str, Any]]:
    """Return the word lists, each as WordListAnswer has it."""
    return [
        {
            "name": name,
            "about": category.about,
            "phrases": len(category.phrases),
            "parts": {part: len(phrases) for part, phrases in category.parts.items()},
            "own": category.own,
        }
        for name, category in service.categories().items()
    ]


def batch_answer(state: BatchState) -> dict[str, Any]:
    """Return how far a batch is, as BatchAnswer has it."""
    result = state.result
    answer = {
        "id": state.name,
        "state": state.state,
        "input": state.input,
        "seconds": state.seconds,
        **asdict(state.progress or BatchProgress(0, state.total, 0, 0, None, None)),
        "stopped": state.state == "stopped",
        "earlier": None,
        "output": None,
        "failures_file": None,
        "error": state.error or None,
    }
    if state.ended:
        answer["seconds_left"] = None
    if result is not None:
        answer |= {
            key: getattr(result, key)
            for key in ("total", "done", "skipped", "earlier", "output", "failures_file")
        }
        answer["failed"] = len(result.failures)
    return answer


def failures_of(state: BatchState) -> list[dict[str, Any]]:
    """Return the pictures that failed in a batch that has ended, each as FailureAnswer has it."""
    return [] if state.result is None else [asdict(failure) for failure in state.result.failures]


def as_json_holds(value: Any) -> Any:
    """Return an answer with null for numbers that are none, and escapes for bytes of no text."""
    if isinstance(value, dict):
        return {as_json_holds(key): as_json_holds(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json_holds(one) for one in value]
    if isinstance(value, (str, Path)):
        return shown(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
