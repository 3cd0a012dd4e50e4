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

from clip_interrogator_ext.models.torchvision_operators import import_torchvision  # noqa: E402
from clip_interrogator_ext.vocabulary.lists import load_categories  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from draw_pictures import Scene
    from PIL import Image

DEMO_FOLDER = ROOT / "clip_interrogator_ext" / "models" / "demo"
EVALUATION_SEED = 20_000
EVALUATION_NUMBER = 200
BATCH = 50


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


@torch.inference_mode()
def write_captions(folder: Path, pictures: Sequence[Image.Image]) -> list[str]:
    """Caption pictures with a saved BLIP, word by likeliest word."""
    import_torchvision()
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).float().eval()
    captions: list[str] = []
    for start in range(0, len(pictures), BATCH):
        inputs = processor(images=list(pictures[start : start + BATCH]), return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=32, num_beams=1, do_sample=False)
        captions += processor.batch_decode(output, skip_special_tokens=True)
    return captions


class ClipReader:
    """Encodes pictures and texts with a saved CLIP, as vectors of length one."""

    def __init__(self, folder: Path) -> None:
        import_torchvision()
        import open_clip

        self.model, _, self.preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{folder}"
        )
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer("ViT-B-32")

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Encode pictures."""
        inputs = torch.stack([self.preprocess(picture) for picture in pictures])
        rows = [self.model.encode_image(part, normalize=True) for part in inputs.split(BATCH)]
        return torch.cat(rows)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode texts."""
        tokens = self.tokenize(list(texts))
        rows = [self.model.encode_text(part, normalize=True) for part in tokens.split(BATCH)]
        return torch.cat(rows)


def evaluate(
    folder: Path = DEMO_FOLDER, seed: int = EVALUATION_SEED, number: int = EVALUATION_NUMBER
) -> Figures:
    """Draw pictures from a seed and measure both saved models on them."""
    scenes, pictures = evaluation_set(seed, number)
    return Figures(
        **caption_figures(scenes, write_captions(folder / "blip", pictures)),
        **clip_figures(scenes, pictures, ClipReader(folder / "clip")),
    )


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
    scenes: Sequence[Scene], pictures: Sequence[Image.Image], reader: ClipReader
) -> dict[str, float]:
    """Rank the word lists and the pictures' own descriptions by nearness."""
    categories = load_categories()
    images = reader.images(pictures)
    mediums = nearest(images, categories["mediums"].phrases, reader)
    flavors = nearest(images, categories["flavors"].phrases, reader)
    descriptions = [draw_pictures.describe(scene).text for scene in scenes]
    return {
        "clip_medium": share(
            [scene.medium == found for scene, found in zip(scenes, mediums, strict=True)]
        ),
        "clip_text": share(
            [
                wanted == found
                for wanted, found in zip(
                    descriptions, nearest(images, descriptions, reader), strict=True
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


def nearest(images: torch.Tensor, phrases: Sequence[str], reader: ClipReader) -> list[str]:
    """Find the nearest phrase to each picture."""
    best = (images @ reader.texts(phrases).T).argmax(dim=1)
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
