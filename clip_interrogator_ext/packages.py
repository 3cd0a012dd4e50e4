"""The packages that the engine needs, and what to do where one of them does not work."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec

from clip_interrogator_ext.errors import BrokenPackage, InterrogatorError

REQUIREMENTS = {
    "torch": "torch>=2.1.2",
    "open_clip": "open_clip_torch>=2.20.0",
    "transformers": "transformers>=4.30.2",
    "safetensors": "safetensors>=0.4.2",
    "PIL": "Pillow>=9.5.0",
    "numpy": "numpy>=1.24",
    "tqdm": "tqdm>=4.60",
    "yaml": "PyYAML>=5.4",
}
"""What is to be installed for each module that the engine imports, as pyproject.toml has it."""

BROUGHT_ALONG = {
    "torchvision": "torchvision",
    "huggingface_hub": "huggingface_hub>=0.22",
    "gradio": "gradio>=3.41.2",
}
"""What comes with those, or with the program around the engine."""

FOUNDATIONS = ("numpy", "torch", "safetensors", "huggingface_hub")
"""The modules that the networks and the search import when they are imported."""

_ALL = {**REQUIREMENTS, **BROUGHT_ALONG}
_fitting: set[str] = set()  # whose versions were looked at


def is_there(module: str) -> bool:
    """Say whether a module can be found; it is not imported.

    A folder without a module's own file, as a removal leaves it behind, counts as none.
    """
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # half removed, or put in place of the real one
        return False
    return spec is not None and spec.origin is not None


def lacking() -> list[str]:
    """Return the requirements of the modules that can't be found."""
    return [requirement for module, requirement in _ALL.items() if not is_there(module)]


def outdated() -> list[str]:
    """Return a sentence for each package that is older than what is needed."""
    return [one for one in map(_too_old, _ALL) if one]


def how_to_install(requirements: Sequence[str]) -> str:
    """Return the sentence that says how packages come into this Python, whose torch stays."""
    wanted = [*requirements]
    if (torch := _version("torch")) and not any(_name(one) == "torch" for one in wanted):
        wanted.append(f"torch=={torch}")  # or torchvision would bring another
    return _order(" ".join(f'"{one}"' if ">" in one else one for one in wanted))


def require(*modules: str) -> None:
    """Import modules; raise BrokenPackage for the first that can't be."""
    for module in modules:
        with needed(module):
            import_module(module)


@contextmanager
def needed(module: str) -> Iterator[None]:
    """Import a module, or take something from one that imports lazily, inside of this.

    Whatever it raises then becomes a BrokenPackage: a package that does not fit those it builds
    on fails with any kind of error. One that is too old is refused, for it would fail later in
    ways that nobody can read.
    """
    try:
        yield
        if module not in _fitting:
            if old := _too_old(module):
                raise BrokenPackage(old)
            _fitting.add(module)
    except InterrogatorError:
        raise
    except Exception as error:
        raise BrokenPackage(_reason(module, error)) from error


def _reason(module: str, error: Exception) -> str:
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent in _ALL and not is_there(absent):
        return f"{_name(_ALL[absent])} is missing. {how_to_install([_ALL[absent]])}"
    if old := outdated():
        return old[0]
    name = _name(_ALL[_imported_last(error) or module])
    version = _version(name)
    first = _first(error)
    said = next(filter(None, map(str.strip, str(first).splitlines())), "").rstrip(".:")
    same, shown = (f"{name}=={version}", f"{name} {version}") if version else (name, name)
    fails = f"{shown} does not work here ({type(first).__name__}: {said})."
    if isinstance(first, ModuleNotFoundError) and not is_there(str(first.name).partition(".")[0]):
        return f"{fails} It lacks a package that it builds on. {how_to_install([same])}"
    return (
        f"{fails} It is damaged, or does not fit a package that it builds on. "
        f"{_order(f'--force-reinstall --no-deps {same}')}"
    )


def _order(arguments: str) -> str:
    command = f'"{sys.executable}" -m pip install {arguments}'
    return f"Stop this program, run {command}, and start it again."


def _first(error: BaseException) -> BaseException:
    """Return what an error comes from, which transformers only points at in its own sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _imported_last(error: Exception) -> str | None:
    """Return which module, of those that are needed, was being imported when it failed."""
    cause: BaseException | None = error
    last = None
    while cause is not None:
        for frame, _line in traceback.walk_tb(cause.__traceback__):
            top = str(frame.f_globals.get("__name__")).partition(".")[0]
            if frame.f_code.co_name == "<module>" and top in _ALL:
                last = top
        cause = cause.__cause__
    return last


def _too_old(module: str) -> str | None:
    name, _, least = _ALL[module].partition(">=")
    version = _version(name)
    if not least or version is None or _numbers(version) >= _numbers(least):
        return None
    return (
        f"{name} {version} is installed, and at least {least} is needed. "
        f"{how_to_install([_ALL[module]])}"
    )


def _name(requirement: str) -> str:
    return requirement.partition(">=")[0]


def _version(name: str) -> str | None:
    """Return which version of a package is installed, or None where nobody wrote it down."""
    try:
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError):
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))
