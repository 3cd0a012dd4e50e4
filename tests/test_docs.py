"""What the documents say of names and commands is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clip_interrogator_ext import catalog
from clip_interrogator_ext.faces import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]


def test_every_mode_has_its_row_in_the_readme():
    """With what the catalog says of it and an output."""
    for mode, words in catalog.MODES.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{mode}` |"))
        assert words in row
        assert len(row.split("|")[3].strip()) > 20


# Options of programs other than ours that the README speaks of.
OTHERS = {
    "--webui", "--checkpoints",  # of pytest, in conftest.py
    "--api-auth", "--clip-models-path", "--enable-insecure-extension-access", "--gradio-auth",
    "--hide-ui-dir-config", "--nowebui",
}


@pytest.mark.parametrize("option", sorted(set(re.findall(r"(?<!\w)--[a-z][a-z-]+", README))))
def test_every_option_in_the_readme_exists(option):
    """Some command of the command line has it."""
    parser = cli._parser()
    commands = parser._subparsers._group_actions[0].choices.values()
    known = {flag for command in commands for a in command._actions for flag in a.option_strings}
    assert option in known | OTHERS


def test_every_route_has_its_heading():
    """Routes in docs/api.md, each under a heading of its own."""
    from fastapi import FastAPI

    from clip_interrogator_ext.faces.api import add_routes
    from clip_interrogator_ext.service import Service

    app = FastAPI()
    add_routes(app, Service())
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    paths = app.openapi()["paths"]
    routes = [f"{method.upper()} {path}" for path in paths for method in paths[path]]
    assert len(routes) >= 9
    for route in routes:
        assert f"\n### {route}\n" in api, route


def test_every_command_is_in_the_readme():
    """Each command of the command line is shown."""
    for command in cli._parser()._subparsers._group_actions[0].choices:
        assert f"clip-interrogator-ext {command}" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_tests_named_in_documents_exist(document):
    """Every relative link leads to a file, and every test named is there."""
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)\)", text):
        assert (document.parent / target).exists(), target
    for file, name in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text):
        content = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in content, name


def test_the_architecture_names_every_room():
    """Each module of the package stands in the drawing, and nothing that is not there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = text.split("```")[1]
    package = ROOT / "clip_interrogator_ext"
    for path in package.rglob("*.py"):
        if path.name != "__init__.py" or path.parent == package:
            assert path.name in drawing, path
    for name in re.findall(r"\b\w+\.py\b", drawing):
        assert list(package.rglob(name)) or (ROOT / name).is_file(), name


def test_an_installed_package_has_its_lists_and_models(tmp_path):
    """A wheel built from here holds the word lists and the demo models, and runs without us."""
    source = tmp_path / "source"  # building writes into the folder that it builds from
    for part in ("clip_interrogator_ext", "data", "javascript"):
        # Other tests may be writing there.
        shutil.copytree(
            ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    for part in ("pyproject.toml", "README.md", "LICENSE", "style.css"):
        shutil.copy(ROOT / part, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
             "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        shared = {name.partition("/share/")[2] for name in archive.namelist()}
        assert {"clip-interrogator-ext/style.css",
                "clip-interrogator-ext/javascript/cliext.js"} <= shared
    picture = next((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())
    answer = subprocess.run(
        [sys.executable, "-m", "clip_interrogator_ext", "prompt", "--demo", "--mode", "caption",
         str(picture)],
        check=True, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert len(answer.stdout.split()) > 3
    listed = subprocess.run(
        [sys.executable, "-m", "clip_interrogator_ext", "lists"], check=True, capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert str(tmp_path / "site") in listed.stdout
    assert "flavors" in listed.stdout
