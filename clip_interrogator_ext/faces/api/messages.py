"""What is asked and what is answered, as pydantic's models."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch.options import EXISTING, BatchOptions
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.settings import SETTINGS

MAX_TEXTS = 1000
MAX_TOP = 1000

_PYDANTIC_1 = pydantic.VERSION.startswith("1.")


def _of_setting(key: str) -> Any:
    """Return a field that a setting stands behind."""
    setting = SETTINGS[key]
    shown = "" if setting.default is None else f" ({setting.default} at first)"
    limits = {"minimum": setting.minimum, "maximum": setting.maximum}
    return _field(
        None, f"{setting.help} Not given: what the settings say{shown}.",
        **{name: limit for name, limit in limits.items() if limit is not None},
    )


def _field(default: Any, description: str, **schema: Any) -> Any:
    """Return a field whose limits stand in its schema only.

    The options check themselves, in the same sentences everywhere.
    """
    extra: dict[str, Any] = schema if _PYDANTIC_1 else {"json_schema_extra": schema}
    return Field(default, description=description, **extra)


class _Image(BaseModel):
    image: StrictStr = _field(..., "The picture in base64, or as a data URL.")


class ModelsRequest(BaseModel):
    """Which networks answer."""

    clip_model_name: StrictStr = _field(catalog.DEFAULT_BACKBONE, SETTINGS["clip"].help)
    clip_model_names: list[StrictStr] | None = _field(
        None, "Several CLIP backbones that judge together, in place of the one.", minItems=1
    )
    chunk_size: StrictInt | None = _of_setting("chunk_size")
    low_memory: StrictBool | None = _of_setting("low_memory")


class PictureRequest(ModelsRequest, _Image):
    """A picture, and the networks that look at it."""

    task: StrictStr | None = _field(
        None, "A name by which status and interrupt follow this run."
    )


class QuestionRequest(ModelsRequest):
    """What is asked about a picture, and which networks answer."""

    mode: StrictStr = _field("fast", SETTINGS["mode"].help, enum=list(catalog.MODES))
    negative: StrictBool = _field(False, "Find the negative prompt as well.")
    captioner: StrictStr | None = _of_setting("captioner")
    caption: StrictStr | None = _field(None, "This caption instead of a captioner's.")
    subject: StrictStr | None = _field(
        None, "What stands in front, in the mode style only."
    )
    vocabulary: StrictStr | None = _of_setting("vocabulary")
    categories: list[StrictStr] | None = _field(
        None,
        "Only these word lists, or parts of them such as flavors/light, in place of those of the "
        "set; in the negative prompt too.",
    )
    leave_out: list[StrictStr] | None = _of_setting("leave_out")
    replacements: dict[StrictStr, StrictStr] | None = _of_setting("replacements")
    pool_size: StrictInt | None = _of_setting("pool_size")
    min_flavors: StrictInt | None = _of_setting("min_flavors")
    max_flavors: StrictInt | None = _of_setting("max_flavors")
    token_budget: StrictInt | None = _of_setting("token_budget")
    caption_beams: StrictInt | None = _of_setting("caption_beams")
    caption_min_length: StrictInt | None = _of_setting("caption_min_length")
    caption_max_length: StrictInt | None = _of_setting("caption_max_length")


class PromptRequest(QuestionRequest, PictureRequest):
    """What is asked about a picture's prompt."""

    escape: StrictBool = _field(
        False,
        r"Write brackets of phrases and captions as \( \) \[ \], which the WebUI's "
        "prompt syntax takes for plain brackets.",
    )


class AnalyzeRequest(PictureRequest):
    """What is asked about a picture's nearest phrases."""

    top: StrictInt = _field(5, "How many phrases of each category.", minimum=1, maximum=MAX_TOP)
    categories: list[StrictStr] | None = _field(
        None,
        "These word lists, or parts of them such as flavors/light, in place of the usual ones.",
        minItems=1,
    )


class SimilarityRequest(PictureRequest):
    """Texts to be compared with a picture."""

    texts: list[StrictStr] = _field(
        ..., f"From 1 to {MAX_TEXTS} texts.", minItems=1, maxItems=MAX_TEXTS
    )


class InterruptRequest(BaseModel):
    """Which run is to stop."""

    task: StrictStr | None = _field(None, "Its name; not given: all of them.")


class _Files(BaseModel):
    input: StrictStr = _field(
        ...,
        "The pictures: a folder, a pattern such as /data/photos/**/*.png, or a text file that "
        "lists them, on the server.",
    )
    recursive: StrictBool = _field(BatchOptions.recursive, "The folder's sub-folders too.")
    form: StrictStr = _field(
        BatchOptions.form,
        "; ".join(f"{name}: {writer.why}" for name, writer in WRITERS.items()) + ".",
        enum=list(WRITERS),
    )
    output: StrictStr | None = _field(
        None,
        "For the form txt a folder, where the tree is kept, and not given beside each picture. "
        "For the others a file or a folder, and not given the folder of the pictures.",
    )
    existing: StrictStr = _field(
        BatchOptions.existing,
        "Where a picture has a text: "
        + "; ".join(f"{name}: {why}" for name, why in EXISTING.items()) + ".",
        enum=list(EXISTING),
    )
    name: StrictStr = _field(
        BatchOptions.name,
        "The name of text files; {stem} is the picture's without its ending, {name} with it.",
    )
    caption_from: StrictStr | None = _field(
        None,
        "A file beside each picture whose text is its caption, such as {stem}.caption; where "
        "there is none the captioner is asked.",
    )
    prefix: StrictStr = _field(Wording.prefix, "What stands before each prompt.")
    suffix: StrictStr = _field(Wording.suffix, "What stands behind each prompt.")
    trigger: StrictStr = _field(Wording.trigger, "The first word of each text, once.")
    beside: list[list[StrictStr]] = _field(
        [], "More sets of backbones, each of which gives a prompt of its own, side by side."
    )


class BatchRequest(QuestionRequest, _Files):
    """Which pictures, what is asked about each, and how the answers are written."""


class PartAnswer(BaseModel):
    """One phrase: its own similarity, and what the prompt gains by it."""

    phrase: str
    category: str
    similarity: float | None
    gain: float | None


class OneAnswer(BaseModel):
    """A prompt, and what is known of it."""

    prompt: str
    mode: str
    caption: str
    tokens: int
    similarity: float | None
    seconds: float | None
    parts: list[PartAnswer]
    demo: bool
    interrupted: bool


class PromptAnswer(OneAnswer):
    """A prompt; `negative_prompt` and `negative` where they were asked for."""

    negative_prompt: str | None
    negative: OneAnswer | None


class AnalyzeAnswer(BaseModel):
    """The nearest phrases of each category with their similarities, nearest first."""

    medium: dict[str, float | None]
    artist: dict[str, float | None]
    movement: dict[str, float | None]
    trending: dict[str, float | None]
    flavor: dict[str, float | None]
    categories: dict[str, dict[str, float | None]]
    seconds: float | None
    demo: bool


class TextAnswer(BaseModel):
    """A text and its similarity to the picture."""

    text: str
    similarity: float | None


class SimilarityAnswer(BaseModel):
    """Each text's similarity, in the order given."""

    similarities: list[TextAnswer]
    seconds: float | None
    demo: bool


class PlaceAnswer(BaseModel):
    """Where a model is on the server; `path` is null for whoever may not know it."""

    path: str | None
    size_bytes: int


class ModelAnswer(BaseModel):
    """A model worth recommending; `place` is null where it has not been downloaded."""

    name: str
    suits: str | None
    why: str
    parameters: int
    download_bytes: int
    place: PlaceAnswer | None


class ChoiceAnswer(BaseModel):
    """A word list of a set, or a part of one; `count` limits the phrases that a prompt takes."""

    list: str
    count: int | None


class VocabularyAnswer(BaseModel):
    """A set of word lists, which may be chosen; `missing` names those that are not here."""

    name: str
    about: str
    lists: list[ChoiceAnswer]
    missing: list[str]


class WordSetAnswer(VocabularyAnswer):
    """A set of word lists, with what never comes out of it: the lines of lists, and words."""

    without: list[str]
    leave_out: list[str]
    own: bool


class WordListAnswer(BaseModel):
    """A word list: how many phrases it has, and each of its parts; `own` ones can be edited."""

    name: str
    about: str
    phrases: int
    parts: dict[str, int]
    own: bool


class VocabulariesAnswer(BaseModel):
    """The sets of word lists that can be chosen, and the lists."""

    sets: list[WordSetAnswer]
    lists: list[WordListAnswer]


class CatalogAnswer(BaseModel):
    """All that can be chosen; `categories` counts the phrases of each word list."""

    backbones: list[ModelAnswer]
    captioners: list[ModelAnswer]
    modes: dict[str, str]
    generators: dict[str, list[str]]
    categories: dict[str, int]
    vocabularies: list[VocabularyAnswer]


class RunAnswer(BaseModel):
    """A run: its step, of which `done` of `total` are done; `running` is false while it waits."""

    task: str
    kind: str
    running: bool
    stopping: bool
    label: str
    done: int
    total: int
    seconds: float | None
    seconds_left: float | None


class LoadedAnswer(BaseModel):
    """A network in memory."""

    name: str
    kind: str
    device: str
    size_bytes: int


class StatusAnswer(BaseModel):
    """What runs, what waits and what is loaded; `waiting` counts requests of this API."""

    runs: list[RunAnswer]
    waiting: int
    loaded: list[LoadedAnswer]
    size_bytes: int


class UnloadAnswer(BaseModel):
    """How much memory the networks had held."""

    freed_bytes: int


class InterruptAnswer(BaseModel):
    """Whether there was a run to stop."""

    interrupted: bool


class FailureAnswer(BaseModel):
    """A picture that has no prompt, and why."""

    picture: str
    reason: str


class BatchAnswer(BaseModel):
    """How far a batch is: of `total` pictures `done` have their prompt.

    `state` is waiting, running, stopping, and at the end done, stopped or failed. `picture` is
    the last one, `prompt` its prompt, `problem` why it has none. `earlier`, `output` and
    `failures_file` are known at the end, `error` where the batch failed.
    """

    id: str
    state: str
    input: str
    total: int
    done: int
    skipped: int
    failed: int
    seconds: float | None
    rate: float | None
    seconds_left: float | None
    step: str
    step_done: int
    picture: str | None
    prompt: str
    problem: str
    stopped: bool
    earlier: int | None
    output: str | None
    failures_file: str | None
    error: str | None


class OneBatchAnswer(BatchAnswer):
    """How far a batch is; `failures` lists what failed when it has ended."""

    failures: list[FailureAnswer]


class StopBatchAnswer(BatchAnswer):
    """How far a batch is, and whether it had still to end."""

    interrupted: bool


class ErrorAnswer(BaseModel):
    """What went wrong: its kind, a sentence, the field at fault, and names that were meant."""

    error: str
    detail: str
    field: str | None = None
    nearest: list[str] = []
