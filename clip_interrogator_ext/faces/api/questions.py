"""From a request that has been read to a question whose turn it is."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Depends

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch.options import BatchOptions
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.faces.api.body import ReadRequest  # noqa: TC001 - FastAPI looks it up
from clip_interrogator_ext.faces.api.messages import (
    MAX_TEXTS,
    MAX_TOP,
    AnalyzeRequest,
    BatchRequest,
    ModelsRequest,
    PictureRequest,
    PromptRequest,
    QuestionRequest,
    SimilarityRequest,
)
from clip_interrogator_ext.images import decode_base64
from clip_interrogator_ext.options import (
    InterrogateOptions,
    ModelOptions,
    interrogate_options,
    model_options,
)

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.faces.api.turnstile import Place

_NULLABLE = {"max_flavors", "token_budget"}  # null leaves them to the mode, or to the backbone

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Question:
    """A request that was found right: the picture opened, the options built."""

    image: Image.Image
    models: ModelOptions
    place: Place
    options: InterrogateOptions = field(default_factory=InterrogateOptions)
    top: int = 5
    categories: tuple[str, ...] | None = None
    texts: tuple[str, ...] = ()
    escape: bool = False

    @property
    def task(self) -> str:
        """The run's name."""
        return self.place.task

    @property
    def demo(self) -> bool:
        """Whether the demo model looks at the picture."""
        return catalog.DEMO in self.models.backbones


def _in_turn(read: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return a dependency that waits, on no thread, when the request has been found right.

    It asks for the question instead of standing beside it, because FastAPI goes on to the
    next dependency after a field that does not fit.
    """
    found_right = Depends(read)

    async def wait(request: ReadRequest, question: Any = found_right) -> Any:
        await request.api.turnstile.turn(request.place, request.receive)
        return question

    return wait


def _read_nothing(request: ReadRequest) -> None:
    _name(request.place, "unload")


def _read_prompt(request: ReadRequest, asked: PromptRequest) -> Question:
    options = _options(request, asked)
    return _question(request, asked, "interrogate", options=options, escape=asked.escape)


def _read_analyze(request: ReadRequest, asked: AnalyzeRequest) -> Question:
    if not 1 <= asked.top <= MAX_TOP:
        raise BadOption("top", f"Top must be from 1 to {MAX_TOP}, not {asked.top}.")
    names = _names(asked.categories)
    if names is not None and not names:
        raise BadOption("categories", "Name at least one category of phrases.")
    return _question(request, asked, "analyze", top=asked.top, categories=names)


def _read_similarity(request: ReadRequest, asked: SimilarityRequest) -> Question:
    if not 1 <= len(asked.texts) <= MAX_TEXTS:
        raise BadOption("texts", f"Send from 1 to {MAX_TEXTS} texts, not {len(asked.texts)}.")
    return _question(request, asked, "similarity", texts=tuple(asked.texts))


def _question(request: ReadRequest, asked: PictureRequest, kind: str, **more: Any) -> Question:
    """Build the options first and open the picture last, which takes longest."""
    _name(request.place, kind, asked.task)
    models = _models(request, asked)
    return Question(decode_base64(asked.image), models, request.place, **more)


def _read_batch(request: ReadRequest, asked: BatchRequest) -> BatchOptions:
    return BatchOptions(
        input=asked.input,
        recursive=asked.recursive,
        form=asked.form,
        output=asked.output,
        existing=asked.existing,
        name=asked.name,
        caption_from=asked.caption_from,
        wording=Wording(
            prefix=asked.prefix,
            suffix=asked.suffix,
            trigger=asked.trigger,
        ),
        asked=_options(request, asked),
        models=_models(request, asked),
        beside=tuple(map(tuple, asked.beside)),
    )


def _options(request: ReadRequest, asked: QuestionRequest) -> InterrogateOptions:
    return interrogate_options(
        _values(request, asked),
        mode=asked.mode,
        negative=asked.negative,
        caption=asked.caption,
        subject=asked.subject,
        categories=_names(asked.categories),
    )


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(given)


def _models(request: ReadRequest, asked: ModelsRequest) -> ModelOptions:
    names = asked.clip_model_names
    # Where no captioner can be named it is the setting's, so that it stays loaded.
    return model_options(
        _values(request, asked), (asked.clip_model_name,) if names is None else tuple(names)
    )


def _values(request: ReadRequest, asked: ModelsRequest) -> Callable[[str], Any]:
    """Return what looks a field up: what was given, else what the settings say.

    Where null means something of its own, it can be given; elsewhere it is as if it were not.
    """

    def value(key: str) -> Any:
        given = getattr(asked, key, None)
        free = key in _NULLABLE and key in request.content
        return given if given is not None or free else request.api.setting(key)

    return value


def _name(place: Place, kind: str, task: str | None = None) -> None:
    place.kind, place.task = kind, task or f"api-{next(_numbers)}"


PROMPT = Depends(_in_turn(_read_prompt))
ANALYZE = Depends(_in_turn(_read_analyze))
SIMILARITY = Depends(_in_turn(_read_similarity))
NOTHING = Depends(_in_turn(_read_nothing))
BATCH = Depends(_read_batch)  # which waits in a line of its own
