"""Every lasting preference, described once."""

from __future__ import annotations

from dataclasses import dataclass

from clip_interrogator_ext import catalog


@dataclass(frozen=True)
class Setting:
    """One preference: what it is called, what it may be, and what it does."""

    key: str
    label: str
    default: str | int | bool | None
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


_ROWS = (
    Setting(
        "mode", "Mode", "best", "How phrases are joined into the prompt.",
        choices=tuple(catalog.MODES),
    ),
    Setting(
        "negative", "Negative prompt too", False,
        "Make the negative prompt in the same run.",
    ),
    Setting(
        "clip", "CLIP backbone", catalog.DEFAULT_BACKBONE,
        "The network that ranks phrases against the picture: architecture/pretrained, a "
        "checkpoint as architecture=FILE, or a folder in open_clip's format.",
    ),
    Setting(
        "captioner", "Captioner", catalog.DEFAULT_CAPTIONER,
        "The network that says what is in the picture: a name, a folder, or none.",
    ),
    Setting(
        "vocabulary", "Word lists", catalog.ALL_LISTS,
        "The set of word lists that prompts are made from: all, or the name of another.",
    ),
    Setting(
        "leave_out", "Leave out", None,
        "Words or phrases that never come out, in captions neither; commas between them.",
    ),
    Setting(
        "replacements", "Replace", None,
        "Words that come out in place of others: OLD=NEW, commas between them.",
    ),
    Setting(
        "caption_beams", "Caption beams", 1,
        "How many captions the captioner follows at once; more is slower and often more exact.",
        1, 16,
    ),
    Setting(
        "caption_min_length", "Caption minimum length", 0,
        "The fewest tokens of a caption.", 0, 256,
    ),
    Setting(
        "caption_max_length", "Caption maximum length", 32,
        "The most tokens of a caption.", 1, 256,
    ),
    Setting(
        "pool_size", "Pool size", 2048,
        "How many of the best phrases `best`, `turbo` and `negative` search through.", 1, 1_000_000,
    ),
    Setting(
        "min_flavors", "Minimum flavors", 8,
        "How many phrases the search adds before it may stop; the best text met on the way wins, "
        "so the prompt may have fewer.", 0, 256,
    ),
    Setting(
        "max_flavors", "Maximum flavors", None,
        "The most phrases that are added or tried; empty: 3 in classic, 32 elsewhere.", 0, 256,
    ),
    Setting(
        "token_budget", "Token budget", None,
        "The most tokens of a prompt; empty: what the backbone reads (75 for CLIP).", 1, 512,
    ),
    Setting(
        "chunk_size", "Chunk size", 64,
        "How many texts are encoded at once; fewer need less memory.", 1, 4096,
    ),
    Setting(
        "low_memory", "Low memory", False,
        "Keep at most one network on the device; with several backbones that is slow.",
    ),
    Setting(
        "after_run", "After a run", "offload",
        "What becomes of the networks: keep leaves them on the device, offload moves them to the "
        "CPU's memory, unload lets go of them.",
        choices=("keep", "offload", "unload"),
    ),
    Setting(
        "device", "Device", None,
        "Where the networks run: cpu, cuda, cuda:1, mps, ...; empty: the best there is.",
    ),
    Setting(
        "models_dir", "Models folder", None,
        "Where weights are looked for first and downloaded to; empty: the usual caches.",
    ),
    Setting(
        "lists_dir", "Word lists folder", None,
        "A folder of your own word lists and sets, which add to or replace the bundled ones; "
        "empty: the folder lists beside your models, or in your user data.",
    ),
    Setting(
        "wildcards_dir", "Wildcards folder", None,
        "A folder of wildcard files as Dynamic Prompts has them; empty: that of the extension.",
    ),
    Setting(
        "interrogate_dir", "Interrogate folder", None,
        "A folder of word lists as AUTOMATIC1111's own interrogator has them, with names like "
        "flavors.top3.txt; empty: the WebUI's.",
    ),
    Setting(
        "cache_dir", "Cache folder", None,
        "Where the vectors of word lists are kept; empty: the user's cache folder.",
    ),
)

SETTINGS: dict[str, Setting] = {row.key: row for row in _ROWS}
