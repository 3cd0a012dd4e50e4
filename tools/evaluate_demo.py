"""Measure how well the bundled demo models do on freshly drawn pictures."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures  # noqa: E402

from clip_interrogator_ext.models import captioning, open_clip  # noqa: E402
from clip_interrogator_ext.options import CaptionOptions  # noqa: E402
from clip_interrogator_ext.vocabulary.lists import load_categories  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from draw_pictures import Scene
    from PIL import Image

DEMO_FOLDER = ROOT / "clip_interrogator_ext" / "models" / "demo"
EVALUATION_SEED = 20_000
EVALUATION_NUMBER = 200


@dataclass(frozen=True)
class Figures:
    """Shares of pictures, from 0 to 1, that the models got right."""

    caption_subject: float
    caption_colour: float
    caption_count: float
    caption_place: float
    caption_light: float
    caption_whole: float
    clip_medium: float
    clip_text: float
    clip_flavor: float


def share(hits: Sequence[bool]) -> float:
    """Give the share of hits, to three places."""
    return round(sum(hits) / len(hits), 3)


def evaluation_set(seed: int, number: int) -> tuple[list[Scene], list[Image.Image]]:
    """Draw the pictures to measure with, at the size of the samples."""
    scenes = draw_pictures.random_scenes(seed, number)
    return scenes, [draw_pictures.draw(scene, draw_pictures.SAMPLE_SIZE) for scene in scenes]


def write_captions(folder: Path, pictures: Sequence[Image.Image]) -> list[str]:
    """Caption pictures as the program does, word by likeliest word."""
    captioner = captioning.load_captioner(str(folder), (), "cpu", torch.float32)
    return [captioner.caption(picture, CaptionOptions()) for picture in pictures]


def evaluate(
    folder: Path = DEMO_FOLDER, seed: int = EVALUATION_SEED, number: int = EVALUATION_NUMBER
) -> Figures:
    """Draw pictures from a seed and measure both saved models on them."""
    scenes, pictures = evaluation_set(seed, number)
    return Figures(
        **caption_figures(scenes, write_captions(folder / "blip", pictures)),
        **clip_figures(scenes, pictures, load_clip(folder / "clip")),
    )


def load_clip(folder: Path) -> open_clip.OpenClip:
    """Load a saved CLIP as the program does."""
    return open_clip.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def caption_figures(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    """Compare captions with what was drawn."""
    pairs = list(zip(scenes, captions, strict=True))
    subjects = [
        bool({scene.subject, draw_pictures.SUBJECTS[scene.subject]} & set(caption.split()))
        for scene, caption in pairs
    ]
    counts = [
        ({"two": 2, "three": 3}.get(caption.split(" ")[0], 1)) == scene.count
        for scene, caption in pairs
    ]
    return {
        "caption_subject": share(subjects),
        "caption_colour": share(
            [scene.colour in caption.split() for scene, caption in pairs if scene.shows_colour]
        ),
        "caption_count": share(counts),
        "caption_place": share([scene.place in caption for scene, caption in pairs]),
        "caption_light": share([scene.light in caption for scene, caption in pairs]),
        "caption_whole": share([draw_pictures.caption(scene) == text for scene, text in pairs]),
    }


def clip_figures(
    scenes: Sequence[Scene], pictures: Sequence[Image.Image], encoder: open_clip.OpenClip
) -> dict[str, float]:
    """Rank the word lists and the pictures' own descriptions by nearness."""
    categories = load_categories()
    images = encoder.encode_images(torch.stack([encoder.preprocess(one) for one in pictures]))
    mediums = nearest(images, categories["mediums"].phrases, encoder)
    flavors = nearest(images, categories["flavors"].phrases, encoder)
    descriptions = [draw_pictures.describe(scene).text for scene in scenes]
    return {
        "clip_medium": share(
            [scene.medium == found for scene, found in zip(scenes, mediums, strict=True)]
        ),
        "clip_text": share(
            [
                wanted == found
                for wanted, found in zip(
                    descriptions, nearest(images, descriptions, encoder), strict=True
                )
            ]
        ),
        # The light stands among the flavors too, so it counts as right when it fits.
        "clip_flavor": share(
            [
                found in draw_pictures.facts(scene)
                for scene, found in zip(scenes, flavors, strict=True)
            ]
        ),
    }


def nearest(images: torch.Tensor, phrases: Sequence[str], encoder: open_clip.OpenClip) -> list[str]:
    """Find the nearest phrase to each picture."""
    best = (images @ encoder.encode_texts(phrases).T).argmax(dim=1)
    return [phrases[index] for index in best.tolist()]


def main(arguments: Any = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    parser.add_argument("--number", type=int, default=EVALUATION_NUMBER)
    chosen = parser.parse_args(arguments)
    print(json.dumps(asdict(evaluate(chosen.folder, chosen.seed, chosen.number)), indent=2))


if __name__ == "__main__":
    main()
