"""install.py: quick, quiet, offline-safe, and never in the way of the host's pins."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.hosts

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "install.py"


@pytest.fixture
def script():
    """install.py as a module."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pip(monkeypatch):
    """A pip that only remembers what it was asked, and which constraints it was given."""
    asked = []

    def run(command, **_arguments):
        constraints = Path(command[command.index("--constraint") + 1])
        asked.append((command, constraints.read_text(encoding="utf-8").splitlines()))

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_where_nothing_is_missing_nothing_is_said_or_imported():
    program = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__'); "
        "print(sorted({'torch', 'open_clip', 'transformers', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, SCRIPT], capture_output=True, text=True, check=True
    )
    assert (answer.stdout.strip(), answer.stderr) == ("[]", "")


def test_only_what_is_missing_is_asked_for(script, pip, monkeypatch, capsys):
    """Everything that is installed is a constraint, so no version moves."""
    monkeypatch.setitem(script.NEEDED, "no_such_module", "no-such-package>=1")
    script.main()
    [(command, constraints)] = pip
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert [word for word in command if ">=" in word] == ["no-such-package>=1"]
    assert "--timeout" in command and "--retries" in command
    for name in ("torch", "transformers"):
        assert f"{name}=={metadata.version(name)}" in constraints
    assert capsys.readouterr().out == "Interrogator: installed no-such-package>=1.\n"


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(1, "pip", stderr="first\nno network\n"),
        subprocess.TimeoutExpired("pip", 1),
        OSError("no pip"),
    ],
)
def test_a_failure_is_one_sentence(script, monkeypatch, capsys, error):
    def fail(*_command, **_arguments):
        raise error

    monkeypatch.setitem(script.NEEDED, "no_such_module", "no-such-package")
    monkeypatch.setattr(subprocess, "run", fail)
    script.main()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "no-such-package could not be installed" in said


def test_a_mirror_is_used(script, pip, monkeypatch):
    monkeypatch.setitem(script.NEEDED, "no_such_module", "no-such-package")
    monkeypatch.setenv("INDEX_URL", "https://mirror.example/simple")
    script.main()
    assert pip[0][0][-2:] == ["--index-url", "https://mirror.example/simple"]


def test_requirements_are_those_of_the_package(script):
    """One truth: pyproject.toml's, but for torch, which is the WebUI's own."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL).group(1)
    requirements = set(re.findall(r'"([^"]+)"', listed))
    assert set(script.NEEDED.values()) == {
        one for one in requirements if not one.startswith("torch>")
    }
