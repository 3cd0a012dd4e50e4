"""Find a backbone's weights on this machine or download them, and read them safely."""

from __future__ import annotations

import logging
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clip_interrogator_ext.errors import BrokenModel, MissingModel, UnsafeWeights
from clip_interrogator_ext.models import downloads, leftovers
from clip_interrogator_ext.models.base import Tick, no_tick

if TYPE_CHECKING:
    from clip_interrogator_ext.models.downloads import Transfer

log = logging.getLogger(__name__)

SAFETENSORS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
OFFICIAL_PICKLE_NAMES = ("open_clip_pytorch_model.bin",)
# What libraries raise where the files of a model are damaged, or don't fit together.
UNUSABLE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
    ArithmeticError,
)
_UNREADABLE = (  # what torch's reader of pickles raises when it is given something else
    *UNUSABLE, pickle.UnpicklingError, EOFError, OSError, struct.error, zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Source:
    """Where a published checkpoint comes from.

    `hub` is a repository, with the name of a file in it where that is not the usual one; `url`
    is a plain address, whose own text holds the first digits of the file's SHA-256.
    """

    name: str
    hub: str = ""
    file: str = ""
    url: str = ""
    folders: tuple[str, ...] = ()
    """Names that a folder of these weights may have inside the models folder."""


@dataclass
class _Places:
    """The places that were looked in, for the message when nothing was found."""

    tried: list[str] = field(default_factory=list)

    def add(self, place: Path) -> None:
        if str(place) not in self.tried:
            self.tried.append(str(place))


def find(source: Source, models_dirs: Sequence[Path] = (), tick: Tick = no_tick) -> Path:
    """Return the path of a checkpoint file: found on this machine, or downloaded.

    Each models folder is looked in, then the usual caches; a download goes to the first folder.
    While it is downloaded, tick("Downloading", mebibytes, of how many) is called several times a
    second. Raises MissingModel, which names every place that was looked in.
    """
    leftovers.clear(models_dirs)
    models_dir = first_of(models_dirs)
    places = _Places()
    found = _find_local(source, models_dirs, places)
    if found is not None:
        return found
    try:
        return downloads.attempt(lambda transfer: _download(source, models_dir, transfer), tick)
    except downloads.NoDownload as error:
        raise MissingModel(
            f"The weights of {source.name} are not on this machine, and {error}. Looked in: "
            + "; ".join(places.tried)
            + f". To put them there: {_advice(source, models_dir)}"
        ) from error


def is_here(source: Source, models_dirs: Sequence[Path] = ()) -> Path | None:
    """Return the path of a checkpoint file on this machine, or None; downloads nothing."""
    return _find_local(source, models_dirs, _Places())


def first_of(models_dirs: Sequence[Path]) -> Path | None:
    """Return the folder that downloads go to; None means the usual caches."""
    return next(iter(models_dirs), None)


def _find_local(source: Source, models_dirs: Sequence[Path], places: _Places) -> Path | None:
    for folder in (*models_dirs, None):
        for place, candidate in _candidate_files(source, folder):
            places.add(place)
            if candidate.is_file():
                return candidate
        if source.hub and (found := _find_in_hub_cache(source, folder, places)):
            return found
    return None


def _candidate_files(source: Source, models_dir: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a models folder that may be the checkpoint, or of the usual cache.

    Each stands behind the place to name for it.
    """
    file_of_url = source.url.rsplit("/", 1)[-1]
    if models_dir is None:
        if file_of_url:
            path = Path.home() / ".cache" / "clip" / file_of_url
            yield path, path
        return
    names = [*SAFETENSORS_NAMES, *([source.file] if source.file else OFFICIAL_PICKLE_NAMES)]
    for folder in source.folders:
        for name in names:
            yield models_dir / folder, models_dir / folder / name
    for name in (f"{source.folders[0]}.safetensors" if source.folders else "", file_of_url):
        if name:
            yield models_dir / name, models_dir / name


def _hub_file_names(source: Source) -> tuple[str, ...]:
    if not source.file:
        return (*SAFETENSORS_NAMES[:2], *OFFICIAL_PICKLE_NAMES)
    stem = source.file.rsplit(".", 1)[0]
    return tuple(dict.fromkeys((f"{stem}.safetensors", source.file)))


def _find_in_hub_cache(source: Source, cache: Path | None, places: _Places) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    places.add(downloads.storage_of(source.hub, Path(cache or constants.HF_HUB_CACHE)))
    for name in _hub_file_names(source):
        found = try_to_load_from_cache(source.hub, name, cache_dir=cache)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(source: Source, models_dir: Path | None, transfer: Transfer) -> Path:
    if source.hub and downloads.hub_is_reachable():
        return _download_from_hub(source, models_dir, transfer)
    if not source.url:
        raise downloads.Unreachable("the Hugging Face hub can't be reached")
    try:
        return downloads.fetch_url(source.url, target_of(source, models_dir), transfer)
    except downloads.Unreachable as error:
        if source.hub:
            raise downloads.Unreachable(
                f"the Hugging Face hub can't be reached, and {error}"
            ) from error
        raise


def target_of(source: Source, models_dir: Path | None) -> Path:
    """Return where a file from a plain address goes."""
    return (models_dir or Path.home() / ".cache" / "clip") / source.url.rsplit("/", 1)[-1]


def _download_from_hub(source: Source, models_dir: Path | None, transfer: Transfer) -> Path:
    from huggingface_hub.utils import EntryNotFoundError

    names = _hub_file_names(source)
    for name in names:
        try:
            return downloads.fetch(source.hub, [name], models_dir, transfer)
        except EntryNotFoundError as error:
            if "LocalEntryNotFound" in type(error).__name__:
                raise OSError(_first_line(error)) from error
            log.info("%s has no %s", source.hub, name)
    raise OSError(f"{source.hub} has none of {', '.join(names)}")


def read(path: Path, *, official_url: str | None = None) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors by name, without running anything that it contains.

    Safetensors are read as they are. `official_url` marks a checkpoint that open_clip names
    itself (empty where it comes from a hub): such a one is read with `weights_only=True`, or as
    TorchScript after its published hash matched. Any other kind raises UnsafeWeights.
    """
    if path.suffix == ".safetensors":
        try:
            return _tidy(load_file(path))
        except (SafetensorError, OSError) as error:
            raise _broken(path, error) from error
    if official_url is None:
        raise UnsafeWeights(
            f"{path} is not a safetensors file, and a pickled checkpoint can run code of its "
            "maker when it is opened. Use the model's safetensors, or convert the file on a "
            "machine where you trust it: load it with torch.load(..., weights_only=True) and save "
            "it with safetensors.torch.save_file."
        )
    try:
        if _is_torchscript(path):
            return _read_torchscript(path, official_url)
        if tarfile.is_tarfile(path):  # torch before 2.6 runs what is in those
            raise ValueError("it is of a kind that torch no longer writes")
        return _tidy(torch.load(path, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        raise _broken(path, error) from error


def _is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, by the mark that torch itself goes by.

    Asked first, because torch before 2.6 runs such a file in spite of `weights_only`.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def _read_torchscript(path: Path, official_url: str) -> dict[str, torch.Tensor]:
    if not downloads.matches_published_hash(path, official_url):
        raise ValueError("it is a program, and does not have its published hash")
    load_script: Any = torch.jit.load  # torch leaves it without types
    return _tidy(load_script(str(path), map_location="cpu").state_dict())


def _tidy(checkpoint: Any) -> dict[str, torch.Tensor]:
    """Unwrap a training checkpoint, and drop what is not a weight."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("it holds no tensors by name")
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    extra = {"input_resolution", "context_length", "vocab_size"}
    return {name: tensor for name, tensor in state.items() if name not in extra}


def _broken(path: Path, error: Exception) -> BrokenModel:
    return BrokenModel(
        f"{path} can't be read as a checkpoint ({_first_line(error)}). Delete it and download it "
        "again."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _advice(source: Source, models_dir: Path | None) -> str:
    folder = models_dir or Path("MODELS_FOLDER")
    option = "" if models_dir else ", with MODELS_FOLDER as the models folder (--models-dir)"
    if source.hub:
        name = _hub_file_names(source)[0]
        target = folder / source.folders[0] / SAFETENSORS_NAMES[0]
        return (
            f"with a network, run `hf download {source.hub}`; or bring {name} from {source.hub} "
            f"as {target}{option}."
        )
    return f"bring {source.url} as {folder / source.url.rsplit('/', 1)[-1]}{option}."
