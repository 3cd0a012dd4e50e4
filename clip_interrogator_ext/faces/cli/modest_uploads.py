"""The page that runs alone takes no more at once than it can use, or than there is room for."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from clip_interrogator_ext.faces.api.body import MAX_BODY_BYTES, said_bytes
from clip_interrogator_ext.images import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD_BYTES = 16 * MAX_BYTES
"""Of all files together that are put into a box at once."""

_OWN_LIMITS = "/interrogator/"  # of the routes, which answer in JSON
_SPARE_BYTES = 16 << 20


class ModestUploads:
    """Refuses what is too much before it is read, and breaks off what turns out to be.

    Gradio would write whatever comes to the disk; and not all of its versions have a limit.
    `folder` is where it keeps uploads; halves of broken ones don't stay there.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder
        self._uploading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request of a modest size."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN_LIMITS):
            await self._app(scope, receive, send)
        elif scope["path"].endswith("/upload"):
            await self._upload(scope, receive, send)
        else:
            refusal = _too_much(MAX_BODY_BYTES, "send less")
            await self._limited(MAX_BODY_BYTES, refusal, scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._folder.is_dir():
            await _no_folder()(scope, receive, send)
            return
        free = _free_bytes(self._folder)
        limit, refusal = free - _SPARE_BYTES, _no_room(free)
        if limit > MAX_UPLOAD_BYTES:
            limit = MAX_UPLOAD_BYTES
            refusal = _too_much(limit, "put fewer files into the box, or name their folder")
        self._uploading += 1
        try:
            await self._limited(limit, refusal, scope, receive, send)
        finally:
            self._uploading -= 1
            if not self._uploading:
                self._clear_halves()

    async def _limited(
        self, limit: int, refusal: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if said_bytes(Headers(scope=scope)) > limit:
            await refusal(scope, receive, send)
            return
        counted = _Counted(receive, send, limit)
        try:
            await self._app(scope, counted.receive, counted.send)
        except Exception:  # of any kind, from the body that was broken off
            if not counted.exceeded:
                raise
        if counted.exceeded and not counted.begun:
            await refusal(scope, receive, send)

    def _clear_halves(self) -> None:
        # What has come as a whole lies in folders.
        for half in self._folder.glob(tempfile.gettempprefix() + "*"):
            if half.is_file():
                with contextlib.suppress(OSError):
                    half.unlink()


class _Counted:
    """A request whose body ends, as if whoever sends it had gone, once too much has come."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._left = limit
        self.begun = False

    @property
    def exceeded(self) -> bool:
        return self._left < 0

    async def receive(self) -> Message:
        if self.exceeded:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.exceeded else message

    async def send(self, message: Message) -> None:
        if self.exceeded and not self.begun:
            return  # what is made of half a body is no answer
        self.begun = True
        await self._send(message)


def _too_much(limit: int, remedy: str) -> Response:
    return PlainTextResponse(f"This is more than {limit >> 20:,} MiB: {remedy}.\n", 413)


def _no_room(free: int) -> Response:
    return PlainTextResponse(
        f"There is no room for this: {free >> 20:,} MiB are free in the temporary folder. Make "
        "room on the disk, then upload again.\n", 507,
    )


def _no_folder() -> Response:
    return PlainTextResponse(
        "The folder of uploads is gone: something has cleared the temporary folder. Start the "
        "page again.\n", 507,
    )


def _free_bytes(folder: Path) -> int:
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total else MAX_UPLOAD_BYTES + _SPARE_BYTES + 1
