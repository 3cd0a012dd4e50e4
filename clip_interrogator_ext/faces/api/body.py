"""Reading a request's body safely, before FastAPI sees it."""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import Request

from clip_interrogator_ext.faces.api.refusals import Refusal, bad_request
from clip_interrogator_ext.images import MAX_BYTES

if TYPE_CHECKING:
    from starlette.types import Scope

    from clip_interrogator_ext.faces.api.handlers import Api
    from clip_interrogator_ext.faces.api.turnstile import Place

MAX_BODY_BYTES = MAX_BYTES // 3 * 4 + 16 * 2**20  # base64 with line breaks, and the other fields


class ReadRequest(Request):
    """A request whose body has been read and parsed, and which has its place in the line."""

    api: Api
    content: dict[str, Any]
    place: Place

    async def body(self) -> bytes:
        """Say that there is a body; its bytes are not kept while the request waits."""
        return b"{}"

    async def json(self) -> Any:
        """Return the parsed body."""
        return self.content


async def read_content(request: Request, *, must_say_json: bool = False) -> dict[str, Any]:
    """Read a body, as much as may be, and parse it; an empty one is an empty object.

    `must_say_json` refuses what does not say that it is JSON, whoever sends it.
    """
    too_large = Refusal(
        413, "TooLarge", f"The request has more than {MAX_BODY_BYTES // 2**20} MiB.", "image"
    )
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > MAX_BODY_BYTES:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    if not size and not _is_from_elsewhere(request):
        return {}
    if not _says_json(request, must=must_say_json or not size):
        raise bad_request("Send JSON, with the header Content-Type: application/json.")
    if not size:
        return {}
    return _parsed(b"".join(chunks))


def _is_from_elsewhere(request: Request) -> bool:
    """Say whether a browser sends this for a page of another site."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def _says_json(request: Request, *, must: bool) -> bool:
    kind = request.headers.get("content-type")
    if kind is None:
        # Scripts may leave it out. A page from elsewhere must not: browsers ask the server
        # before they send JSON to it, and don't before they send something without a type.
        return not must and "origin" not in request.headers
    message = Message()
    message["content-type"] = kind
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )


def _parsed(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        content = json.loads(body.decode("utf-8-sig"), parse_constant=refuse)
        if re.search(rb"\\u[dD][89a-fA-F]", body):
            # Half a character can be written in JSON, but never be encoded again.
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise bad_request("The body is not in UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not valid JSON.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise bad_request("The body must be a JSON object.")
    return content


def as_json(scope: Scope) -> Scope:
    """Return the scope of a request whose body is known to be JSON."""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}
