"""One byte of a model's files is altered: the model works, or an error of ours says what is wrong.

A weight that is altered within its range can't be seen; docs/reliability.md says what is checked.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip_interrogator_ext.errors import BrokenModel, InterrogatorError
from clip_interrogator_ext.models import captioning, open_clip
from clip_interrogator_ext.options import CaptionOptions
from tests import tiny_models
from tests.conftest import save_backbone, tiny_config, tiny_model
from tests.test_open_clip import bert_folder

FLIPS = 16  # of each small file and of each header
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are named that are not there, nothing else is found for them."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def use_captioner(folder: Path) -> None:
    """Load a captioner and have it say what a picture shows."""
    captioner = captioning.load_captioner(str(folder), [], "cpu", torch.float32)
    for beams in (1, 2):
        captioner.caption(PICTURE, CaptionOptions(max_length=4, beams=beams))


def use_backbone(folder: Path) -> None:
    """Load a backbone and have it read a picture and texts."""
    backbone = open_clip.load(str(folder), device=CPU, dtype=torch.float32)
    backbone.encode_images(backbone.preprocess(PICTURE)[None])
    backbone.encode_texts(["a cat", "a house on a hill"])
    backbone.count_tokens(["a painting of a zebra"])


PICTURE = Image.new("RGB", (40, 30), (200, 60, 30))


def demo_captioner(folder: Path) -> Path:
    return Path(shutil.copytree(captioning.DEMO_FOLDER, folder))


def demo_backbone(folder: Path) -> Path:
    return Path(shutil.copytree(open_clip.DEMO_FOLDER, folder))


def tiny_captioner(kind: str) -> Callable[[Path], Path]:
    return lambda folder: tiny_models.save(tiny_models.KINDS[kind](), folder)


def tiny_backbone(folder: Path) -> Path:
    return save_backbone(folder, tiny_model(0), tiny_config())


def bert_backbone(folder: Path) -> Path:
    folder, config = bert_folder(folder)
    return save_backbone(folder, open_clip.build(config), config)


MODELS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "demo captioner": (demo_captioner, use_captioner),
    "demo backbone": (demo_backbone, use_backbone),
    "blip": (tiny_captioner("blip"), use_captioner),
    "git": (tiny_captioner("git"), use_captioner),
    "blip2": (tiny_captioner("blip2-opt"), use_captioner),
    "open_clip": (tiny_backbone, use_backbone),
    "open_clip with BERT": (bert_backbone, use_backbone),
}


def flips(path: Path, dice: random.Random) -> Iterator[tuple[int, int]]:
    """Yield places and bits of a file; of weights those of the header, and two of the numbers."""
    end = path.stat().st_size
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
        yield from ((dice.randrange(header, end), dice.randrange(8)) for _ in range(2))
        yield from ((place, 7) for place in range(3))
        end = header
    yield from ((dice.randrange(end), dice.randrange(8)) for _ in range(FLIPS))


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("model", MODELS)
def test_a_flipped_bit_is_an_error_of_ours_or_does_no_harm(model, tmp_path):
    """In configurations, words, settings of pictures and headers of weights."""
    make, use = MODELS[model]
    folder = make(tmp_path / "model")
    use(folder)
    ends: set[str] = set()
    for path in sorted(folder.iterdir()):
        for place, bit in flips(path, random.Random(path.name)):
            flip(path, place, bit)
            try:
                use(folder)
                ends.add("works")
            except InterrogatorError as error:
                ends.add(type(error).__name__)
            except BaseException as error:
                error.add_note(f"bit {bit} of byte {place} of {path.name}")
                raise
            flip(path, place, bit)
    use(folder)
    assert ends >= {"works", "BrokenModel"}


DAMAGE = [
    ("demo captioner", "config.json", '"bos_token_id"', '"bns_token_id"'),
    ("demo backbone", "open_clip_config.json", '"bicubic"', '"bhcubic"'),
    ("git", "preprocessor_config.json", '"crop_size"', '"arop_size"'),
    ("git", "preprocessor_config.json", "[0.48", "[0,48"),
    ("git", "preprocessor_config.json", '"resample": 3', '"resample": 7'),
    ("blip", "preprocessor_config.json", '"size"', '"sizu"'),
    ("open_clip with BERT", "vocab.txt", "[UNK]", "[QNK]"),
    ("open_clip with BERT", "special_tokens_map.json", "[PAD]", "[PQD]"),
]


@pytest.mark.hosts
@pytest.mark.parametrize(("model", "name", "before", "after"), DAMAGE)
def test_damage_that_shows_only_in_use(model, name, before, after, tmp_path):
    """Some libraries look at their settings only when a picture or a text comes."""
    make, use = MODELS[model]
    folder = make(tmp_path / "model")
    path = folder / name
    if not path.exists():
        pytest.skip(f"this transformers writes no {name}")
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    try:
        use(folder)
    except InterrogatorError as error:
        assert isinstance(error, BrokenModel)
        assert "\n" not in str(error)


@pytest.mark.hosts
@pytest.mark.parametrize("place", [*range(8), 8, 12, 40])
def test_a_flipped_bit_in_a_header_of_weights_is_told(place, tmp_path):
    """Its length, its braces, its names: a broken model, and neither a crash nor a long wait."""
    folder = tiny_captioner("blip")(tmp_path / "model")
    flip(folder / "model.safetensors", place, 6)
    with pytest.raises(BrokenModel):
        use_captioner(folder)
