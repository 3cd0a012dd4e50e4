"""Read word lists into frozen categories."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clip_interrogator_ext import catalog, phrases
from clip_interrogator_ext.errors import BadOption, BadWordList
from clip_interrogator_ext.host import is_folder

log = logging.getLogger(__name__)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "artists": ("by {}", "inspired by {}"),
    "sites": ("{}", "trending on {}", "featured on {}", "{} contest winner"),
}
"""What the program makes of each line of a category; other categories are taken as they are."""


@dataclass(frozen=True)
class Category:
    """The phrases of one word list, ready to be ranked, and the file that they come from."""

    name: str
    phrases: tuple[str, ...]
    path: Path | None = None


def bundled_folder() -> Path:
    """Return the folder of our own lists: beside the package, or inside an installed one."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "data"
    return beside if (beside / "flavors.txt").is_file() else package / "data"


def load_categories(lists_dir: Path | None = None) -> dict[str, Category]:
    """Return all categories by name: the bundled ones, replaced or added to by the user's.

    A file of the user's replaces the category of its name, or adds one. A file that can't be
    read is reported and left out. Raises BadWordList where the folder itself can't be used.
    """
    categories = {category.name: category for category in _read_folder(bundled_folder())}
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


def positive_names(categories: dict[str, Category]) -> tuple[str, ...]:
    """Return the positive categories in the order in which they are merged: the user's last."""
    known = [name for name in catalog.CATEGORIES if name in categories]
    own = sorted(set(categories) - set(known) - {catalog.NEGATIVE_CATEGORY})
    return (*known, *own)


def check_known(names: Iterable[str] | None, categories: dict[str, Category]) -> None:
    """Raise BadOption where one of the names is not that of a positive category."""
    known = positive_names(categories)
    for name in names or ():
        if name not in known:
            raise BadOption(
                "categories",
                f"There is no category {name!r}; there are {', '.join(known)}."
                + catalog.did_you_mean(catalog.nearest(name, known)),
            )


def _read_folder(folder: Path) -> list[Category]:
    found = []
    for path in sorted(path for path in folder.glob("*.txt") if path.is_file()):
        try:
            found.append(read_category(path))
        except BadWordList as error:
            log.warning("%s The list is left out.", error)
    return found


def read_category(path: Path) -> Category:
    """Read one list in our own format and apply the templates of its category."""
    lines = read_phrases(path)
    if not lines:
        log.warning("%s has no phrases: its category is empty.", path)
    templates = TEMPLATES.get(path.stem, ("{}",))
    expanded = [template.replace("{}", line) for template in templates for line in lines]
    return Category(path.stem, tuple(phrases.unique(expanded)), path)


def read_phrases(path: Path) -> list[str]:
    """Read a list in our own format: UTF-8, one phrase a line, `#` begins a comment line.

    Repeats, and lines without a letter or a digit, are dropped. Raises BadWordList, which names
    the file and the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadWordList(f"{path} can't be read ({error.strerror}).") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadWordList(f"{path}, line {line}, is not UTF-8. Save the file as UTF-8.") from error
    lines = (" ".join(line.split()) for line in text.splitlines())
    return phrases.unique(
        line for line in lines if not line.startswith("#") and any(map(str.isalnum, line))
    )
