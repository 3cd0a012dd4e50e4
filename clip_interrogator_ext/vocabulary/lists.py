"""Read word lists into frozen categories."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from clip_interrogator_ext import catalog, phrases
from clip_interrogator_ext.errors import BadOption, BadWordList
from clip_interrogator_ext.host import is_folder
from clip_interrogator_ext.vocabulary.lines import read_lines

log = logging.getLogger(__name__)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "artists": ("by {}", "inspired by {}"),
    "sites": ("{}", "trending on {}", "featured on {}", "{} contest winner"),
}
"""What the program makes of each line of a category; other categories are taken as they are."""


@dataclass(frozen=True)
class Category:
    """The phrases of one word list, ready to be ranked, and the file or folder that it comes from.

    `lines` are those of the list; the phrases are what the templates make of them. Each of the
    `parts` holds some of the phrases: a theme of the flavors, or the artists of a trade, an era,
    living or not. `subjects` say what a picture shows, not how it looks.
    """

    name: str
    phrases: tuple[str, ...]
    path: Path | None = None
    lines: tuple[str, ...] = ()
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subjects: frozenset[str] = frozenset()


def bundled_folder() -> Path:
    """Return the folder of our own lists: beside the package, or inside an installed one."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "data"
    return beside if (beside / "artists.csv").is_file() else package / "data"


def load_categories(lists_dir: Path | None = None) -> dict[str, Category]:
    """Return all categories by name: the bundled ones, replaced or added to by the user's.

    A file of the user's replaces the category of its name, or adds one. A file that can't be
    read is reported and left out. Raises BadWordList where the folder itself can't be used.
    """
    categories = dict(_bundled())
    if not categories:
        raise BadWordList(f"The bundled word lists are missing from {bundled_folder()}. Reinstall.")
    if lists_dir is not None:
        if not is_folder(lists_dir):
            raise BadWordList(f"{lists_dir} is not a folder. Name a folder of .txt word lists.")
        own = _read_folder(lists_dir)
        if not own:
            log.warning("%s holds no word list (a file NAME.txt).", lists_dir)
        categories.update({category.name: category for category in own})
    return categories


@cache
def _bundled() -> Mapping[str, Category]:
    return {category.name: category for category in _read_folder(bundled_folder())}


def positive_names(categories: dict[str, Category]) -> tuple[str, ...]:
    """Return the positive categories in the order in which they are merged: the user's last."""
    known = [name for name in catalog.CATEGORIES if name in categories]
    own = sorted(set(categories) - set(known) - {catalog.NEGATIVE_CATEGORY})
    return (*known, *own)


def choose(
    names: Sequence[str] | None, categories: dict[str, Category]
) -> dict[str, frozenset[str] | None]:
    """Return the positive categories that are named, in the order in which they are merged.

    A name is a category's, or "category/part"; of a category with None all phrases are meant,
    otherwise those of its named parts. Without names all categories are.
    """
    chosen: dict[str, frozenset[str] | None] = {}
    for whole in positive_names(categories):
        parts = [name.partition("/")[2] for name in names or (whole,)
                 if name.partition("/")[0] == whole]
        if "" in parts:
            chosen[whole] = None
        elif parts:
            chosen[whole] = frozenset().union(*(categories[whole].parts[part] for part in parts))
    return chosen


def check_known(names: Iterable[str] | None, categories: dict[str, Category]) -> None:
    """Raise BadOption where one of the names is not that of a positive category or its part."""
    known = positive_names(categories)
    for name in names or ():
        whole, slash, rest = name.partition("/")
        if whole not in known:
            raise BadOption(
                "categories",
                f"There is no category {name!r}; there are {', '.join(known)}."
                + catalog.did_you_mean(catalog.nearest(name, known)),
            )
        parts = categories[whole].parts
        if slash and rest not in parts:
            raise BadOption(
                "categories",
                f"The category {whole} has no part {rest!r}"
                + (f"; it has {', '.join(parts)}." if parts else "; it has none.")
                + catalog.did_you_mean(catalog.nearest(rest, tuple(parts))),
            )


def _read_folder(folder: Path) -> list[Category]:
    """Read each list of a folder, and each folder of lists in it as one category."""
    found = []
    for path in sorted(folder.iterdir()):
        is_list = path.is_file() and path.suffix in (".txt", ".csv")
        if is_list or (path.is_dir() and any(path.glob("*.txt"))):
            try:
                found.append(read_category(path))
            except BadWordList as error:
                log.warning("%s The list is left out.", error)
    return found


def read_category(path: Path) -> Category:
    """Read a list, or a folder of lists as one, and apply the templates of its category."""
    lines: list[str] = []
    parts: dict[str, list[str]] = {}
    subjects: list[str] = []
    for file in sorted(path.glob("*.txt")) if path.is_dir() else [path]:
        if file.suffix == ".csv":
            lines += _read_table(file, parts)
            continue
        read = read_lines(file)
        lines += read.phrases
        subjects += read.phrases if read.about == "subject" else ()
        if path.is_dir():
            parts[file.stem] = list(read.phrases)
    lines = phrases.unique(lines)
    if not lines:
        log.warning("%s has no phrases: its category is empty.", path)
    said = partial(_said, TEMPLATES.get(path.stem, ("{}",)))
    return Category(
        path.stem, tuple(phrases.unique(said(lines))), path, tuple(lines),
        {name: frozenset(said(some)) for name, some in sorted(parts.items())},
        frozenset(said(subjects)),
    )


def _said(templates: Sequence[str], lines: Sequence[str]) -> list[str]:
    return [template.replace("{}", line) for template in templates for line in lines]


def _read_table(path: Path, parts: dict[str, list[str]]) -> list[str]:
    """Read a table: phrases in the first column, in the others what they are, `;` between several.

    What a phrase is names the parts that it is in; "yes" and "no" stand for the column's heading
    and its opposite.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            headings, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise BadWordList(f"{path} can't be read ({error}).") from error
    lines = []
    for row in rows:
        phrase = " ".join(row[0].split()) if row else ""
        if not any(map(str.isalnum, phrase)):
            continue
        lines.append(phrase)
        for heading, cell in zip(headings[1:], row[1:], strict=False):
            for value in filter(None, map(str.strip, cell.split(";"))):
                named = {"yes": heading, "no": f"not {heading}"}.get(value, value)
                parts.setdefault(named, []).append(phrase)
    return lines
