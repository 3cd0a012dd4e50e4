"""Installs what the engine needs and the WebUI lacks; run by the WebUI at each start.

No version that is installed changes: all of them go to pip as constraints. Whatever goes wrong,
the WebUI starts, and our tab says what is missing.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from clip_interrogator_ext.packages import REQUIREMENTS, is_there

NEEDED = {module: one for module, one in REQUIREMENTS.items() if module != "torch"}
"""What brings each module; torch is the WebUI's own business."""

LONGEST_SECONDS = 900


def missing():
    """Return the requirements of the modules that are not there; imports none of them."""
    return [requirement for module, requirement in NEEDED.items() if not is_there(module)]


def installed():
    """Return a constraint for each installed package."""
    from importlib.metadata import distributions

    lines = set()
    for one in distributions():
        try:
            name, version = one.metadata["Name"], one.version
        except (KeyError, OSError, ValueError):  # what is half removed constrains nothing
            continue
        if name and version:
            lines.add(f"{name}=={version}")
    return sorted(lines)


def install(requirements):
    """Have pip install the requirements; raise OSError or SubprocessError where it can't."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(installed()) + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--prefer-binary",
            "--disable-pip-version-check", "--retries", "1", "--timeout", "10",
            "--constraint", str(constraints), *requirements,
        ]
        if os.environ.get("INDEX_URL"):  # by which the WebUI's users name a mirror
            command += ["--index-url", os.environ["INDEX_URL"]]
        subprocess.run(  # noqa: S603 - pip, with requirements of our own
            command, check=True, timeout=LONGEST_SECONDS, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )


def main():
    """Install what is missing; say one sentence about it, or nothing where nothing is."""
    requirements = missing()
    if not requirements:
        return
    names = ", ".join(requirements)
    try:
        install(requirements)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [""]
        print(f"Interrogator: {names} could not be installed ({said[-1]}).")  # noqa: T201
    else:
        print(f"Interrogator: installed {names}.")  # noqa: T201 - the WebUI shows it


if __name__ == "__main__":
    main()
