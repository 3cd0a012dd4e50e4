"""Which module may import which, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "clip_interrogator_ext"
NAME = PACKAGE.name

# Lower numbers are further down; a module may import from its own height and below.
HEIGHTS = {
    "errors": 0, "packages": 0, "catalog": 0, "options": 0, "results": 0, "settings": 0,
    "origins": 0,
    "images": 1, "phrases": 1, "words": 1, "host": 1, "progress": 1, "runs": 1, "files": 1,
    "models": 2,
    "vocabulary": 3, "search": 3,
    "interrogator": 4,
    "service": 5, "drop_in": 5,
    "batch": 6,
    "faces": 7,
    "webui": 8,
}
HOMES = {
    "torch": {"models", "vocabulary", "search", "interrogator", "drop_in", "webui"},
    "transformers": {"models"},
    "open_clip": {"models"},
    "yaml": {"vocabulary"},
    "argparse": {"faces"},
    "fastapi": {"faces", "webui"},
    "pydantic": {"faces"},
    "starlette": {"faces", "webui"},
    "gradio": {"faces", "webui"},
    "modules": {"webui"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or
                  path.stem not in ("__init__", "__main__"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def face(path: Path) -> str:
    return path.relative_to(PACKAGE / "faces").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_runs_up(path):
    """A module imports from its own room and from those below, never from above."""
    own = HEIGHTS[room(path)]
    for name in imports(path):
        if name.startswith(f"{NAME}."):
            target = name.split(".")[1]
            if target in HEIGHTS:
                assert HEIGHTS[target] <= own, f"{path.name} imports {name}"


def test_faces_ask_the_service_only():
    """No face imports the networks, the search, or another face; the command line starts others."""
    for path in modules():
        if room(path) == "faces":
            names = [name.split(".") for name in imports(path) if name.startswith(NAME + ".")]
            forbidden = {"models", "search", "vocabulary", "interrogator"}
            assert not forbidden & {one[1] for one in names}
            own = face(path)
            others = {one[2] for one in names if one[1] == "faces"} - {own}
            assert not others or own == "cli"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path):
    """Each large library is imported in the rooms that it belongs to."""
    for name in imports(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or room(path) in homes, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "module",
    ["", ".service", ".faces.cli", ".options", ".images", ".catalog", ".settings", ".progress",
     ".faces.api", ".faces.tab", ".batch.folder"],
)
def test_importing_costs_nothing(module):
    """In a fresh process none of the large libraries is loaded by importing."""
    program = (
        f"import sys, {NAME}{module}; "
        "large = {'torch', 'open_clip', 'transformers', 'torchvision'}; "
        "print(sorted(large & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"


def test_public_names_are_there():
    """Every public name can be imported, and another is an AttributeError."""
    import clip_interrogator_ext

    for name in clip_interrogator_ext.__all__:
        assert getattr(clip_interrogator_ext, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clip_interrogator_ext.nonsense  # noqa: B018 - reading it is the test
