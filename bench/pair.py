"""Give both programs the same network, word lists, vectors and picture."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import write_lists
from safetensors.numpy import save_file

from clip_interrogator_ext import drop_in
from clip_interrogator_ext.models import open_clip
from clip_interrogator_ext.models.residency import dtype_for

# The peer calls the old name of autocast at every step, and clip-interrogator is no longer mended.
warnings.filterwarnings("ignore", message=r".*torch\.cuda\.amp\.autocast")
warnings.filterwarnings("ignore", message="(User provided device_type|CUDA is not available)")

CAPTION = "two red cats on a beach"
TABLES = ("artists", "flavors", "mediums", "movements", "trendings", "negative")


@dataclass(frozen=True)
class Setup:
    """A network by its architecture, or "demo"; how long lists may be; and where it all lies."""

    architecture: str
    most_lines: int
    folder: Path
    device: str

    @property
    def name(self) -> str:
        """The name that both programs know the network by."""
        return f"{'ViT-B-32' if self.architecture == 'demo' else self.architecture}/bench"

    @property
    def cache(self) -> Path:
        """The folder of both programs' vectors."""
        return self.folder / self.architecture

    def lists(self) -> Path:
        """Write the word lists, and return their folder."""
        return write_lists(self.folder / "lists", self.most_lines)


def network(setup: Setup) -> tuple[Any, Any]:
    """Return the module and the transform of pictures; weights are random unless it is the demo.

    The precision is the one that both programs choose on the device.
    """
    device = torch.device(setup.device)
    dtype = dtype_for(device)
    if setup.architecture == "demo":
        loaded = open_clip.load("demo", device=device, dtype=dtype)
        return loaded.module, loaded.preprocess
    torch.manual_seed(0)
    model = open_clip.build(open_clip.plan_architecture(setup.architecture).config, dtype)
    return model.to(device), open_clip.preprocess_of(model, {})


def ours(setup: Setup, module: Any, preprocess: Any) -> drop_in.Interrogator:
    """Return our engine under the peer's names; it computes and keeps its vectors."""
    return drop_in.Interrogator(_config(drop_in, setup, module, preprocess))


def theirs(setup: Setup, module: Any, preprocess: Any) -> Any:
    """Return the peer; it finds its vectors where `keep_for_peer` put them."""
    import peer  # a process that measures ours alone does not pay for it

    made = peer.Interrogator(_config(peer, setup, module, preprocess))
    # It has sites of its own in its code, and ours are others.
    sites = drop_in.load_list(str(setup.lists() / "sites.txt"))
    made.trendings = peer.LabelTable(drop_in._by_template("sites", sites), "sites", made)
    return made


def keep_for_peer(setup: Setup, made: drop_in.Interrogator) -> None:
    """Write the vectors that ours has as the peer keeps its own."""
    for name in TABLES:
        table = getattr(made, name)
        digest = hashlib.sha256(",".join(table.labels).encode()).hexdigest()
        hashed = torch.tensor([ord(sign) for sign in digest], dtype=torch.int8)
        vectors = table.as_table(name).vectors[0]
        kept_as = "sites" if name == "trendings" else name
        save_file(
            {"embeds": vectors.numpy(), "hash": hashed.numpy()},
            setup.cache / f"{setup.name.replace('/', '_')}_{kept_as}.safetensors",
        )


def _config(program: Any, setup: Setup, module: Any, preprocess: Any) -> Any:
    """Return a program's settings: its own, but that each of its rankings is exact."""
    config = program.Config(
        caption_model_name=None, clip_model_name=setup.name, quiet=True, download_cache=False,
        cache_path=str(setup.cache), data_path=str(setup.lists()), device=setup.device,
        chunk_size=1_000_000,
    )
    config.clip_model, config.clip_preprocess = module, preprocess
    return config
