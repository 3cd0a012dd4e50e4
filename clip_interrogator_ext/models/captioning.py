"""What all captioners share: where their folder is, how it is loaded, how a sentence is written."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from clip_interrogator_ext import catalog, packages
from clip_interrogator_ext.errors import BrokenModel, MissingModel, UnknownModel
from clip_interrogator_ext.host import as_path, is_folder
from clip_interrogator_ext.models import downloads, leftovers, weights
from clip_interrogator_ext.models.base import Tick, no_tick
from clip_interrogator_ext.models.residency import memory_errors
from clip_interrogator_ext.models.torchvision_operators import import_torchvision

if TYPE_CHECKING:
    from clip_interrogator_ext.options import CaptionOptions

log = logging.getLogger(__name__)

DEMO_FOLDER = Path(__file__).parent / "demo" / "blip"

_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")  # safetensors first: they win
_SMALL_FILES = ("*.json", "vocab.*", "merges.txt", "*.model")
_BEAM_FAILURES = (RuntimeError, ValueError, IndexError)
_TOKEN_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def from_transformers(name: str) -> Any:
    """Return what transformers has by a name, or None; a torchvision that may not fit does no harm.

    transformers imports its parts when they are first asked for, so it is then that they fail.
    """
    import_torchvision()
    with packages.needed("transformers"):
        return getattr(import_module("transformers"), name, None)


def load_captioner(
    name: str,
    models_dirs: Sequence[Path],
    device: str,
    dtype: torch.dtype,
    tick: Tick = no_tick,
) -> TransformersCaptioner:
    """Load a captioner by name, in evaluation mode, its weights on the CPU until it is moved.

    A name is a key of the catalogue, "demo", or a folder in transformers' format. On the device
    "cpu" the precision is float32, whatever `dtype` says. `tick` is called during a download.
    Raises UnknownModel, MissingModel, UnsafeWeights or BrokenModel.
    """
    found = find(name, models_dirs, tick)
    module_name, _, class_name = found.implementation.partition(":")
    implementation = getattr(
        import_module(f"clip_interrogator_ext.models.{module_name}"), class_name
    )
    precision = torch.float32 if torch.device(device).type == "cpu" else dtype
    captioner: TransformersCaptioner = implementation.load(name, found, precision)
    return captioner


# --- where a captioner's folder is ---


@dataclass(frozen=True)
class Found:
    """A captioner's folder, what runs it, and whether its maker is in the catalogue."""

    folder: Path
    implementation: str
    official: bool = False


def find(name: str, models_dirs: Sequence[Path] = (), tick: Tick = no_tick) -> Found:
    """Return the folder of a captioner: found on this machine, or downloaded.

    Each models folder is looked in, then the usual cache; a download goes to the first folder,
    and tick("Downloading", mebibytes, of how many) is called several times a second meanwhile.
    """
    if name in catalog.CAPTIONERS:
        row = catalog.CAPTIONERS[name]
        return Found(
            _published_folder(name, models_dirs, tick), row.implementation, official=True
        )
    folder = DEMO_FOLDER if name == catalog.DEMO else as_path(name)
    if not is_folder(folder):
        raise _unknown(name)
    if not (folder / "config.json").is_file():
        raise MissingModel(
            f"{folder} holds no config.json: it is not a folder in transformers' format."
        )
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in catalog.CAPTIONER_OF_MODEL_TYPE:
        raise BrokenModel(
            f"{folder} holds a model of type {model_type!r}; a captioner is one of "
            f"{', '.join(catalog.CAPTIONER_OF_MODEL_TYPE)}."
        )
    return Found(folder, catalog.CAPTIONER_OF_MODEL_TYPE[model_type])


def local_folder(name: str, models_dirs: Sequence[Path] = ()) -> Path | None:
    """Return where a captioner of the catalogue is on this machine, or None."""
    return _local_folder(catalog.CAPTIONERS[name].hub, models_dirs, [])


def _unknown(name: str) -> UnknownModel:
    names_of_hubs = {row.hub: key for key, row in catalog.CAPTIONERS.items()}
    near = catalog.nearest(name, [*catalog.CAPTIONERS, catalog.DEMO, catalog.NO_CAPTIONER])
    if name in names_of_hubs:
        near = (names_of_hubs[name],)
    return UnknownModel(
        f"No captioner and no folder is called {name!r}." + catalog.did_you_mean(near), near
    )


def _published_folder(name: str, models_dirs: Sequence[Path], tick: Tick) -> Path:
    leftovers.clear(models_dirs)
    hub = catalog.CAPTIONERS[name].hub
    models_dir = weights.first_of(models_dirs)
    tried: list[str] = []
    found = _local_folder(hub, models_dirs, tried)
    if found is not None:
        return found
    try:
        return downloads.attempt(lambda transfer: _download(hub, models_dir, transfer), tick)
    except downloads.NoDownload as error:
        target = (models_dir or Path("MODELS_FOLDER")) / hub.split("/")[1]
        option = "" if models_dir else " and name MODELS_FOLDER as the models folder (--models-dir)"
        raise MissingModel(
            f"The captioner {name} is not on this machine, and {error}. Looked in: "
            f"{'; '.join(tried)}. To put it there: with a network, run `hf download {hub} "
            f"--local-dir {target}` (`huggingface-cli download` in older installations), or copy "
            f"that folder to {target}{option}."
        ) from error


def _local_folder(hub: str, models_dirs: Sequence[Path], tried: list[str]) -> Path | None:
    """Return where the repository's files are on this machine; `tried` is given each place."""
    from huggingface_hub import constants, try_to_load_from_cache

    def in_cache(cache: Path) -> Path | None:
        tried.append(str(cache / f"models--{flat_name}"))
        config = try_to_load_from_cache(hub, "config.json", cache_dir=cache)
        if isinstance(config, str) and is_complete(Path(config).parent):
            return Path(config).parent
        return None

    flat_name, last = hub.replace("/", "--"), hub.split("/")[1]
    for models_dir in models_dirs:
        folders = (models_dir / last, models_dir / "captioners" / last, models_dir / flat_name)
        for folder in folders:
            tried.append(str(folder))
            if is_complete(folder):
                return folder
        if found := in_cache(models_dir):
            return found
    return in_cache(Path(constants.HF_HUB_CACHE))


def _download(hub: str, models_dir: Path | None, transfer: downloads.Transfer) -> Path:
    """Download a repository's small files and its weights, as safetensors where it has them."""
    from huggingface_hub import HfApi

    if not downloads.hub_is_reachable():
        raise downloads.Unreachable("the Hugging Face hub can't be reached")
    names = [name for name in HfApi().list_repo_files(hub) if "/" not in name]
    small = [name for pattern in _SMALL_FILES for name in fnmatch.filter(names, pattern)]
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        if large := fnmatch.filter(names, pattern):
            folder = downloads.fetch(hub, [*small, *large], models_dir, transfer).parent
            if is_complete(folder):
                return folder
    raise OSError(f"{hub} came without its weights")


def is_complete(folder: Path) -> bool:
    """Say whether a folder holds a configuration and each of its weights files.

    Where it does not say which files those are, it counts as complete: loading it tells why not.
    """
    if not (folder / "config.json").is_file():
        return False
    try:
        files = _weights_files(folder)
    except BrokenModel:
        return True
    return bool(files) and all(file.is_file() for file in files)


# --- how it is loaded ---


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; raises BrokenModel for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenModel(f"{path} can't be read as JSON ({_first_line(error)}).") from error
    if not isinstance(content, dict):
        raise BrokenModel(f"{path} does not hold a JSON object.")
    return content


def _weights_files(folder: Path) -> list[Path]:
    for name in _WEIGHTS_NAMES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            parts = read_json(index).get("weight_map")
            if not isinstance(parts, dict):
                raise BrokenModel(f"{index} does not say which files hold the weights.")
            return [folder / part for part in sorted(set(map(str, parts.values())))]
    return []


def _read_weights(folder: Path, *, official: bool) -> dict[str, Tensor]:
    """Read all tensors of a folder; pickled ones only where they come from the catalogue."""
    files = _weights_files(folder)
    if not files:
        raise MissingModel(f"{folder} holds no weights ({_WEIGHTS_NAMES[0]}).")
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise BrokenModel(f"{file.name} is missing from {folder}, whose index names it.")
        state.update(weights.read(file, official_url="" if official else None))
    return state


def _build(kind: Any, folder: Path, state: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """Build the network of a folder and fill it; raises BrokenModel where anything is left over.

    Weights are handed to transformers as tensors, because 4.30 would open a .bin with pickle.
    """
    from huggingface_hub import errors

    # Newer configurations check their values, with an error of their own.
    strict = getattr(errors, "StrictDataclassError", ValueError)
    # To keep some layers in float32, 4.x would look for a file again; and it leaves weights out of
    # the missing ones that it hopes are shared.
    changes = {"_keep_in_fp32_modules": None, "_keys_to_ignore_on_load_missing": None}
    plain: Any = type(kind.__name__, (kind,), changes)
    try:
        with memory_errors():
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            module, info = plain.from_pretrained(
                None, config=config, state_dict=state, torch_dtype=dtype, output_loading_info=True
            )
    except (*weights.UNUSABLE, OSError, strict) as error:
        raise BrokenModel(
            f"{folder} does not make a working {kind.__name__} ({_first_line(error)})."
        ) from error
    left = _left_random(module, set(info["missing_keys"]))
    if left:
        raise BrokenModel(
            f"The weights in {folder} lack {len(left)} that the configuration asks for (for "
            f"instance {', '.join(left[:3])}), so the captions would be random. Bring the whole "
            "model again."
        )
    if dtype == torch.float16:
        _keep_in_float32(module, {"wo", *(kind._keep_in_fp32_modules or ())})
    return module.eval().requires_grad_(False)


def _keep_in_float32(module: torch.nn.Module, parts: set[str]) -> None:
    """Give some layers the range that float16 lacks; "wo" is T5's, whose sums overflow in it."""
    for name, parameter in module.named_parameters():
        if parts.intersection(name.split(".")):
            parameter.data = parameter.data.float()


def _left_random(module: torch.nn.Module, missing: set[str]) -> list[str]:
    """Return the missing parameters that are not one and the same with a parameter that is there.

    Buffers are not meant: what these networks keep in them follows from the configuration.
    """
    parameters = list(module.named_parameters(remove_duplicate=False))
    filled = {id(parameter) for name, parameter in parameters if name not in missing}
    return [n for n, parameter in parameters if n in missing and id(parameter) not in filled]


def _load_image_processor(folder: Path, default_kind: str) -> Any:
    """Build what turns a picture into pixels, the same in all versions of transformers.

    It is the form that works with PIL, which newer versions call so; and its settings are read
    here, because 4.x does not look into the processor_config.json that 5.x writes.
    """
    settings: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        settings = read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        settings = read_json(folder / "processor_config.json").get("image_processor", {})
    saved_kind = str(settings.get("image_processor_type", default_kind))
    name = saved_kind.removesuffix("Fast").removesuffix("Pil")
    if not name.endswith("ImageProcessor"):
        name = default_kind
    kind = from_transformers(f"{name}Pil") or from_transformers(name)
    if kind is None:
        raise BrokenModel(f"This transformers has no {name}, which {folder} asks for.")
    try:
        processor = kind.from_dict(settings)
        with memory_errors():
            _as_pixels(processor, Image.new("RGB", (4, 4)))  # some settings are read only then
    except weights.UNUSABLE as error:
        raise BrokenModel(
            f"The picture settings in {folder} can't be used ({_first_line(error)})."
        ) from error
    return processor


def _load_tokenizer(folder: Path) -> Any:
    """Return what turns ids into text; captioners read no text, so decoding is all that is asked.

    The file itself is preferred to its class: the name that 5.x gives one is unknown to 4.x.
    """
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return import_module("tokenizers").Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - tokenizers raises nothing narrower
            log.debug("%s can't be read by this tokenizers: %s", file, error)
    kind = from_transformers("AutoTokenizer")
    try:
        return kind.from_pretrained(
            folder, use_fast=False, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # slow ones call tokenizers too, which has no narrower error
        raise BrokenModel(
            f"{folder} holds no tokenizer that can be read ({_first_line(error)})."
        ) from error


def _token_roles(folder: Path, config: Any) -> dict[str, Any]:
    """Return which token starts, ends and pads a sentence.

    What the folder says of its language model comes first, then its generation settings, then
    the defaults of transformers' configuration.
    """
    written = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    saved = read_json(generation) if generation.is_file() else {}
    sources = [written.get("text_config") or written, saved, vars(_text_config(config))]
    roles = {}
    for role in _TOKEN_ROLES:
        values = (source[role] for source in sources if source.get(role) is not None)
        roles[role] = next(values, None)
    return roles


def _text_config(config: Any) -> Any:
    return getattr(config, "text_config", None) or config


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' own remarks and bars: what matters is said by our errors."""
    chatter = from_transformers("utils").logging
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".:")


# --- how a sentence is written ---


def _as_pixels(image_processor: Any, image: Image.Image) -> Tensor:
    """Return an RGB image as a network reads it: (channels, height, width), on the CPU."""
    # transformers would take a side of 1 or 3 for the color channels.
    image = image.resize((max(image.width, 4), max(image.height, 4)))
    pixels: Tensor = image_processor(images=image, return_tensors="pt")["pixel_values"]
    return pixels[0]


class _Steps:
    """Calls the tick before each token; transformers takes it for a logits processor."""

    def __init__(self, tick: Tick, total: int) -> None:
        self.in_tick = False
        self.prompt_length = 0
        self._tick = tick
        self._done = 0
        self._total = total

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._done == 0:
            self.prompt_length = input_ids.shape[-1]
        self.in_tick = True
        self._tick("caption", self._done, self._total)
        self.in_tick = False
        self._done += 1
        return scores


class TransformersCaptioner:
    """A captioner of transformers; each kind says how it writes in `write`."""

    model_class: ClassVar[str]
    image_processor_class: ClassVar[str]

    def __init__(
        self, name: str, module: Any, image_processor: Any, tokenizer: Any, roles: dict[str, Any]
    ) -> None:
        self.name = name
        self.module = module
        self.roles = roles
        self.preprocess = functools.partial(_as_pixels, image_processor)
        self._tokenizer = tokenizer
        self._beams_work = True
        # In place of the folder's own settings, which may ask for sampling.
        settings = {role: value for role, value in roles.items() if value is not None}
        self.writer().generation_config = from_transformers("GenerationConfig")(**settings)

    @classmethod
    def load(cls, name: str, found: Found, dtype: torch.dtype) -> TransformersCaptioner:
        """Load the captioner of a folder, its weights on the CPU."""
        with packages.needed("transformers"):
            kind = from_transformers(cls.model_class)
            kind.config_class  # noqa: B018 - a stand-in without torch says so when it is asked
        with _quiet():
            state = cls.complete(_read_weights(found.folder, official=found.official))
            module = _build(kind, found.folder, state, dtype)
            image_processor = _load_image_processor(found.folder, cls.image_processor_class)
            tokenizer = _load_tokenizer(found.folder)
        roles = _token_roles(found.folder, module.config)
        return cls(name, module, image_processor, tokenizer, roles)

    @classmethod
    def complete(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights with those that a version leaves out of its files."""
        return state

    def writer(self) -> Any:
        """Return the part of the network whose `generate` writes the tokens."""
        return self.module

    def write(self, pixels: Tensor, **settings: Any) -> Tensor:
        """Return what `generate` returns for (n, channels, height, width) pixels: (n, count)."""
        raise NotImplementedError

    def caption(self, image: Image.Image, options: CaptionOptions, tick: Tick = no_tick) -> str:
        """Return the caption of one RGB image."""
        return self.captions(self.preprocess(image)[None], options, tick)[0]

    @torch.inference_mode()
    def captions(
        self, pixels: Tensor, options: CaptionOptions, tick: Tick = no_tick
    ) -> list[str]:
        """Return the captions of prepared images, as plain text without special tokens."""
        patches = next(part for part in self.module.modules() if isinstance(part, torch.nn.Conv2d))
        pixels = pixels.to(patches.weight.device, patches.weight.dtype)
        with _quiet():
            if options.beams > 1 and self._beams_work:
                steps = _Steps(tick, options.max_length)
                try:
                    with memory_errors():
                        return self._captions(pixels, options, options.beams, steps)
                except _BEAM_FAILURES as error:
                    if steps.in_tick:
                        raise
                    self._beams_work = False
                    log.warning(
                        "%s can't search with %d beams in this transformers (%s); its captions "
                        "are written greedily",
                        self.name, options.beams, _first_line(error),
                    )
            steps = _Steps(tick, options.max_length)
            try:
                with memory_errors():
                    return self._captions(pixels, options, 1, steps)
            except weights.UNUSABLE as error:
                if steps.in_tick:
                    raise
                raise BrokenModel(
                    f"{self.name} can't write a caption ({_first_line(error)}): its files are "
                    "damaged, or this transformers can't run it. Bring the whole model again."
                ) from error

    def _captions(
        self, pixels: Tensor, options: CaptionOptions, beams: int, steps: _Steps
    ) -> list[str]:
        settings: dict[str, Any] = {
            "do_sample": False, "num_beams": beams, "max_new_tokens": options.max_length,
            "logits_processor": [steps],
        }
        if options.min_length:
            settings["min_new_tokens"] = options.min_length
        # What stands before the first new token depends on the kind and the version.
        rows = self.write(pixels, **settings)[:, steps.prompt_length :].tolist()
        return [
            str(self._tokenizer.decode(self._ended(row), skip_special_tokens=True)).strip()
            for row in rows
        ]

    def _ended(self, ids: list[int]) -> list[int]:
        """Cut off what fills a row up behind its end."""
        end = self.roles["eos_token_id"]
        ends = end if isinstance(end, list) else [end]
        return ids[: next((at for at, one in enumerate(ids) if one in ends), len(ids))]
