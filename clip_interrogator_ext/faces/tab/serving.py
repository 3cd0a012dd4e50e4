"""Files to be downloaded, laid where every Gradio serves them from: below the temporary folder."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path


class Served:
    """A folder that goes with the program."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, secret: str, name: str, fill: Callable[[Path], object]) -> Path:
        """Return the place of a file that `fill` has written there.

        Gradio 3 serves it to whoever knows its path: so nothing but the secret leads to it.
        """
        # Some systems clear what is old in the temporary folder.
        if self._folder is None or not Path(self._folder.name).is_dir():
            self._folder = tempfile.TemporaryDirectory(prefix="cliext-")
        place = Path(self._folder.name, hashlib.sha256(secret.encode()).hexdigest()[:32], name)
        place.parent.mkdir(exist_ok=True)
        fill(place)
        return place
