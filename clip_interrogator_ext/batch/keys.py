"""What an answer and a job depend on, as short hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.catalog import NEGATIVE_CATEGORY

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
    from clip_interrogator_ext.vocabulary.lists import Category
    from clip_interrogator_ext.vocabulary.sets import WordSet


def lists_key(
    categories: Mapping[str, Category], chosen: WordSet | None, named: Sequence[str] | None
) -> str:
    """Return the hash of the word lists that may take part, and of what a set takes from them.

    Those are the lists that the chosen set or the question names, and the negative one.
    """
    taken = [] if chosen is None else [(one.list, one.count) for one in chosen.choices]
    without = () if chosen is None else chosen.without
    left_out = () if chosen is None else chosen.leave_out
    names = sorted({*(named or ()), *(name for name, _ in taken), *without, NEGATIVE_CATEGORY})
    contents = []
    for name in names:
        whole, _, part = name.partition("/")
        if whole in categories:
            category = categories[whole]
            phrases = sorted(category.parts.get(part, ())) if part else category.phrases
            subjects = sorted(category.subjects)
            contents.append([name, _phrases_hash(phrases), _phrases_hash(subjects)])
    return _hash([taken, without, left_out, names, contents])


def answer_key(
    sha256: str, models: ModelOptions, asked: InterrogateOptions, lists: str
) -> str:
    """Return the key of an answer: the picture's content, the networks, the question, the lists.

    How many texts are encoded at once, and whether networks share the device, changes no answer.
    """
    caption = None if asked.caption is None else " ".join(asked.caption.split())
    return _hash([
        sha256, models.backbones, models.captioner, {**asdict(asked), "caption": caption}, lists,
    ])


def caption_key(sha256: str, models: ModelOptions, asked: InterrogateOptions) -> str:
    """Return the key of what a captioner says of a picture."""
    return _hash([sha256, models.captioner, asdict(asked.captioning)])


def look_key(sha256: str, models: ModelOptions) -> str:
    """Return the key of a picture's vectors."""
    return _hash([sha256, models.backbones])


def job_key(options: BatchOptions, root: Path, folder: Path, lists: str) -> str:
    """Return the key of a job: all that decides what is written for the pictures below a root.

    The root counts as seen from the output's folder, so that both may be moved together.
    """
    described = asdict(options)
    for name in ("input", "recursive", "output"):
        del described[name]
    for name in ("chunk_size", "low_memory"):
        del described["models"][name]
    return _hash([place_key(root, folder), described, lists])


def place_key(root: Path, folder: Path) -> str:
    """Return where the pictures are, as seen from the folder of the output."""
    try:
        return Path(os.path.relpath(root, folder)).as_posix()
    except ValueError:  # on another drive
        return root.as_posix()


def _phrases_hash(phrases: Sequence[str]) -> str:
    # As one text: there may be hundreds of thousands.
    return hashlib.sha256("\n".join(phrases).encode("utf-8", "surrogatepass")).hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
