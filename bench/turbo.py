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

from measuring import ROOT, say

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures
import torch

from clip_interrogator_ext.models import open_clip
from clip_interrogator_ext.options import InterrogateOptions
from clip_interrogator_ext.search.modes import MODES, Draft, Scene, Vocabulary
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.vocabulary.lists import load_categories, positive_names
from clip_interrogator_ext.vocabulary.tables import PhraseStore, Table, merge

EVALUATION_SEED = 20_000
_MOST = 100_000  # phrases of a list
FEW = 500  # likewise, to see that it runs


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


def timed(
    scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions
) -> tuple[float, Draft]:
    """Ask a mode about a scene, and return the seconds that it took and its draft."""
    for encoder in scene.scorer.encoders:
        encoder.forget()  # what was asked before shall not help
    began = time.perf_counter()
    draft = MODES[options.mode](scene, vocabulary, options)
    return time.perf_counter() - began, draft


def measure(scene: Scene, vocabulary: Vocabulary, mode: str) -> Found:
    """Ask one mode about a scene whose encoder counts."""
    (encoder,) = scene.scorer.encoders
    encoder.texts = 0
    seconds, draft = timed(scene, vocabulary, InterrogateOptions(mode=mode))
    texts = encoder.texts
    before, after = scene.scorer.texts([scene.caption, draft.text]).tolist()
    return Found(after - before, texts, seconds)


def measure_all(
    number: int, architecture: str | None, folder: Path, most: int = _MOST
) -> list[tuple[Found, Found]]:
    """Ask `turbo` and `best` about so many pictures, and print a line for each."""
    pairs = []
    for scene, vocabulary in cases(number, architecture, folder, most):
        turbo, best = (measure(scene, vocabulary, mode) for mode in ("turbo", "best"))
        pairs.append((turbo, best))
        say(
            f"gain {turbo.gain:.4f} of {best.gain:.4f}, texts {turbo.texts} of {best.texts}, "
            f"seconds {turbo.seconds:.2f} of {best.seconds:.2f}"
        )
    return pairs


def share(pairs: list[tuple[Found, Found]], name: str) -> float:
    """Return what `turbo` has of what `best` has, in sum."""
    mine, theirs = (sum(getattr(pair[side], name) for pair in pairs) for side in (0, 1))
    return mine / theirs


def vocabulary_of(encoder: Any, store: PhraseStore, most: int) -> Vocabulary:
    """Return the bundled word lists, long ones thinned out, with the vectors of an encoder."""
    categories = load_categories()
    tables = {}
    for name in positive_names(categories):
        phrases = categories[name].phrases
        phrases = phrases[:: max(1, -(-len(phrases) // most))]
        vectors = store.vectors(encoder, name, phrases)
        tables[name] = Table(phrases, (name,) * len(phrases), (vectors,))
    return Vocabulary.together(tables, merge(list(tables.values())))


def cases(
    number: int, architecture: str | None, folder: Path, most: int = _MOST
) -> Iterator[tuple[Scene, Vocabulary]]:
    """Give scenes with their vocabularies: of the demo backbone, or of random ones.

    Lists have at most so many phrases, with random backbones 2,000.
    """
    store = PhraseStore(folder)
    encoder = vocabulary = None
    for seed, drawn in enumerate(draw_pictures.random_scenes(EVALUATION_SEED, number)):
        if encoder is None or architecture:
            encoder = Counting(backbone(architecture, seed))
            vocabulary = vocabulary_of(encoder, store, min(most, 2000) if architecture else most)
            # Each is tokenized once, and kept.
            encoder.count_tokens(vocabulary.stages[0].table.phrases)
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
    with tempfile.TemporaryDirectory() as folder:
        pairs = measure_all(arguments.pictures, arguments.random, Path(folder))
    for name in ("gain", "texts", "seconds"):
        print(f"{name}: {share(pairs, name):.4f} of best's")
    print(f"texts at most: {max(one.texts / other.texts for one, other in pairs):.4f} of best's")


if __name__ == "__main__":
    main()
