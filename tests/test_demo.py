"""The bundled demo models do what their card says, on a smaller draw of the same kind."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.vocabulary.lists import load_categories

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "clip_interrogator_ext" / "models" / "demo"
sys.path.insert(0, str(ROOT / "tools"))

import draw_pictures
import evaluate_demo

PICTURES = sorted((DEMO / "pictures").iterdir())
MODELS = ModelOptions(backbones=("demo",), captioner="demo")


@pytest.fixture(scope="module")
def figures() -> evaluate_demo.Figures:
    """Measured on pictures of a seed that is not the card's."""
    return evaluate_demo.evaluate(seed=4711, number=100)


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Service:
    return Service(StandaloneHost("cpu"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    "figure", ["caption_subject", "caption_colour", "clip_medium", "clip_text"]
)
def test_the_models_are_right_nine_times_in_ten(figures, figure):
    """The subject, the main colour, the medium and the whole text; 85 of 100 for a small draw."""
    assert getattr(figures, figure) >= 0.85


def test_the_card_tells_figures_that_reach_the_mark():
    """Each figure on the card is 90 % or more, and the card names the command."""
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    for words in (
        "names the subject", "names the colour", "data/mediums.txt` is the medium",
        "is the picture's own",
    ):
        row = next(line for line in card.splitlines() if line.startswith("|") and words in line)
        assert all(float(share) >= 90 for share in re.findall(r"([\d.]+)%", row)), row
    assert "tools/evaluate_demo.py" in card


def test_the_weights_are_small_and_half_precision():
    """Both together are at most 12 MB of safetensors, in float16."""
    files = list(DEMO.rglob("*.safetensors"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) <= 12_000_000
    for file in files:
        with safe_open(file, "pt") as tensors:
            kinds = {tensors.get_tensor(name).dtype for name in tensors.keys()}  # noqa: SIM118
        assert {str(kind) for kind in kinds} <= {"torch.float16", "torch.int64"}


def test_what_is_drawn_stands_in_the_word_lists():
    """Every medium and flavor that the models were taught can be found by them."""
    categories = load_categories()
    assert set(draw_pictures.MEDIUMS) <= set(categories["mediums"].phrases)
    assert set(draw_pictures.FLAVORS) <= set(categories["flavors"].phrases)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_samples_prompt_is_nearer_than_its_caption(service, path):
    """`best` brings every bundled picture's text nearer, and says that demo models did it."""
    from clip_interrogator_ext.images import open_image

    image = open_image(path)
    best = service.interrogate(image, InterrogateOptions(), MODELS)
    caption = service.interrogate(image, InterrogateOptions(mode="caption"), MODELS)
    assert best.demo
    assert caption.demo
    assert best.text.startswith(caption.text)
    assert best.similarity > caption.similarity
    assert json.dumps(best.as_dict())
