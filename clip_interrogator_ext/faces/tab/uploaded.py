"""Boxes into which nothing comes but what was uploaded to the page, or shown by it."""

from __future__ import annotations

import os
from abc import ABCMeta
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import images
from clip_interrogator_ext.errors import BadImage, InterrogatorError
from clip_interrogator_ext.faces.tab import toasts

if TYPE_CHECKING:
    from PIL import Image

_REFUSED = "Only what was uploaded to this page is taken: upload it again."
_GONE = "The picture is not here any more: put it into the box again."


@dataclass(frozen=True)
class Posted:
    """A picture as the page has sent it; nothing of it is decoded before it is asked for.

    `payload` is a data URL under Gradio 3, else what Gradio calls FileData.
    """

    payload: Any

    def open(self) -> Image.Image:
        """Return the picture upright in RGB; raises BadImage."""
        return images.open_image(self._source())

    def whole(self) -> Image.Image:
        """Return the picture with its transparency and its texts; raises BadImage."""
        return images.open_whole(self._source())

    def parameters(self) -> str | None:
        """Return the generation data that the picture carries, or None."""
        try:
            return images.embedded_parameters(self._source())
        except BadImage:
            return None

    def _source(self) -> bytes:
        if isinstance(self.payload, str):
            return images.base64_bytes(self.payload)
        # Given by its bytes, the picture is not called by its place in Gradio's folder.
        try:
            with Path(self.payload.path).open("rb") as file:
                return file.read(images.MAX_BYTES + 1)
        except OSError as error:
            raise BadImage(_GONE) from error


def opened(image: Posted | None) -> Image.Image:
    """Return a box's picture upright in RGB; raises InterrogatorError where there is none."""
    if image is None:
        raise InterrogatorError("Put a picture into the box first.")
    return image.open()


def image(**arguments: Any) -> gr.Image:
    """Return an image box that hands over a Posted, whatever kind of file was put there."""
    return _kind(gr.Image, preprocess=_posted, postprocess=_shown)(**arguments)


def files(**arguments: Any) -> gr.File:
    """Return a box for several files, which hands over pairs: a file's own name, and its path.

    Gradio drops those names, and characters from the names of its copies.
    """
    return _kind(gr.File, preprocess=_named)(file_count="multiple", **arguments)


def close(box: Any) -> None:
    """Let no file come into a box but one that was uploaded to the page, or shown by it.

    Gradio 4 and later look for files in whatever is posted for a box, be it one of texts: they
    fetch addresses, and some copy any file of this machine to where the page can fetch it.
    """
    kind = type(box)
    if getattr(kind, "takes_uploads_only", False):
        return

    async def moved(box: Any, place: Any) -> Any:
        _require_uploaded(box, place)
        return await kind.async_move_resource_to_block_cache(box, place)

    # Not the box is changed but its class: an update may have Gradio make the box anew.
    box.__class__ = _kind(
        kind, takes_uploads_only=True, async_move_resource_to_block_cache=moved
    )


def _kind(kind: Any, **changed: Any) -> Any:
    """Return a kind of component that differs from another in some methods, under its name."""
    # Gradio finds a component's script by the name of its class.
    own = {"__module__": kind.__module__, "__slots__": (), **changed}
    # Its metaclass has new kinds write a file with types beside their modules: it is passed over.
    metaclass = ABCMeta if isinstance(kind, ABCMeta) else type
    return metaclass.__new__(type(kind), kind.__name__, (kind,), own)


def _posted(box: Any, payload: Any) -> Posted | None:
    if payload is None:
        return None
    if not isinstance(payload, str):
        _require_uploaded(box, getattr(payload, "path", None))
    return Posted(payload)


def _shown(box: Any, value: Any) -> Any:
    """Return what Gradio shows a picture by, be it a Posted or any value that it takes itself."""
    if isinstance(value, Posted):
        return value.payload
    shown = gr.Image.postprocess(box, value)
    path = getattr(shown, "path", None)
    if path and not _is_uploaded(box, path):
        # Forge has pictures lie in other folders, and writes their time behind a "?".
        own = path.rpartition("?")[0] or path
        shown.path = gr.processing_utils.save_file_to_cache(own, _folder(box))
    return shown


def _named(box: Any, payload: Any) -> list[tuple[str, Path]]:
    listed = _listed(payload)
    for one in listed:
        if not isinstance(one, dict):
            _require_uploaded(box, one.path)
        elif one.get("is_file"):  # others are sent whole
            _require_uploaded(box, one["name"])
    taken = gr.File.preprocess(box, payload) or ()
    paths = [Path(getattr(one, "name", one)) for one in taken]
    return [
        (_own_name(one) or path.name, path) for one, path in zip(listed, paths, strict=True)
    ]


def _folder(box: Any) -> str:
    """Return the folder that Gradio keeps uploads in."""
    return str(getattr(box, "GRADIO_CACHE", None) or box.DEFAULT_TEMP_DIR)


def _is_uploaded(box: Any, place: Any) -> bool:
    return Path(os.path.realpath(str(place))).is_relative_to(os.path.realpath(_folder(box)))


def _require_uploaded(box: Any, place: Any) -> None:
    if not _is_uploaded(box, place):
        raise toasts.error(_REFUSED)


def _listed(payload: Any) -> Sequence[Any]:
    """Return the files that a page has sent, which Gradio 3 sends as plain dictionaries."""
    return getattr(payload, "root", payload) or ()


def _own_name(file: Any) -> str:
    name = file.get("orig_name") if isinstance(file, dict) else file.orig_name
    return str(name or "")
