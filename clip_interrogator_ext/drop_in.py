"""The names of the `clip_interrogator` package, answered by this one.

Code written for clip-interrogator works when its import line is changed:

    from clip_interrogator_ext.drop_in import Config, Interrogator

What differs from the package is listed in docs/parity.md. Word lists come from this package
unless `data_path` names a folder of others; those are read as they are, and labels are kept as
given, repeats included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_interrogator_ext import catalog
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.images import upright_rgb
from clip_interrogator_ext.models import captioning, open_clip
from clip_interrogator_ext.models.base import no_tick
from clip_interrogator_ext.models.residency import (
    Residency,
    ResidentEncoder,
    dtype_for,
    resolve_device,
)
from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions
from clip_interrogator_ext.phrases import SEPARATOR
from clip_interrogator_ext.progress import ProgressBars
from clip_interrogator_ext.search.chain import chain as grow
from clip_interrogator_ext.search.modes import MODES, Scene, Vocabulary
from clip_interrogator_ext.search.ranking import nearest
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.vocabulary import lists
from clip_interrogator_ext.vocabulary.tables import PhraseStore, Table, concatenate

if TYPE_CHECKING:
    from PIL import Image

CAPTION_MODELS: dict[str, str] = {name: row.hub for name, row in catalog.CAPTIONERS.items()}

_OLDER_NAMES = {
    "blip_max_length": "caption_max_length",
    "blip_num_beams": "caption_num_beams",
    "blip_offload": "caption_offload",
    "blip_model": "caption_model",
}
_MOST_FLAVORS = 256  # no budget of tokens holds more
_IGNORED_OLDER_NAMES = ("blip_image_eval_size", "blip_model_url", "download_cache_url")


def _best_device() -> str:
    return resolve_device(None).type


@dataclass(init=False)
class Config:
    """Settings of an Interrogator, by the peer's names; those of its older versions work too.

    `download_cache` is kept for its name: vectors of word lists are computed here, never
    downloaded.
    """

    caption_model: Any = None
    caption_processor: Any = None
    clip_model: Any = None
    clip_preprocess: Any = None

    caption_max_length: int = 32
    caption_model_name: str | None = catalog.DEFAULT_CAPTIONER
    caption_num_beams: int = 1
    caption_offload: bool = False

    clip_model_name: str = catalog.DEFAULT_BACKBONE
    clip_model_path: str | None = None
    clip_offload: bool = False

    cache_path: str | None = "cache"
    download_cache: bool = True
    chunk_size: int = 2048
    data_path: str = field(default_factory=lambda: str(lists.bundled_folder()))
    device: Any = field(default_factory=_best_device)
    flavor_intermediate_count: int = 2048
    quiet: bool = False

    def __init__(self, **settings: Any) -> None:
        for name, described in self.__dataclass_fields__.items():
            default = described.default_factory
            setattr(self, name, default() if callable(default) else described.default)
        for name, value in settings.items():
            if name not in self.__dataclass_fields__ and not _is_older_name(name):
                raise TypeError(f"Config has no setting {name!r}")
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "blip_model_type":
            name, value = "caption_model_name", value if value is None else f"blip-{value}"
        super().__setattr__(_OLDER_NAMES.get(name, name), value)

    def __getattr__(self, name: str) -> Any:
        if name in _OLDER_NAMES:
            return getattr(self, _OLDER_NAMES[name])
        if name == "blip_model_type":
            return (self.caption_model_name or "").removeprefix("blip-") or None
        raise AttributeError(f"Config has no setting {name!r}")

    def apply_low_vram_defaults(self) -> None:
        """Choose a small captioner, small chunks, and one network on the device at a time."""
        self.caption_model_name = "blip-base"
        self.caption_offload = True
        self.clip_offload = True
        self.chunk_size = 1024
        self.flavor_intermediate_count = 1024


def _is_older_name(name: str) -> bool:
    return name == "blip_model_type" or name in _OLDER_NAMES or name in _IGNORED_OLDER_NAMES


class Interrogator:
    """The peer's Interrogator: networks, six tables of phrases, and the modes as methods.

    Picture vectors are tensors (1, dimension), as the peer has them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        self.dtype = dtype_for(self.device)
        self.caption_offloaded = True
        self.clip_offloaded = True
        self._residency = self._new_residency()
        self._encoder: open_clip.OpenClip | None = None
        self._joined: tuple[list[tuple[LabelTable, tuple[str, ...]]], Vocabulary] | None = None
        self.load_caption_model()
        self.load_clip_model()

    def load_caption_model(self) -> None:
        """Load the captioner that the config names, or take the one that it brings."""
        config = self.config
        self.caption_model = config.caption_model
        self.caption_processor = config.caption_processor
        if config.caption_model is None and config.caption_model_name:
            self._captioner = captioning.load_captioner(
                config.caption_model_name, self._models_dirs(), self.device.type, self.dtype,
                no_tick if config.quiet else ProgressBars(),
            )
            self.caption_model = self._captioner.module

    def load_clip_model(self) -> None:
        """Load the backbone that the config names, or take the one that it brings, and the tables.

        May be called again after `config.clip_model_name` was changed.
        """
        config = self.config
        if self._encoder is not None:
            self._residency.forget(self._encoder)
        # A chunk is what memory allows in the peer; here chunks stay small enough to be stopped.
        chunk_size = min(config.chunk_size, 64)
        if config.clip_model is None:
            self._encoder = open_clip.load(
                config.clip_model_name, device=self.device, dtype=self.dtype,
                models_dirs=self._models_dirs(), chunk_size=chunk_size,
                tick=no_tick if config.quiet else ProgressBars(),
            )
        else:
            architecture = config.clip_model_name.partition("/")[0]
            reader = open_clip.token_reader(open_clip.plan_architecture(architecture))
            self._encoder = open_clip.OpenClip(
                config.clip_model_name, config.clip_model, config.clip_preprocess, reader,
                device=self.device, chunk_size=chunk_size,
            )
        self.clip_model = self._encoder.module
        self.clip_preprocess = self._encoder.preprocess
        self.tokenize = self._encoder.reader.padded
        self._resident = ResidentEncoder(self._encoder, self._residency)
        self._load_tables()

    def chain(
        self,
        image_features: Tensor,
        phrases: Sequence[str],
        best_prompt: str = "",
        best_sim: float = 0,  # noqa: ARG002 - the score is measured here
        min_count: int = 8,
        max_count: int = 32,
        desc: str = "Chaining",
        reverse: bool = False,
    ) -> str:
        """Grow `best_prompt`, or the best phrase alone, by phrases that bring it nearer."""
        scorer = self._scorer(image_features)
        start = 0 if best_prompt else 1  # the peer does not count the phrase that it starts from
        found = grow(
            scorer.negated() if reverse else scorer, best_prompt, phrases,
            min_count=min_count + start, max_count=max_count + start,
            budget=scorer.token_budget, label=desc,
        )
        return SEPARATOR.join([*filter(None, [best_prompt]), *found.phrases])

    def generate_caption(self, pil_image: Image.Image) -> str:
        """Return what the captioner says of a picture."""
        options = CaptionOptions(
            beams=self.config.caption_num_beams, max_length=self.config.caption_max_length
        )
        if self.caption_model is None:
            raise AssertionError("No caption model loaded.")
        if self.config.caption_model is None:
            with self._residency.on_device(self._captioner):
                caption: str = self._captioner.caption(upright_rgb(pil_image), options)
                return caption
        inputs = self.caption_processor(images=upright_rgb(pil_image), return_tensors="pt")
        inputs = inputs.to(self.device, self.caption_model.dtype)
        with torch.inference_mode():
            tokens = self.caption_model.to(self.device).generate(
                **inputs, max_new_tokens=options.max_length
            )
        words = self.caption_processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return str(words).strip()

    def image_to_features(self, image: Image.Image) -> Tensor:
        """Return a picture's unit vector: (1, dimension)."""
        return self._resident.encode_images(self._resident.preprocess(upright_rgb(image))[None])

    def interrogate(
        self, image: Image.Image, min_flavors: int = 8, max_flavors: int = 32,
        caption: str | None = None,
    ) -> str:
        """Return the prompt of mode `best`."""
        return self._in_mode("best", image, max_flavors, caption, min_flavors)

    def interrogate_classic(
        self, image: Image.Image, max_flavors: int = 3, caption: str | None = None
    ) -> str:
        """Return the prompt of mode `classic`."""
        return self._in_mode("classic", image, max_flavors, caption)

    def interrogate_fast(
        self, image: Image.Image, max_flavors: int = 32, caption: str | None = None
    ) -> str:
        """Return the prompt of mode `fast`."""
        return self._in_mode("fast", image, max_flavors, caption)

    def interrogate_negative(self, image: Image.Image, max_flavors: int = 32) -> str:
        """Return the prompt of mode `negative`."""
        return self._in_mode("negative", image, max_flavors, "")

    def rank_top(
        self,
        image_features: Tensor,
        text_array: Sequence[str],
        reverse: bool = False,
    ) -> str:
        """Return the text nearest to the picture, or farthest."""
        scores = self._scorer(image_features).texts(text_array)
        return text_array[int((-scores if reverse else scores).argmax())]

    def similarity(self, image_features: Tensor, text: str) -> float:
        """Return the cosine of a text and the picture."""
        return self.similarities(image_features, [text])[0]

    def similarities(self, image_features: Tensor, text_array: Sequence[str]) -> list[float]:
        """Return the cosine of each text and the picture."""
        return [float(score) for score in self._scorer(image_features).texts(text_array)]

    def _in_mode(
        self, mode: str, image: Image.Image, max_flavors: int, caption: str | None,
        min_flavors: int = 8,
    ) -> str:
        if mode != "negative":
            caption = caption or self.generate_caption(image)
        options = InterrogateOptions(
            mode=mode, caption=caption,
            min_flavors=min(min_flavors, _MOST_FLAVORS),
            max_flavors=min(max_flavors, _MOST_FLAVORS),
            pool_size=self.config.flavor_intermediate_count,
        )
        scorer = self._scorer(self.image_to_features(image))
        return MODES[mode](Scene(caption or "", scorer), self._vocabulary(), options).text

    def _vocabulary(self) -> Vocabulary:
        """Return the tables as this package's own, put together anew only when one was changed."""
        named = {
            "artists": self.artists, "flavors": self.flavors, "mediums": self.mediums,
            "movements": self.movements, "sites": self.trendings,
        }
        given = [(table, tuple(table.labels)) for table in (*named.values(), self.negative)]
        if self._joined is None or self._joined[0] != given:
            tables = {name: table.as_table(name) for name, table in named.items()}
            self._joined = given, Vocabulary.together(
                tables, concatenate(list(tables.values())), self.negative.as_table("negative")
            )
        return self._joined[1]

    def _scorer(self, image_features: Tensor) -> Scorer:
        image = image_features.detach().reshape(-1).float().cpu()
        if self.config.quiet:
            return Scorer((self._resident,), (image,))
        return Scorer((self._resident,), (image,), ProgressBars())

    def _load_tables(self) -> None:
        raw_artists, sites = self._lines("artists"), self._lines("sites")
        self.artists = LabelTable(_by_template("artists", raw_artists), "artists", self)
        self.flavors = LabelTable(self._lines("flavors"), "flavors", self)
        self.mediums = LabelTable(self._lines("mediums"), "mediums", self)
        self.movements = LabelTable(self._lines("movements"), "movements", self)
        self.trendings = LabelTable(_by_template("sites", sites), "trendings", self)
        self.negative = LabelTable(self._lines("negative"), "negative", self)

    def _lines(self, category: str) -> list[str]:
        path = Path(self.config.data_path) / f"{category}.txt"
        if path.parent == lists.bundled_folder() or (category == "sites" and not path.is_file()):
            return list(lists.load_categories()[category].lines)
        return load_list(str(path))

    def _models_dirs(self) -> tuple[Path, ...]:
        return (Path(self.config.clip_model_path),) if self.config.clip_model_path else ()

    def _new_residency(self) -> Residency:
        low_memory = self.config.caption_offload or self.config.clip_offload
        host = StandaloneHost(str(self.device), self.config.clip_model_path or None)
        return Residency(self.device, host, low_memory=low_memory)


class LabelTable:
    """Labels and their vectors; `desc` names the file that keeps them, None keeps nothing."""

    def __init__(self, labels: Sequence[str], desc: str | None, ci: Interrogator) -> None:
        self.labels = list(labels)
        self.config = ci.config
        self.device = ci.device
        self.chunk_size = ci.config.chunk_size
        self.tokenize = ci.tokenize
        keep = ci.config.cache_path if desc else None
        store = PhraseStore(Path(keep) if keep else None)
        tick = no_tick if ci.config.quiet else ProgressBars()
        self._vectors = store.vectors(ci._resident, desc or "labels", self.labels, tick)

    @property
    def embeds(self) -> list[Any]:
        """The labels' vectors as numpy arrays, one for each."""
        return list(self._vectors.float().numpy())

    def rank(
        self,
        image_features: Tensor,
        top_count: int = 1,
        reverse: bool = False,
    ) -> list[str]:
        """Return the labels nearest to the picture, nearest first, or the farthest."""
        image = image_features.detach().reshape(-1).float().cpu()
        rows = nearest((self._vectors,), (-image if reverse else image,), top_count)
        return [self.labels[row] for row in rows]

    def as_table(self, category: str) -> Table:
        """Return the labels as this package's own table."""
        return Table(tuple(self.labels), (category,) * len(self.labels), (self._vectors,))


def _by_template(category: str, lines: Sequence[str]) -> list[str]:
    return [template.replace("{}", line) for template in lists.TEMPLATES[category]
            for line in lines]


def list_caption_models() -> list[str]:
    """Return the names of the captioners."""
    return list(CAPTION_MODELS)


def list_clip_models() -> list[str]:
    """Return every architecture/pretrained pair that the installed open_clip has weights for."""
    return open_clip.list_names()


def load_list(data_path: str, filename: str | None = None) -> list[str]:
    """Return the lines of a file as they are, without the space around them."""
    path = Path(data_path) / filename if filename is not None else Path(data_path)
    with path.open(encoding="utf-8", errors="replace") as file:
        return [line.strip() for line in file]
