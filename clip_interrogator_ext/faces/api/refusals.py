"""Errors, all in one JSON shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse

from clip_interrogator_ext.errors import (
    BadImage,
    BadOption,
    BadWordList,
    InterrogatorError,
    Interrupted,
    MissingModel,
    NotAllowed,
    OutOfMemory,
    QueueFull,
    TooLarge,
    UnknownModel,
)

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError

QUEUE_RETRY_SECONDS, MEMORY_RETRY_SECONDS, MODEL_RETRY_SECONDS = 5, 10, 60

# The first that fits; all others of the family are for whoever runs the server: 500.
_STATUS: tuple[tuple[type[InterrogatorError], int, int | None], ...] = (
    (TooLarge, 413, None),
    (BadImage, 422, None),
    (BadOption, 422, None),
    (BadWordList, 422, None),
    (UnknownModel, 404, None),
    (NotAllowed, 403, None),
    (MissingModel, 503, MODEL_RETRY_SECONDS),
    (OutOfMemory, 503, MEMORY_RETRY_SECONDS),
    (QueueFull, 503, QUEUE_RETRY_SECONDS),
    # Not 200: an old client would take the empty text for a prompt.
    (Interrupted, 409, None),
)
_FIELDS = {
    "backbones": "clip_model_name", "beams": "caption_beams", "min_length": "caption_min_length",
    "max_length": "caption_max_length",
}
# What a field must be, by a piece of pydantic's name for the error, in version 1 or 2.
_MUST_BE = (
    ("bool", "must be true or false"),
    ("list", "must be a list of texts"),
    ("int", "must be a whole number"),
    ("str", "must be a text"),
    ("missing", "is missing"),
    ("none", "must not be null"),
)
# What a field must be that is more than a list of texts, wherever in it the fault is.
_SHAPES = {
    "replacements": "must be an object of texts: the old words and their new ones",
    "beside": "must be a list of lists of names",
}


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        error: str,
        detail: str,
        field: str | None = None,
        nearest: Sequence[str] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.field = field
        self.nearest = nearest
        self.headers = headers

    def response(self) -> JSONResponse:
        """Return what is sent."""
        answer = {
            "error": self.error, "detail": str(self), "field": self.field,
            "nearest": list(self.nearest),
        }
        return JSONResponse(answer, self.status, self.headers)


def refusal_of(error: InterrogatorError, content: dict[str, Any]) -> Refusal:
    """Say an error of the engine's in the words of the request."""
    status, retry = next(
        ((status, retry) for kind, status, retry in _STATUS if isinstance(error, kind)),
        (500, None),
    )
    at_fault: str | None = None
    if isinstance(error, BadImage):
        at_fault = "image"
    elif isinstance(error, BadOption):
        at_fault = _FIELDS.get(error.field, error.field)
        if at_fault == "clip_model_name" and content.get("clip_model_names") is not None:
            at_fault = "clip_model_names"
    nearest = error.nearest if isinstance(error, UnknownModel) else ()
    headers = {"Retry-After": str(retry)} if retry else None
    return Refusal(status, type(error).__name__, str(error), at_fault, nearest, headers)


def misfit(error: RequestValidationError) -> Refusal:
    """Say in a sentence which field of a request is not of its type."""
    first = error.errors()[0]
    place = [step for step in first["loc"] if step != "body"]
    if not place:
        return bad_request("The body must be a JSON object.")
    at_fault, kind = str(place[0]), str(first["type"])
    must = next((words for piece, words in _MUST_BE if piece in kind), f"is wrong: {first['msg']}")
    if len(place) > 1:
        must = "must be a list of texts"
    if "missing" not in kind:
        must = _SHAPES.get(at_fault, must)
    name = "BadImage" if at_fault == "image" else "BadOption"
    return Refusal(422, name, f"The field {at_fault!r} {must}.", at_fault)


def bad_request(detail: str) -> Refusal:
    """Refuse a body that can't be read."""
    return Refusal(422, "BadRequest", detail)
