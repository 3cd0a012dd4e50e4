"""Word lists as frozen categories: ours, the user's own, and those of other programs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clip_interrogator_ext import catalog, phrases
from clip_interrogator_ext.errors import BadOption, BadWordList
from clip_interrogator_ext.vocabulary.reading import (
    SUFFIXES,
    Read,
    beside,
    count_of,
    files_of,
    name_of,
    read,
    texts_below,
)

log = logging.getLogger(__name__)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "artists": ("by {}", "inspired by {}"),
    "sites": ("{}", "trending on {}", "featured on {}", "{} contest winner"),
}
"""What the program makes of each line of a category; other categories are taken as they are."""

SETS_FILE = "sets.yaml"
_FORMS = {"wildcards": "wildcards"}  # by who keeps the lists; others' lines are plain
_MOST_WARNINGS = 5  # for a list; the others are counted
_MOST_BYTES_OF_NAME = 200  # with its ending and a temporary name's it must be a file's
_NAME = re.compile(r"[^\W_][^/\\:*?\"<>|,]{0,99}")


@dataclass(frozen=True)
class Category:
    """The phrases of one word list, ready to be ranked, and the file or folder that it comes from.

    `lines` are those of the list; the phrases are what the templates make of them. Each of the
    `parts` holds some of the phrases: a theme of the flavors, or the artists of a trade, an era,
    living or not. `subjects` say what a picture shows, not how it looks. `about` is the sentence
    at the list's head, `count` how many phrases of it are wanted where its name says so,
    `problems` what is wrong with it. `own` lists are the user's.
    """

    name: str
    phrases: tuple[str, ...]
    path: Path | None = None
    lines: tuple[str, ...] = ()
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subjects: frozenset[str] = frozenset()
    about: str = ""
    own: bool = False
    count: int | None = None
    problems: tuple[str, ...] = ()

    def lines_of(self, part: str) -> tuple[str, ...]:
        """Return the lines of a part, or all for ""; of artists, their names."""
        if not part:
            return self.lines
        templates = TEMPLATES.get(role_of(self.name), ("{}",))
        return tuple(
            line for line in self.lines if templates[0].replace("{}", line) in self.parts[part]
        )


def role_of(name: str) -> str:
    """Return what the phrases of a list are: of "classic:artists", "artists"."""
    return name.partition("/")[0].rpartition(":")[2]


def bundled_folder() -> Path:
    """Return the folder of our own lists: beside the package, or inside an installed one."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "data"
    return beside if (beside / "artists.csv").is_file() else package / "data"


class Lists(Mapping[str, Category]):
    """Word lists by name, each of which is read when it is first asked for.

    From then on it stays as it is; a list is read anew by whoever loads the lists again, if its
    files have changed.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str, bool]]) -> None:
        """Take each list's place, the program that keeps it, and whether it is the user's own."""
        self._places = dict(places)
        self._read: dict[str, Category] = {}

    def __getitem__(self, name: str) -> Category:
        if name not in self._read:
            path, program, own = self._places[name]
            self._read[name] = _kept_category(path, name, program, own=own)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def load_categories(
    own: Path | None = None, others: Mapping[str, Path] | None = None
) -> Lists:
    """Return all categories by name: the bundled ones, the user's, and other programs'.

    A list of the user's replaces the category of its name, or adds one. `others` has the folders
    of other programs' lists, by what stands in their names before a colon. What can't be read is
    reported and left out. Raises BadWordList where the user's folder is no folder; one that is not
    there holds no list.
    """
    places = _places(bundled_folder())
    if not places:
        raise BadWordList(f"The bundled word lists are missing from {bundled_folder()}. Reinstall.")
    if own is not None:
        if own.exists() and not own.is_dir():
            raise BadWordList(f"{own} is not a folder. Name a folder of word lists.")
        places.update(_places(own, own=True))
    for program, folder in (others or {}).items():
        places.update(_places(folder, program))
    return Lists(places)


def positive_names(categories: Mapping[str, object]) -> tuple[str, ...]:
    """Return the positive categories in the order in which they are merged: the user's last.

    Those that other programs keep are left out: they take part where they are named.
    """
    known = [name for name in catalog.CATEGORIES if name in categories]
    others = {name for name in categories if ":" in name}
    own = sorted(set(categories) - set(known) - others - {catalog.NEGATIVE_CATEGORY})
    return (*known, *own)


def check_known(
    names: Iterable[str] | None, categories: Mapping[str, Category], *, negative: bool = False
) -> None:
    """Raise BadOption where one of the names is not that of a category or its part.

    Negative ones count as such where they are asked for.
    """
    negatives = {one for one in categories if role_of(one) == catalog.NEGATIVE_CATEGORY}
    for name in names or ():
        whole, slash, rest = name.partition("/")
        if whole not in categories or (whole in negatives and not negative):
            known = positive_names(categories)
            every = [one for one in categories if negative or one not in negatives]
            raise BadOption(
                "categories",
                f"There is no category {name!r}; there are {', '.join(known)}."
                + catalog.did_you_mean(catalog.nearest(name, every)),
            )
        parts = categories[whole].parts
        if slash and rest not in parts:
            raise BadOption(
                "categories",
                f"The category {whole} has no part {rest!r}"
                + ("" if parts else "; it has none") + "."
                + catalog.did_you_mean(catalog.nearest(rest, tuple(parts))),
            )


def is_name(name: str) -> bool:
    """Say whether a list may be called so: as a file on every system, and in a row of names."""
    return (
        _NAME.fullmatch(name) is not None and name.isprintable() and name == name.rstrip(" .")
        and len(name.encode()) <= _MOST_BYTES_OF_NAME
        and name_of(Path(f"{name}.txt")) == name
        and f"{name.casefold()}.yaml" != SETS_FILE
        and not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE)
    )


def list_files(folder: Path, *, own: bool = False) -> dict[str, Path]:
    """Return the lists of a folder by name: texts, tables, trees, and folders of texts.

    Of several of one name the first counts. In the user's own folder the names of our lists are
    written as ours are.
    """
    return _list_files(folder, own=own)[0]


def is_nearly_ours(name: str) -> bool:
    """Say whether a name is that of one of our lists but for its case."""
    ours = (*catalog.CATEGORIES, catalog.NEGATIVE_CATEGORY)
    return name not in ours and name.casefold() in ours


def list_places(
    own: Path | None = None, others: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Return where the lists are that `load_categories` would read, by their full names."""
    places = list_files(bundled_folder())
    if own is not None:
        places.update(list_files(own, own=True))
    for program, folder in (others or {}).items():
        places.update({f"{program}:{name}": path for name, path in list_files(folder).items()})
    return places


def _list_files(folder: Path, *, own: bool = False) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    problems = []
    folded: dict[str, Path] = {}
    try:
        places = sorted(folder.iterdir())
    except OSError as error:
        return {}, [f"{folder} can't be read ({error.strerror}): it holds no word lists yet."]
    # A folder first: a text beside it that has its name is a part of it.
    for path in sorted(places, key=lambda one: not one.is_dir()):
        is_list = path.suffix.lower() in SUFFIXES and path.is_file()
        if path.name.casefold() == SETS_FILE and not (folder / SETS_FILE).is_file():
            problems.append(f"{path} is left out: call it {SETS_FILE}, in small letters.")
        if path.name.startswith(".") or path.name.casefold() == SETS_FILE:
            continue
        if not is_list and not (path.is_dir() and next(texts_below(path), None)):
            continue
        name = name_of(path)
        first = folded.get(name.casefold())
        if not is_name(name):
            problems.append(f"{path} is left out: a list can't have that name. Rename it.")
        elif own and is_nearly_ours(name):
            problems.append(f"{path} is left out: write its name in small letters.")
        elif first is None:
            found[name] = folded[name.casefold()] = path
        elif not (first.is_dir() and path == beside(first)):
            problems.append(f"{path} is left out: {first.name} has that name too. Rename one.")
    return found, problems


Stamp = tuple[tuple[str, int, int, int], ...]
"""What of files tells that they have changed; empty where that is not known."""

_kept: dict[tuple[Path, str], tuple[Stamp, Category]] = {}
_told: dict[Path, list[str]] = {}


def stamp_of(files: Iterable[Path]) -> Stamp:
    """Return the stamp of files."""
    try:
        stats = [(str(file), file.stat()) for file in files]
    except OSError:
        return ()
    return tuple(
        (file, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size) for file, stat in stats
    )


def _places(
    folder: Path, program: str = "", *, own: bool = False
) -> dict[str, tuple[Path, str, bool]]:
    """Return where the lists of a folder are, by their full names; report what is no list."""
    found, problems = _list_files(folder, own=own)
    if _told.get(folder, []) != problems:
        _told[folder] = problems
        _warn(problems)
    return {
        f"{program}:{name}" if program else name: (path, program, own)
        for name, path in found.items()
    }


def _kept_category(path: Path, name: str, program: str, *, own: bool) -> Category:
    """Return a list, read only if its files have changed; one that can't be read is empty."""
    stamp = stamp_of(files_of(path))
    kept = _kept.get((path, name))
    if kept is not None and stamp and kept[0] == stamp:
        return kept[1]
    try:
        category = read_category(path, name, program, own=own)
    except BadWordList as error:
        category = Category(name, (), path, own=own, problems=(f"{error} The list is left out.",))
        if isinstance(error.__cause__, OSError):
            stamp = ()  # it may be readable the next time
    problems = category.problems
    if not category.lines and not problems:
        problems = (f"{path} has no phrases: its category is empty.",)
    if not program:  # others' lists are not the user's to mend, and may never be asked for
        _warn(problems)
    _kept[path, name] = stamp, category
    return category


def _warn(problems: Sequence[str]) -> None:
    for sentence in problems[:_MOST_WARNINGS]:
        log.warning("%s", sentence)
    if len(problems) > _MOST_WARNINGS:
        log.warning("... and %d problems more.", len(problems) - _MOST_WARNINGS)


def read_category(
    path: Path, name: str | None = None, program: str = "", *, own: bool = False
) -> Category:
    """Read a list, or a folder of lists as one, and apply the templates of its category.

    Raises BadWordList.
    """
    name = name_of(path) if name is None else name
    found: Read = read(path, _FORMS.get(program, "plain") if program else "ours")
    lines = phrases.unique(found.lines)
    said = partial(_said, TEMPLATES.get(role_of(name), ("{}",)))
    spelled = {line.casefold(): line for line in lines}

    def kept(some: Sequence[str]) -> frozenset[str]:
        folded = dict.fromkeys(line.strip().casefold() for line in some)
        return frozenset(said([spelled[one] for one in folded if one in spelled]))

    return Category(
        name, tuple(phrases.unique(said(lines))), path, tuple(lines),
        {part: kept(some) for part, some in found.parts.items() if some},
        kept(found.subjects),
        found.about, own, count_of(path), found.problems.told(),
    )


def _said(templates: Sequence[str], lines: Sequence[str]) -> list[str]:
    return [template.replace("{}", line) for template in templates for line in lines]
