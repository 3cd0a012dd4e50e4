"""What can be chosen, as text: modes, backbones, captioners, target generators.

Listing imports nothing: the rows name the code that stands behind them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

DEMO = "demo"
"""The name by which the bundled demo models are asked for, as backbone and as captioner."""

MODES: dict[str, str] = {
    "best": "The caption, then a search for the phrases that bring text and picture closest.",
    "turbo": "The caption, then nearly what `best` finds, by a search that tries few phrases.",
    "fast": "The caption, then the phrases that are each closest to the picture.",
    "classic": "The caption, then a medium, an artist, a site, a movement and a few flavors.",
    "negative": "The phrases farthest from the picture, for the negative prompt.",
    "caption": "What is in the picture, in one sentence.",
    "style": "No caption: only how the picture looks, after a subject of your own if you give one.",
}

MODES_WITH_CAPTION = frozenset({"best", "turbo", "fast", "classic", "caption"})

CATEGORIES: tuple[str, ...] = ("artists", "flavors", "mediums", "movements", "sites")
"""The positive categories in the order in which their tables are merged, which decides ties."""

NEGATIVE_CATEGORY = "negative"

ALL_LISTS = "all"
"""The name of the set of all word lists, ours and the user's."""


@dataclass(frozen=True)
class Backbone:
    """A CLIP backbone worth recommending.

    `hub` is the repository that holds its weights as safetensors, for an open_clip that knows
    only another form; `parameters` counts millions; `download_bytes` is the size of the weights.
    """

    name: str
    suits: str
    why: str
    parameters: int
    download_bytes: int
    hub: str = ""


BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        Backbone(
            "ViT-L-14/openai", "SD 1.x, SD 3, Flux",
            "The very text encoder that Stable Diffusion 1.x reads prompts with; SD 3 and Flux "
            "read with it too.",
            428, 1_710_517_724, "timm/vit_large_patch14_clip_224.openai",
        ),
        Backbone(
            "ViT-L-14-336/openai", "SD 1.x",
            "The same text encoder with a sharper eye: it sees 336 pixels instead of 224.",
            428, 1_711_828_444, "timm/vit_large_patch14_clip_336.openai",
        ),
        Backbone(
            "ViT-H-14/laion2b_s32b_b79k", "SD 2.x",
            "The text encoder of Stable Diffusion 2.x.",
            986, 3_944_517_836, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        ),
        Backbone(
            "ViT-bigG-14/laion2b_s39b_b160k", "SDXL",
            "The larger of SDXL's two text encoders; the other is ViT-L-14/openai.",
            2540, 10_158_382_108, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        ),
        Backbone(
            "ViT-g-14/laion2b_s34b_b88k", "any",
            "Between H and bigG in size; a good second opinion on a prompt made with another.",
            1367, 5_467_000_000, "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
        ),
        Backbone(
            "ViT-B-32/openai", "any, on a CPU",
            "Small and quick: for machines without a GPU.",
            151, 605_157_884, "timm/vit_base_patch32_clip_224.openai",
        ),
    )
}
DEFAULT_BACKBONE = "ViT-L-14/openai"


@dataclass(frozen=True)
class CaptionerRow:
    """A captioner: the class that runs it, its repository and its size."""

    implementation: str
    hub: str
    why: str
    parameters: int
    download_bytes: int


CAPTIONERS: dict[str, CaptionerRow] = {
    "blip-base": CaptionerRow(
        "blip:Blip", "Salesforce/blip-image-captioning-base",
        "Quick and small, with plain captions.", 247, 990_000_000,
    ),
    "blip-large": CaptionerRow(
        "blip:Blip", "Salesforce/blip-image-captioning-large",
        "The usual choice: fuller captions than blip-base.", 470, 1_880_000_000,
    ),
    "blip2-2.7b": CaptionerRow(
        "blip2:Blip2", "Salesforce/blip2-opt-2.7b",
        "Exact captions from a language model; needs 8 GB on the device.", 3745, 15_500_000_000,
    ),
    "blip2-flan-t5-xl": CaptionerRow(
        "blip2:Blip2", "Salesforce/blip2-flan-t5-xl",
        "Like blip2-2.7b with another language model; needs 8 GB on the device.",
        3942, 15_770_000_000,
    ),
    "git-large-coco": CaptionerRow(
        "git:Git", "microsoft/git-large-coco",
        "Short captions in the manner of the COCO data set.", 394, 1_580_000_000,
    ),
}
DEFAULT_CAPTIONER = "blip-large"
NO_CAPTIONER = "none"

CAPTIONER_OF_MODEL_TYPE: dict[str, str] = {
    "blip": "blip:Blip",
    "blip-2": "blip2:Blip2",
    "git": "git:Git",
}
"""Which class runs a captioner's folder, by the `model_type` in its config.json."""

GENERATORS: dict[str, tuple[str, ...]] = {
    "SD 1.x": ("ViT-L-14/openai",),
    "SD 2.x": ("ViT-H-14/laion2b_s32b_b79k",),
    "SDXL": ("ViT-L-14/openai", "ViT-bigG-14/laion2b_s39b_b160k"),
    "SD 3": ("ViT-L-14/openai",),
    "Flux": ("ViT-L-14/openai",),
}
"""The backbones that each target generator reads a prompt with."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the known names most like `name`, the most alike first; case does not matter."""
    folded = {candidate.casefold(): candidate for candidate in known}
    wanted = name.casefold()
    beginning = sorted(key for key in folded if wanted and key.startswith(wanted))
    alike = difflib.get_close_matches(wanted, folded, n=count, cutoff=0.5)
    return tuple(folded[key] for key in dict.fromkeys(beginning + alike))[:count]


def did_you_mean(names: Iterable[str]) -> str:
    """Return " Did you mean a, b or c?" for the names, or nothing where there are none."""
    names = list(names)
    if not names:
        return ""
    listed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f" Did you mean {listed}?"
