"""Any open_clip backbone: by name, from a checkpoint file, or from a local folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from clip_interrogator_ext import catalog, packages
from clip_interrogator_ext.errors import BrokenModel, MissingModel, UnknownModel
from clip_interrogator_ext.host import as_path, is_file, is_folder
from clip_interrogator_ext.models import weights
from clip_interrogator_ext.models.base import Tick, no_tick
from clip_interrogator_ext.models.continuations import (
    KeysValues,
    count_common,
    find_causal_tower,
    pack_evenly,
)
from clip_interrogator_ext.models.residency import is_out_of_memory, memory_errors
from clip_interrogator_ext.models.tokens import TokenReader
from clip_interrogator_ext.models.torchvision_operators import import_torchvision

log = logging.getLogger(__name__)

DEMO_FOLDER = Path(__file__).parent / "demo" / "clip"
_CONFIG_NAME = "open_clip_config.json"
_ROW_TEXTS = 16  # wider rows have more in common, but each token is compared with its whole row
_CPU_TOKENS = 1024  # what is computed for so many stays in a processor's cache
_AGREEMENT = 1e-3  # largest distance of two unit vectors that count as the same
_HALF_AGREEMENT = 2e-2  # in half precision two ways of rounding are 2e-3 apart

# Tags trained with QuickGELU under an architecture of another name. open_clip 2.20 does not say
# it of them, and 3.x says it but only warns.
_QUICK_GELU_TAGS = {
    ("RN50", "yfcc15m"), ("RN50", "cc12m"), ("RN101", "yfcc15m"),
    ("ViT-B-32", "laion400m_e31"), ("ViT-B-32", "laion400m_e32"),
}


def import_open_clip() -> Any:
    """Return the module open_clip, imported now, with a torchvision that may not fit."""
    import_torchvision()
    with packages.needed("open_clip"):
        import open_clip
    return open_clip


def list_names() -> list[str]:
    """Return every architecture/pretrained pair that the installed open_clip has weights for."""
    return [f"{arch}/{tag}" for arch, tag in import_open_clip().list_pretrained()]


@dataclass(frozen=True)
class Plan:
    """What is to be built: an open_clip configuration and the checkpoint that fills it."""

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    source: weights.Source | None = None
    checkpoint: Path | None = None
    official: bool = False
    folder: Path | None = None
    architecture: str | None = None


def plan(name: str) -> Plan:
    """Find out what a backbone's name means, without touching its weights.

    A name is "demo", a folder in open_clip's format, `architecture=FILE`, or
    `architecture/pretrained`. Raises UnknownModel with the nearest names.
    """
    if name == catalog.DEMO:
        return _plan_folder(name, DEMO_FOLDER)
    if name and is_folder(name):
        return _plan_folder(name, as_path(name))
    architecture, equals, file = name.partition("=")
    if equals:
        return _plan_file(name, architecture, as_path(file))
    return _plan_pretrained(name)


def _plan_folder(name: str, folder: Path) -> Plan:
    path = folder / _CONFIG_NAME
    if not path.is_file():
        raise MissingModel(
            f"{folder} holds no {_CONFIG_NAME}: it is not a folder in open_clip's format. "
            "Save one with open_clip's push_to_hf_hub.save_for_hf, or name the checkpoint as "
            "architecture=FILE."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = dict(content["model_cfg"])
        preprocess = dict(content.get("preprocess_cfg") or {})
        config.update({tower: dict(config[tower]) for tower in ("text_cfg", "vision_cfg")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenModel(f"{path} is not a configuration of open_clip's: {error!r}.") from error
    checkpoint = next(
        (folder / file for file in weights.SAFETENSORS_NAMES if (folder / file).is_file()), None
    ) or next(iter(sorted(folder.glob("*.safetensors"))), None)
    if checkpoint is None:
        checkpoint = next((folder / f for f in weights.OFFICIAL_PICKLE_NAMES), None)
        if checkpoint is None or not checkpoint.is_file():
            raise MissingModel(f"{folder} holds no weights ({weights.SAFETENSORS_NAMES[0]}).")
    return Plan(name, config, preprocess, checkpoint=checkpoint, folder=folder)


def _plan_file(name: str, architecture: str, checkpoint: Path) -> Plan:
    planned = plan_architecture(architecture)
    if not is_file(checkpoint):
        raise MissingModel(f"There is no checkpoint file {checkpoint}.")
    return replace(planned, name=name, checkpoint=checkpoint)


def plan_architecture(architecture: str) -> Plan:
    """Return the plan of an architecture of open_clip's, without weights."""
    config = _config_of(architecture)
    if config is None:
        raise _unknown(architecture, import_open_clip().list_models(), "architecture")
    return Plan(architecture, config, {}, architecture=architecture)


def _plan_pretrained(name: str) -> Plan:
    known = list_names()
    if name not in known:
        architecture, _, tag = name.partition("/")
        if not tag and _config_of(architecture) is not None:
            tags = [one for one in known if one.startswith(f"{architecture}/")]
            raise UnknownModel(
                f"{name!r} names no weights, and without weights it would rank at random."
                + catalog.did_you_mean(tags[:5]),
                tuple(tags),
            )
        raise _unknown(name, known, "CLIP model")
    architecture, tag = name.split("/", 1)
    config = _config_of(architecture)
    if config is None:
        raise BrokenModel(f"open_clip lists {name} but has no configuration for {architecture}.")
    published = import_open_clip().pretrained.get_pretrained_cfg(architecture, tag)
    if _trained_with_quick_gelu(architecture, tag, published):
        config["quick_gelu"] = True
    return Plan(
        name, config, dict(published), source=_source(name, published), official=True,
        architecture=architecture,
    )


def _source(name: str, published: dict[str, Any]) -> weights.Source:
    """Say where open_clip publishes a checkpoint; our catalog may know of safetensors."""
    architecture, tag = name.split("/", 1)
    row = catalog.BACKBONES.get(name)
    repository, _, file = str(published.get("hub") or published.get("hf_hub") or "").rpartition("/")
    if row is not None and row.hub:
        repository, file = row.hub, ""
    folders = [f"{architecture}-{tag}", f"{architecture}_{tag}"]
    if repository:
        folders += [repository.rsplit("/", 1)[-1], repository.replace("/", "--")]
    return weights.Source(
        name, hub=repository, file=file, url=str(published.get("url") or ""),
        folders=tuple(folders),
    )


def _unknown(name: str, known: Sequence[str], what: str) -> UnknownModel:
    nearest = catalog.nearest(name, known)
    return UnknownModel(
        f"No {what} is called {name!r}.{catalog.did_you_mean(nearest)} "
        "`clip-interrogator-ext models --all` lists all of them.",
        nearest,
    )


def _config_of(architecture: str) -> dict[str, Any] | None:
    open_clip = import_open_clip()
    if architecture not in open_clip.list_models():  # 3.x would look for "hf-hub:..." in the hub
        return None
    return dict(open_clip.factory.get_model_config(architecture))


def _trained_with_quick_gelu(architecture: str, tag: str, published: dict[str, Any]) -> bool:
    return (
        bool(published.get("quick_gelu"))
        or tag == "openai"
        or (architecture, tag) in _QUICK_GELU_TAGS
        or architecture.endswith("-quickgelu")
    )


def published_source(name: str) -> weights.Source:
    """Return where the weights of an `architecture/pretrained` are published."""
    return _required(_plan_pretrained(name).source)


def load(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    models_dirs: Sequence[Path] = (),
    chunk_size: int = 64,
    tick: Tick = no_tick,
) -> OpenClip:
    """Load a backbone by name, in evaluation mode, its weights on the CPU until it is used.

    `tick` is called during a download. Raises UnknownModel, MissingModel, UnsafeWeights or
    BrokenModel.
    """
    planned = plan(name)
    checkpoint = planned.checkpoint or weights.find(_required(planned.source), models_dirs, tick)
    official_url = planned.source.url if planned.source and planned.official else None
    state = weights.read(checkpoint, official_url=official_url)
    model = build(planned.config, dtype)
    _fill(model, state, checkpoint)
    return OpenClip(
        name, model, preprocess_of(model, planned.preprocess), token_reader(planned),
        device=device, chunk_size=chunk_size,
    )


def _required(source: weights.Source | None) -> weights.Source:
    if source is None:
        raise AssertionError("a plan has a checkpoint or a source")
    return source


def build(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Build a model from open_clip's configuration, with random weights, on the CPU.

    In half precision the normalizations stay in float32, as open_clip has it.
    """
    open_clip = import_open_clip()
    config = json.loads(json.dumps(config))  # the constructors change what they are given
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "multimodal_cfg" in config:
        kind = open_clip.CoCa
    else:
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    half = dtype in (torch.float16, torch.bfloat16)
    try:
        with memory_errors():
            model: torch.nn.Module = kind(**config, cast_dtype=dtype if half else None)
    except OSError as error:
        raise MissingModel(
            f"The configuration of {text.get('hf_model_name')} can't be had ({_first(error)}). "
            "With a network it is downloaded at first use."
        ) from error
    except (*weights.UNUSABLE, ImportError) as error:
        raise BrokenModel(
            f"This open_clip can't build the model ({error}). A newer open_clip_torch may."
        ) from error
    if half:
        model.to(dtype)
        for module in model.modules():
            if isinstance(module, (open_clip.transformer.LayerNormFp32, torch.nn.BatchNorm2d)):
                module.float()
    return model.eval()


def _first(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _fill(model: torch.nn.Module, state: dict[str, Tensor], checkpoint: Path) -> None:
    """Load a state dict in whatever layout it was published, and refuse one that does not fit."""
    open_clip = import_open_clip()
    try:
        state = _convert(model, state)
        open_clip.model.resize_pos_embed(state, model)
        model.load_state_dict(state, strict=True)
    except weights.UNUSABLE as error:
        if is_out_of_memory(error):
            raise
        missing = re.findall(r'"([^"]+)"', str(error))[:3]
        detail = f" (for instance {', '.join(missing)})" if missing else ""
        raise BrokenModel(
            f"The weights in {checkpoint} don't fit the model's architecture{detail}. Was it named "
            "rightly?"
        ) from error


def _convert(model: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring a published state dict into the layout of the installed open_clip's model."""
    open_clip = import_open_clip()
    convert = getattr(open_clip, "convert", None)
    if convert is not None:
        state = convert.convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if own is not None and name in state:
            state[name] = state[name].reshape(own.shape)
        elif own is not None:
            state[name] = own.detach()  # scales similarities for training; nothing here reads it
    position_ids = "text.transformer.embeddings.position_ids"
    if position_ids not in model.state_dict():
        state.pop(position_ids, None)
    return state


def token_reader(planned: Plan) -> TokenReader:
    """Return what turns texts into the ids that a planned backbone reads."""
    context_length = int(planned.config["text_cfg"].get("context_length", 77))
    reader = TokenReader(_tokenizer(planned), context_length)
    try:
        reader.padded(["a, \N{SNOWMAN}"])  # what stands for unknown words is looked up only then
    except Exception as error:  # tokenizers raises nothing narrower
        raise BrokenModel(
            f"The tokenizer of {planned.name} can't read a text ({_first(error)}): its files are "
            "damaged. Bring the whole model again."
        ) from error
    return reader


@functools.cache
def _clip_reader() -> TokenReader:
    return token_reader(plan_architecture("ViT-L-14"))


def count_clip_tokens(text: str) -> tuple[int, int]:
    """Return (tokens of a text, of how many a prompt may have) by CLIP's own tokenizer."""
    reader = _clip_reader()
    return reader.count([text])[0], reader.budget


def _tokenizer(planned: Plan) -> Any:
    open_clip = import_open_clip()
    text = planned.config["text_cfg"]
    try:
        if planned.folder is not None and text.get("hf_tokenizer_name"):
            if hasattr(open_clip.factory, "parse_model_name"):  # 3.x reads the folder's settings
                return open_clip.get_tokenizer(f"local-dir:{planned.folder}")
            return open_clip.tokenizer.HFTokenizer(str(planned.folder))
        if planned.architecture is not None:
            tokenizer = open_clip.get_tokenizer(planned.architecture)
            if hasattr(tokenizer, "encode") or hasattr(tokenizer, "tokenizer"):
                return tokenizer
        tokenizer = open_clip.tokenizer.SimpleTokenizer(**text.get("tokenizer_kwargs") or {})
    except (OSError, ImportError, ValueError) as error:
        raise MissingModel(
            f"The tokenizer of {planned.name} can't be had ({_first(error)}). With a network it "
            "is downloaded at first use."
        ) from error
    except TypeError as error:
        raise BrokenModel(
            f"This open_clip can't build the tokenizer of {planned.name} ({_first(error)}). A "
            "newer open_clip_torch may."
        ) from error
    except Exception as error:  # tokenizers raises nothing narrower
        raise BrokenModel(
            f"The tokenizer of {planned.name} can't be read ({_first(error)}): its files are "
            "damaged. Bring the whole model again."
        ) from error
    if not callable(tokenizer):  # open_clip 2.20: a function beside the class makes the rows
        tokenizer.__class__ = _callable_tokenizer(type(tokenizer))
    return tokenizer


def _callable_tokenizer(kind: type) -> type:
    def rows(self: Any, texts: list[str], context_length: int) -> Tensor:  # noqa: ARG001
        tokens: Tensor = import_open_clip().tokenize(texts, context_length)
        return tokens

    return type(kind.__name__, (kind,), {"__call__": rows})


def preprocess_of(model: Any, published: dict[str, Any]) -> Any:
    """Return the transform from an RGB picture to the tensor that the image tower reads.

    Raises BrokenModel where the settings can't be used: some of them are read only then.
    """
    try:
        preprocess = _preprocess_of(model.visual.image_size, published)
        preprocess(Image.new("RGB", (4, 4)))
    except weights.UNUSABLE as error:
        raise BrokenModel(
            f"This open_clip can't use the model's picture settings ({_first(error)})."
        ) from error
    return preprocess


def _preprocess_of(size: Any, published: dict[str, Any]) -> Any:
    open_clip = import_open_clip()
    transform = open_clip.transform
    mean, std = published.get("mean"), published.get("std")
    if hasattr(transform, "image_transform_v2"):
        fields = transform.PreprocessCfg.__dataclass_fields__
        known = {key: published[key] for key in published if key in fields}
        known["size"] = size
        return transform.image_transform_v2(transform.PreprocessCfg(**known), is_train=False)
    constants = open_clip.constants
    return transform.image_transform(
        size, is_train=False,
        mean=tuple(mean or constants.OPENAI_DATASET_MEAN),
        std=tuple(std or constants.OPENAI_DATASET_STD),
    )


def key_of(name: str) -> str:
    """Return a name for the backbone that is asked for by `name`, safe as a folder's."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[-80:]
    if readable == name.replace("/", "_"):
        return readable
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class OpenClip:
    """A CLIP backbone from open_clip: see models.base.TextImageEncoder.

    Texts take the fast path of models.continuations when the text tower allows it and a handful
    of texts encoded both ways agree; otherwise the plain path, and a line is logged.
    """

    def __init__(
        self,
        name: str,
        module: Any,  # open_clip.CLIP, CustomTextCLIP or CoCa
        preprocess: Any,
        reader: TokenReader,
        *,
        device: torch.device,
        chunk_size: int = 64,
    ) -> None:
        self.name = name
        self.module = module
        self.token_budget = reader.budget
        self.chunk_size = chunk_size
        self.preprocess = preprocess
        self.reader = reader
        self._device = device
        self._tower: Any = find_causal_tower(module) if reader.is_simple else None
        self._checked = self._tower is None
        if self._tower is None:
            log.info("%s: texts take the plain path, for its text tower allows no other.", name)
        # CoCa of open_clip 2.20 cuts the last column of what it is given, for a token of its own.
        self._spare_columns = int(
            type(module).__name__ == "CoCa"
            and "embed_cls" in inspect.signature(module.encode_text).parameters
        )
        self._dimension: int | None = None
        self._read: tuple[list[int], Sequence[KeysValues]]  # what texts began with
        self.forget()

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        if self._dimension is None:
            self._dimension = self._encode_padded(["a"]).shape[-1]
        return self._dimension

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return the unit vectors of prepared images: (n, dimension) float32 on the CPU."""
        with torch.inference_mode(), self._precision():
            seen = pixels.to(self._device, self._dtype())
            vectors = _unit(self.module.encode_image(seen))
        if not vectors.isfinite().all():
            raise BrokenModel(
                f"{self.name} computes no numbers for this picture: its weights are damaged. "
                "Delete them and download them again."
            )
        return vectors

    def encode_texts(
        self, texts: Sequence[str], tick: Tick = no_tick, label: str = "texts"
    ) -> Tensor:
        """Return the unit vectors of texts: (len(texts), dimension) float32 on the CPU."""
        if self._fast():
            rows = [self.reader.row(self.reader.ids(text)) for text in texts]
            return self._encode_rows(rows, tick, label)
        return self._encode_all_padded(texts, tick, label)

    def encode_continuations(
        self, prefix: str, phrases: Sequence[str], tick: Tick = no_tick, label: str = "phrases"
    ) -> Tensor:
        """Return the vectors of f"{prefix}, {phrase}": (len(phrases), dimension) float32."""
        if not prefix:
            return self.encode_texts(phrases, tick, label)
        if not self._fast():
            return self._encode_all_padded([f"{prefix}, {one}" for one in phrases], tick, label)
        rows = [self.reader.row(ids) for ids in self.reader.continuations(prefix, phrases)]
        return self._encode_rows(rows, tick, label)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, start and end tokens not counted."""
        return self.reader.count(texts)

    def count_continuations(self, prefix: str, phrases: Sequence[str]) -> list[int]:
        """Return how many tokens each text "prefix, phrase" has."""
        if not prefix:
            return self.count_tokens(phrases)
        return [len(ids) for ids in self.reader.continuations(prefix, phrases)]

    def forget(self) -> None:
        """Let go of what was kept of earlier texts."""
        self._read = ([], ())

    def key(self) -> str:
        """Return a name for this backbone that is safe as a folder's."""
        return key_of(self.name)

    def _fast(self) -> bool:
        """Say whether the fast path may be taken, checking it against the plain one once."""
        if not self._checked:
            self._checked = True
            texts = ["a", "a photo of a red cat on a beach", "oil painting, golden hour"]
            try:
                rows = [self.reader.row(self.reader.ids(text)) for text in texts]
                fast = self._encode_rows(rows, no_tick, "")
                limit = _AGREEMENT if self._dtype() == torch.float32 else _HALF_AGREEMENT
                agree = (fast - self._encode_padded(texts)).norm(dim=-1).max() < limit
            except (RuntimeError, AttributeError, TypeError) as error:
                if is_out_of_memory(error):
                    self._checked = False
                    raise
                log.debug("the fast path failed", exc_info=error)
                agree = torch.tensor(False)
            if not agree:
                self._tower = None
                log.info("%s: texts take the plain path, the fast one disagrees.", self.name)
        return self._tower is not None

    def _encode_rows(self, texts: list[list[int]], tick: Tick, label: str) -> Tensor:
        """Encode texts of ids, several in a row, in the order they were given."""
        if not texts:
            tick(label, 0, 0)
            return torch.empty(0, self.dimension)
        past, start = self._read_shared(texts)
        texts = [text[start:] for text in texts]
        most = self.chunk_size * self.reader.context_length  # as many as padded texts would have
        if self._device.type == "cpu":
            most = min(most, _CPU_TOKENS)
        lengths = [len(text) for text in texts]
        width = max(*lengths, min(_ROW_TEXTS * sum(lengths) // len(texts), most))
        rows = pack_evenly(texts, width)
        at_once = max(1, most // max(len(row.ids) for row in rows))
        parts = []
        order: list[int] = []
        for begin in range(0, len(rows), at_once):
            report = functools.partial(tick, label, len(order), len(texts))
            report()
            part = rows[begin : begin + at_once]
            with torch.inference_mode(), self._precision():
                # All layers of a large network take a processor seconds, in which nothing could
                # be stopped; other devices take milliseconds.
                between = (report,) if self._device.type == "cpu" else ()
                parts.append(_unit(self._tower.encode(part, past, *between)))
            order += [number for row in part for number in row.texts]
        tick(label, len(texts), len(texts))
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _read_shared(self, texts: list[list[int]]) -> tuple[Sequence[KeysValues], int]:
        """Return what the tower has read of the tokens that all texts begin with, and how many.

        It is kept for the next time: a search goes on from the text that it had.
        """
        if len(texts) < 2:
            return (), 0
        first, last = min(texts), max(texts)  # all others stand between them
        shared = first[: min(count_common(first, last), len(first) - 1)]
        before, past = self._read
        known = count_common(before, shared)
        past = [(key[:, :known], value[:, :known]) for key, value in past] if known else []
        if known < len(shared):
            with torch.inference_mode(), self._precision():
                past = self._tower.read_prefix(shared[known:], past)
        self._read = shared, past
        return past, len(shared)

    def _encode_all_padded(self, texts: Sequence[str], tick: Tick, label: str) -> Tensor:
        parts = []
        at_once = self.chunk_size
        if self._device.type == "cpu":
            at_once = min(at_once, max(1, _CPU_TOKENS // self.reader.context_length))
        for begin in range(0, len(texts), at_once):
            tick(label, begin, len(texts))
            parts.append(self._encode_padded(texts[begin : begin + at_once]))
        tick(label, len(texts), len(texts))
        return torch.cat(parts) if parts else torch.empty(0, self.dimension)

    def _encode_padded(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as open_clip does: every one at the full context length."""
        try:
            rows = self.reader.padded(texts).to(self._device)
            rows = functional.pad(rows, (0, self._spare_columns))
            with torch.inference_mode(), self._precision():
                return _unit(self.module.encode_text(rows))
        except weights.UNUSABLE as error:
            if is_out_of_memory(error):
                raise
            raise BrokenModel(
                f"{self.name} can't read a text ({_first(error)}): its files are damaged, or "
                "don't fit together. Bring the whole model again."
            ) from error

    def _dtype(self) -> torch.dtype:
        """Return the precision of the weights; normalizations may have a higher one."""
        for layer in self.module.visual.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                return layer.weight.dtype
        return torch.float32

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Compute in the weights' own precision, whatever the caller switched on around us."""
        with torch.autocast(self._device.type, enabled=False):
            yield


def _unit(features: Tensor) -> Tensor:
    """Return vectors of length one, as float32 on the CPU."""
    return functional.normalize(features.float(), dim=-1).cpu().clone()
