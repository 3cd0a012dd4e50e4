"""Where the models of the catalog are on this machine; download and delete them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import MissingModel, NotAllowed, UnknownModel
from clip_interrogator_ext.host import as_path, is_file, is_folder
from clip_interrogator_ext.models import captioning, downloads, leftovers, open_clip, weights
from clip_interrogator_ext.models.base import Tick, no_tick
from clip_interrogator_ext.results import ModelPlace

_CONFIG_NAMES = ("config.json", "open_clip_config.json")
_WEIGHTS_PATTERNS = ("*.safetensors", "*.bin")


def place(name: str, models_dirs: Sequence[Path] = ()) -> ModelPlace | None:
    """Return where a model's weights are on this machine, or None; downloads nothing.

    A name is `architecture/pretrained`, a captioner of the catalog, "demo", a folder or
    `architecture=FILE`. Raises UnknownModel with the nearest names.
    """
    if name in catalog.CAPTIONERS:
        found = captioning.local_folder(name, models_dirs)
    elif name == catalog.DEMO:
        found = open_clip.DEMO_FOLDER.parent
    elif name and is_folder(name):
        found = as_path(name) if _is_model(as_path(name)) else None
    elif "=" in name:
        architecture, _, file = name.partition("=")
        open_clip.plan_architecture(architecture)
        found = as_path(file) if is_file(file) else None
    else:
        found = _find_backbone(_published(name), models_dirs)
    return None if found is None else _describe(_whole(found), models_dirs)


def download(name: str, models_dirs: Sequence[Path] = (), tick: Tick = no_tick) -> ModelPlace:
    """Download a backbone or captioner into the first models folder, unless it is here.

    tick("Downloading", mebibytes, of how many) is called several times a second, and may raise
    Interrupted. Raises UnknownModel or MissingModel.
    """
    found = place(name, models_dirs)
    if found is not None:
        return found
    if is_folder(name) or "=" in name:
        raise MissingModel(
            f"There is no model at {name}, and only published ones can be downloaded. Bring its "
            "files there, or choose a name from `clip-interrogator-ext models`."
        )
    if name in catalog.CAPTIONERS:
        arrived = captioning.find(name, models_dirs, tick).folder
    else:
        arrived = weights.find(_published(name), models_dirs, tick)
    return place(name, models_dirs) or _describe(arrived, models_dirs)


def delete(name: str, models_dirs: Sequence[Path] = ()) -> int:
    """Delete a model from the first models folder; return how many bytes that freed.

    Raises UnknownModel, MissingModel, or NotAllowed where the model is not ours to delete.
    """
    found = place(name, models_dirs)
    if found is None:
        return _delete_unfinished(name, models_dirs)
    if name == catalog.DEMO:
        raise NotAllowed("The demo models come with this extension and can't be deleted.")
    if not found.deletable:
        ours = f"our own models folder ({models_dirs[0]})" if models_dirs else "a models folder"
        raise NotAllowed(
            f"{name} lies in {found.path}, not wholly inside {ours}, so it is left alone. Delete "
            "it there yourself, if no other program needs it."
        )
    return _remove(found.path)


def _delete_unfinished(name: str, models_dirs: Sequence[Path]) -> int:
    """Delete what a download has brought that broke off."""
    unfinished = [path for path in _unfinished(name, models_dirs) if path.exists()]
    if not unfinished:
        raise MissingModel(f"{name} is not on this machine: there is nothing to delete.")
    freed = 0
    for path in unfinished:
        if not _describe(path, models_dirs).deletable:
            raise NotAllowed(f"{path} leads out of our own models folder, so it is left alone.")
        for file in [*_files(path)]:
            if file.name.startswith(leftovers.PARTIAL):
                size = file.stat().st_size
                if not leftovers.remove_partial(file):
                    raise NotAllowed(f"{name} is being downloaded: stop that first.")
                freed += size
        if path.exists():
            freed += _remove(path)
    return freed


def _unfinished(name: str, models_dirs: Sequence[Path]) -> Iterator[Path]:
    """Yield where a download into our own models folder leaves what it has brought."""
    folder = weights.first_of(models_dirs)
    if folder is None or is_folder(name) or "=" in name:
        return
    if name in catalog.CAPTIONERS:
        yield downloads.storage_of(catalog.CAPTIONERS[name].hub, folder)
        return
    source = _published(name)
    if source.hub:
        yield downloads.storage_of(source.hub, folder)
    if source.url:
        yield downloads.partial_of(weights.target_of(source, folder))


def is_within(name: str, folders: Sequence[Path]) -> bool:
    """Say whether a folder, or the file of `architecture=FILE`, is in one of some folders.

    Links are followed, so that none leads out.
    """
    try:
        path = as_path(name if is_folder(name) else name.partition("=")[2] or name).resolve()
        return any(path.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, ValueError, RuntimeError):  # there can be no such file
        return False


def require_published(name: str) -> None:
    """Raise UnknownModel for a name that is not that of a published model; looks at no file."""
    if name not in (*catalog.CAPTIONERS, catalog.DEMO):
        _published(name)


def _published(name: str) -> weights.Source:
    """Say where a backbone is published; an unknown name may be meant for a captioner."""
    try:
        return open_clip.published_source(name)
    except UnknownModel as error:
        captioners = catalog.nearest(name, [*catalog.CAPTIONERS, catalog.DEMO])
        if not captioners:
            raise
        near = (*captioners, *error.nearest)[:3]
        raise UnknownModel(
            f"No model is called {name!r}." + catalog.did_you_mean(near), near
        ) from error


def _is_model(folder: Path) -> bool:
    """Say whether a folder holds a configuration and weights, be they a whole model or not."""
    return any((folder / name).is_file() for name in _CONFIG_NAMES) and any(
        next(folder.glob(pattern), None) for pattern in _WEIGHTS_PATTERNS
    )


def _find_backbone(source: weights.Source, models_dirs: Sequence[Path]) -> Path | None:
    """Return the folder that is a backbone's own, or the file where it has none."""
    checkpoint = weights.is_here(source, models_dirs)
    if checkpoint is None:
        return None
    folder = checkpoint.parent
    own = {models_dir / name for models_dir in models_dirs for name in source.folders}
    return folder if folder in own or folder.parent.name == "snapshots" else checkpoint


def _whole(found: Path) -> Path:
    """Return what is to be deleted with a model: of huggingface_hub's cache, all its versions."""
    storage = found.parent.parent
    if found.parent.name == "snapshots" and storage.name.startswith("models--"):
        return storage
    return found


def _describe(path: Path, models_dirs: Sequence[Path]) -> ModelPlace:
    files = {file.resolve() for file in _files(path.resolve())}  # a file and links to it are one
    size = sum(file.stat().st_size for file in files if file.is_file())
    return ModelPlace(path, size, _is_ours(path, files, models_dirs))


def _files(path: Path) -> Iterator[Path]:
    """Yield a file or link, or all of those below a folder, no link being followed."""
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            yield from _files(inner)
    else:
        yield path


def _is_ours(path: Path, files: set[Path], models_dirs: Sequence[Path]) -> bool:
    """Say whether a model lies in the first models folder, with all that its links lead to."""
    folder = weights.first_of(models_dirs)
    if folder is None or path.is_symlink():
        return False
    root = folder.resolve()
    return path.resolve() != root and all(
        one.is_relative_to(root) for one in (path.resolve(), *files)
    )


def _remove(path: Path) -> int:
    # Links inside a folder go, but what they lead to may be another model's.
    freed = sum(file.stat().st_size for file in _files(path) if not file.is_symlink())
    try:
        leftovers.remove(path)
    except OSError as error:
        raise NotAllowed(
            f"{path} can't be deleted ({error.strerror or error}). Close the programs that use "
            "it, see that it may be written, and try again."
        ) from error
    return freed
