"""Measure how much of what `best` gains the mode `turbo` reaches, and with how much work.

Pictures are drawn, and the demo models judge them; with --random, networks of random weights do,
another for each picture. A gain is the similarity of the prompt less that of the caption alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures
import torch

from clip_interrogator_ext.models import open_clip
from clip_interrogator_ext.options import InterrogateOptions
from clip_interrogator_ext.search.modes import MODES, Scene, Vocabulary
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.vocabulary.lists import load_categories, positive_names
from clip_interrogator_ext.vocabulary.tables import PhraseStore, Table, merge

EVALUATION_SEED = 20_000


class Counting:
    """An encoder that counts the texts it is given."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.texts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode_texts(self, texts: Any, *others: Any) -> torch.Tensor:
        """Count and encode texts."""
        self.texts += len(texts)
        return self.encoder.encode_texts(texts, *others)

    def encode_continuations(self, prefix: str, phrases: Any, *others: Any) -> torch.Tensor:
        """Count and encode continuations."""
        self.texts += len(phrases)
        return self.encoder.encode_continuations(prefix, phrases, *others)


@dataclass(frozen=True)
class Found:
    """What one mode came to for one picture."""

    gain: float
    texts: int
    seconds: float


def measure(scene: Scene, vocabulary: Vocabulary, mode: str) -> Found:
    """Ask one mode about a scene whose encoder counts."""
    (encoder,) = scene.scorer.encoders
    encoder.texts, began = 0, time.perf_counter()
    draft = MODES[mode](scene, vocabulary, InterrogateOptions(mode=mode))
    seconds, texts = time.perf_counter() - began, encoder.texts
    before, after = scene.scorer.texts([scene.caption, draft.text]).tolist()
    return Found(after - before, texts, seconds)


def vocabulary_of(encoder: Any, store: PhraseStore) -> Vocabulary:
    """Return the bundled word lists with the vectors of an encoder."""
    categories = load_categories()
    tables = {}
    for name in positive_names(categories):
        phrases = categories[name].phrases
        vectors = store.vectors(encoder, name, phrases)
        tables[name] = Table(phrases, (name,) * len(phrases), (vectors,))
    return Vocabulary(tables, merge(list(tables.values())))


def cases(
    number: int, architecture: str | None, folder: Path
) -> Iterator[tuple[Scene, Vocabulary]]:
    """Give scenes with their vocabularies: of the demo backbone, or of random ones."""
    store = PhraseStore(folder)
    encoder = vocabulary = None
    for seed, drawn in enumerate(draw_pictures.random_scenes(EVALUATION_SEED, number)):
        if encoder is None or architecture:
            encoder = Counting(backbone(architecture, seed))
            vocabulary = vocabulary_of(encoder, store)
        picture = draw_pictures.draw(drawn, draw_pictures.SAMPLE_SIZE)
        image = encoder.encode_images(encoder.preprocess(picture)[None])[0]
        yield Scene(draw_pictures.caption(drawn), Scorer((encoder,), (image,))), vocabulary


def backbone(architecture: str | None, seed: int) -> open_clip.OpenClip:
    """Return the demo backbone, or one of random weights: tiny, or of a known architecture."""
    device = torch.device("cpu")
    if architecture is None:
        return open_clip.load("demo", device=device, dtype=torch.float32)
    planned = open_clip.plan_architecture("ViT-B-32" if architecture == "tiny" else architecture)
    if architecture == "tiny":
        from tests.conftest import tiny_model

        model = tiny_model(seed).eval()
    else:
        torch.manual_seed(seed)
        model = open_clip.build(planned.config).eval()
    return open_clip.OpenClip(
        f"{architecture}-{seed}", model, open_clip.preprocess_of(model, {}),
        open_clip.token_reader(planned), device=device,
    )


def main() -> None:
    """Print a line for each picture, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=50, metavar="N", help="how many (50)")
    parser.add_argument(
        "--random", metavar="ARCHITECTURE", help="random weights: tiny, or a name such as ViT-B-32"
    )
    arguments = parser.parse_args()
    pairs: list[tuple[Found, Found]] = []
    with tempfile.TemporaryDirectory() as folder:
        for scene, vocabulary in cases(arguments.pictures, arguments.random, Path(folder)):
            turbo, best = (measure(scene, vocabulary, mode) for mode in ("turbo", "best"))
            pairs.append((turbo, best))
            print(
                f"gain {turbo.gain:.4f} of {best.gain:.4f}, texts {turbo.texts} of {best.texts}, "
                f"seconds {turbo.seconds:.2f} of {best.seconds:.2f}", flush=True,
            )
    for name in ("gain", "texts", "seconds"):
        mine, theirs = (sum(getattr(pair[side], name) for pair in pairs) for side in (0, 1))
        print(f"{name}: {mine / theirs:.4f} of best's")
    print(f"texts at most: {max(one.texts / other.texts for one, other in pairs):.4f} of best's")


if __name__ == "__main__":
    main()
