"""The page that runs alone belongs to this machine: no other site's page reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from clip_interrogator_ext.origins import OWN_ONLY

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN_NAMES = ("127.0.0.1", "localhost")
_REFUSED_BY_POLICY = 1008  # as websockets say it

# Gradio writes scripts and styles into its page, and makes functions of texts. Gradio 3 and 4 would
# fetch a script from elsewhere, for pages that are embedded in others; nothing here needs it.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
# The page of the routes is FastAPI's own, which has its script from elsewhere.
_DOCS = "/docs"
_POLICY_OF_DOCS = (
    "default-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: "
    "https://fastapi.tiangolo.com; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class OwnOrigin:
    """Refuses what other sites' pages ask, and keeps ours from asking others.

    A page elsewhere can name this machine's address, or have a name of its own lead here; and
    websockets ask for no permission. So Host, Origin and Sec-Fetch-Site are looked at before
    anything else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let pass what this machine's own browser or program asks."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := _objection(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _REFUSED_BY_POLICY})
            else:
                await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)
        else:
            policy = _POLICY_OF_DOCS if scope["path"] == _DOCS else _POLICY
            await self._app(scope, receive, _with_headers(send, policy))


def _objection(scope: Scope) -> str:
    """Return why something is refused, or nothing."""
    headers = Headers(scope=scope)
    if headers.get("host", "").partition(":")[0] not in _OWN_NAMES:
        return f"This page is at {' and '.join(_OWN_NAMES)} only."
    if OWN_ONLY.is_foreign(headers) and not _follows_a_link(scope, headers):
        return "A page of another site asked this, so nothing was done."
    return ""


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Say whether somebody is only led to the page, as by a bookmark or a link."""
    return (
        scope.get("method") == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _with_headers(send: Send, policy: str) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {"Content-Security-Policy": policy, **_HEADERS}
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers
