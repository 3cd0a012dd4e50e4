"""Named sets: which word lists a prompt is made from, in what order, and how many of each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption, BadWordList
from clip_interrogator_ext.vocabulary.lines import Line
from clip_interrogator_ext.vocabulary.lists import (
    SETS_FILE,
    Category,
    Stamp,
    bundled_folder,
    check_known,
    positive_names,
    role_of,
    stamp_of,
)
from clip_interrogator_ext.vocabulary.reading import count_of, load_yaml

if TYPE_CHECKING:
    from clip_interrogator_ext.options import InterrogateOptions

log = logging.getLogger(__name__)

_KEYS = ("about", "lists", "without", "leave_out")
_MOST = 256  # phrases of one list
_INTERROGATE = "interrogate"
_kept: dict[Path, tuple[Stamp, dict[str, WordSet]]] = {}


@dataclass(frozen=True)
class Choice:
    """A list of a set, or a part of one, and how many of its phrases; None: as the mode adds."""

    list: str
    count: int | None = None

    @property
    def role(self) -> str:
        """What its phrases are, in the words of our own categories."""
        return role_of(self.list)


@dataclass(frozen=True)
class WordSet:
    """An ordered choice of word lists.

    Choices with a count give exactly so many phrases, in their order; those without one that
    stand side by side are searched together. Lines of the lists in `without` never come out,
    nor do the words of `leave_out`, in captions neither. `own` sets are the user's.
    """

    name: str
    about: str
    choices: tuple[Choice, ...]
    without: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    own: bool = False

    def missing(self, categories: Mapping[str, Category]) -> tuple[str, ...]:
        """Return the names of its lists, and parts of lists, that are not there."""
        return tuple(
            name for name in (*(choice.list for choice in self.choices), *self.without)
            if not _is_there(name, categories)
        )


def load_sets(
    lists: Mapping[str, Category | Path], own: Path | None = None
) -> dict[str, WordSet]:
    """Return all sets by name: "all", ours, the user's, and that of AUTOMATIC1111's lists.

    `lists` are those that there are, or their places. A set of the user's replaces the one of its
    name. What can't be used is reported and left out.
    """
    positive = tuple(Choice(name) for name in positive_names(lists))
    sets = {
        catalog.ALL_LISTS: WordSet(
            catalog.ALL_LISTS, "Our lists and your own; not those of other programs.", positive
        )
    }
    theirs = {name: lists[name] for name in lists if name.startswith(f"{_INTERROGATE}:")}
    if theirs:
        sets[_INTERROGATE] = WordSet(
            _INTERROGATE, "The lists of AUTOMATIC1111's folder interrogate, with its numbers.",
            tuple(
                Choice(name, (count_of(one) if isinstance(one, Path) else one.count) or 1)
                for name, one in theirs.items()
            ),
        )
    sets.update(read_sets(bundled_folder() / SETS_FILE))
    if own is not None and (own / SETS_FILE).is_file():
        sets.update(read_sets(own / SETS_FILE, own=True))
    return sets


def set_named(
    name: str, sets: Mapping[str, WordSet], categories: Mapping[str, Category]
) -> WordSet:
    """Return a set that can be used; raises BadOption."""
    if name not in sets:
        raise BadOption(
            "vocabulary",
            f"There is no set of word lists {name!r}; there are {', '.join(sets)}."
            + catalog.did_you_mean(catalog.nearest(name, sets)),
        )
    _require(name, sets[name].missing(categories))
    return sets[name]


def _require(name: str, missing: Sequence[str]) -> None:
    """Raise BadOption where lists of a set are missing."""
    if missing:
        wanted = ", ".join(missing)
        remedy = (
            "Install the package clip-interrogator: the tab Word lists has a button for it, and "
            "so does the command `lists --get-classic`."
            if any(one.startswith("classic:") for one in missing)
            else f"Add what is missing to your word lists, or mend the set in {SETS_FILE}."
        )
        raise BadOption("vocabulary", f"The set {name!r} lacks the lists {wanted}. {remedy}")


def set_of(
    options: InterrogateOptions, sets: Mapping[str, WordSet], categories: Mapping[str, Category]
) -> WordSet:
    """Return the set that is asked for, with the lists that are asked for in place of its own.

    Those are in the order in which they are merged. Raises BadOption.
    """
    names = options.categories
    if names is None:
        return set_named(options.vocabulary, sets, categories)
    check_known(names, categories)
    order = {name: place for place, name in enumerate((*positive_names(categories), *categories))}
    ordered = sorted(dict.fromkeys(names), key=lambda name: order[name.partition("/")[0]])
    chosen = sets.get(options.vocabulary) or set_named(options.vocabulary, sets, categories)
    chosen = replace(chosen, choices=tuple(map(Choice, ordered)))
    _require(chosen.name, chosen.missing(categories))
    return chosen


def read_sets(path: Path, *, own: bool = False) -> dict[str, WordSet]:
    """Read a file of sets, once as long as it stays as it is.

    Those that can't be used are reported and left out.
    """
    stamp = stamp_of([path])
    kept = _kept.get(path)
    if kept is None or not stamp or kept[0] != stamp:
        kept = _kept[path] = stamp, _read_sets(path, own=own)
    return kept[1]


def _read_sets(path: Path, *, own: bool) -> dict[str, WordSet]:
    try:
        found = load_yaml(path)
        if not isinstance(found, dict):
            if not found:
                return {}
            raise BadWordList(f"{path}: Write each set as a name with its lists below it.")
    except BadWordList as error:
        log.warning("%s The sets in it are left out.", error)
        return {}
    sets = {}
    for name, value in found.items():
        try:
            sets[name] = _set(name, value, own=own)
        except BadWordList as error:
            log.warning("%s: The set %r is left out. %s", path, name, error)
    return sets


def _set(name: str, value: Any, *, own: bool) -> WordSet:
    if name == catalog.ALL_LISTS:
        raise BadWordList("That name is taken by the set of all lists.")
    if not isinstance(value, dict) or "lists" not in value:
        raise BadWordList("Name its lists: `lists: [flavors, mediums]`.")
    unknown = set(value) - set(_KEYS)
    if unknown:
        raise BadWordList(
            f"It has {', '.join(sorted(unknown))}; a set has {', '.join(_KEYS)}."
        )
    about = value.get("about")
    if about is not None and not isinstance(about, Line):
        raise BadWordList("What it is about must be one text.")
    choices = tuple(map(_choice, _listed("lists", value["lists"])))
    if not choices:
        raise BadWordList("Name at least one list.")
    return WordSet(
        name, about.text if about else "", choices,
        tuple(map(_text, _listed("without", value.get("without", [])))),
        tuple(map(_text, _listed("leave_out", value.get("leave_out", [])))),
        own,
    )


def _listed(key: str, value: Any) -> list[Any]:
    if isinstance(value, Line):
        return [Line(value.number, part) for part in value.text.split(",") if part.strip()]
    if not isinstance(value, list):
        raise BadWordList(f"Write {key} as a list: `{key}: [one, another]`.")
    return value


def _choice(value: Any) -> Choice:
    if isinstance(value, dict) and len(value) == 1:
        name, count = next(iter(value.items()))
        text = count.text if isinstance(count, Line) else ""
        if not text.isdecimal() or not 1 <= int(text) <= _MOST:
            raise BadWordList(f"How many of {name} there are to be is a number from 1 to {_MOST}.")
        return Choice(name, int(text))
    return Choice(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, Line) or not value.text.strip():
        raise BadWordList("Write each list as a name, or as a name with a number: `flavors: 3`.")
    return value.text.strip()


def _is_there(name: str, categories: Mapping[str, Category]) -> bool:
    whole, slash, part = name.partition("/")
    return whole in categories and (not slash or part in categories[whole].parts)
