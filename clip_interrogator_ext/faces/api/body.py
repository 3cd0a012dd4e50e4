"""Reading a request's body safely, before FastAPI sees it."""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from clip_interrogator_ext.faces.api.refusals import Refusal, bad_request
from clip_interrogator_ext.images import MAX_BYTES

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Scope

    from clip_interrogator_ext.faces.api.handlers import Api
    from clip_interrogator_ext.faces.api.turnstile import Place

MAX_BODY_BYTES = MAX_BYTES // 3 * 4 + 16 * 2**20  # base64 with line breaks, and the other fields
MAX_CHARACTERS = 4_000  # of each text but the picture
MAX_VALUES = 10_000
_MOST_MARKS = 100_000  # commas and brackets, those in texts too
_MOST_DIGITS = 20
_QUICK_BYTES = 2**20


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


def said_bytes(headers: Headers) -> int:
    """Return how long a body is to be, as its sender says; 0 where that is not said."""
    said = headers.get("content-length", "")
    return int(said[:20]) if said.isdecimal() else 0


async def read_content(request: Request, *, must_say_json: bool = False) -> dict[str, Any]:
    """Read a body, as much as may be, and parse it; an empty one is an empty object.

    `must_say_json` refuses what does not say that it is JSON, whoever sends it.
    """
    too_large = Refusal(
        413, "TooLarge", f"The request has more than {MAX_BODY_BYTES // 2**20} MiB.", "image"
    )
    if said_bytes(request.headers) > MAX_BODY_BYTES:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    if not size:
        return {}
    if not _says_json(request, must=must_say_json):
        raise bad_request("Send JSON, with the header Content-Type: application/json.")
    body = b"".join(chunks)
    chunks.clear()
    # The server answers nobody else while it parses a large one itself.
    return _parsed(body) if size < _QUICK_BYTES else await run_in_threadpool(_parsed, body)


def _says_json(request: Request, *, must: bool) -> bool:
    kind = request.headers.get("content-type")
    if kind is None:
        return not must  # scripts may leave it out
    message = Message()
    message["content-type"] = kind
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )


def _parsed(body: bytes) -> dict[str, Any]:
    # Parsed, an empty list takes thirty times its two bytes: what is many is not parsed at all.
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_MARKS:
        raise _too_many_values()
    try:
        content = json.loads(
            body.decode("utf-8-sig"), parse_constant=_no_number, parse_int=_whole_number,
            object_pairs_hook=_object,
        )
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
    _require_modest(content)
    return content


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _whole_number(digits: str) -> int:
    # Older Pythons take hours for millions of digits.
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise bad_request(f"A number in the body has more than {_MOST_DIGITS} digits.")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise bad_request("A field is there twice: which of the two is meant?")
    return made


def _require_modest(content: dict[str, Any]) -> None:
    """Refuse long texts but for the picture, and many values, before anything looks at them."""
    count = 0
    for field, given in content.items():
        waiting = [field] if field == "image" and isinstance(given, str) else [field, given]
        while waiting:
            value = waiting.pop()
            count += 1
            if count > MAX_VALUES:
                raise _too_many_values()
            if isinstance(value, str) and len(value) > MAX_CHARACTERS:
                raise Refusal(
                    413, "TooLarge",
                    f"A text that is no picture has more than {MAX_CHARACTERS:,} characters.",
                    None if value is field else field,
                )
            if isinstance(value, dict):
                waiting += [*value, *value.values()]
            elif isinstance(value, list):
                waiting += value


def _too_many_values() -> Refusal:
    return Refusal(
        413, "TooLarge",
        f"A request has at most {MAX_VALUES:,} values, and {_MOST_MARKS:,} commas and brackets.",
    )


def as_json(scope: Scope) -> Scope:
    """Return the scope of a request whose body is known to be JSON."""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}
