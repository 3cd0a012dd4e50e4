"""Code written for `clip_interrogator` works when only its import line is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from clip_interrogator_ext import drop_in
from clip_interrogator_ext.models import captioning, open_clip

README_USE = """
from PIL import Image
from clip_interrogator_ext.drop_in import Config, Interrogator
image = Image.open(image_path).convert('RGB')
ci = Interrogator(Config(clip_model_name="ViT-L-14/openai"))
print(ci.interrogate(image))
"""

README_TERMS = """
from clip_interrogator_ext.drop_in import Config, Interrogator, LabelTable, load_list
from PIL import Image

ci = Interrogator(Config(blip_model_type=None))
image = Image.open(image_path).convert('RGB')
table = LabelTable(load_list('terms.txt'), 'terms', ci)
best_match = table.rank(ci.image_to_features(image), top_count=1)[0]
print(best_match)
"""

NOTEBOOK = """
from PIL import Image
from clip_interrogator_ext.drop_in import Config, Interrogator, list_clip_models

config = Config()
config.clip_model_name = 'ViT-L-14/openai'
config.blip_num_beams = 2
config.blip_offload = True
config.apply_low_vram_defaults()
config.caption_model_name = 'blip-large'
config.data_path = lists
config.quiet = True
ci = Interrogator(config)

def image_to_prompt(image, mode):
    ci.config.chunk_size = 2048 if ci.config.clip_model_name == "ViT-L-14/openai" else 1024
    ci.config.flavor_intermediate_count = 16
    image = image.convert('RGB')
    if mode == 'best':
        return ci.interrogate(image)
    elif mode == 'classic':
        return ci.interrogate_classic(image)
    elif mode == 'fast':
        return ci.interrogate_fast(image)
    elif mode == 'negative':
        return ci.interrogate_negative(image)

image = Image.open(image_path)
prompts = {mode: image_to_prompt(image, mode) for mode in ('best', 'classic', 'fast', 'negative')}
features = ci.image_to_features(image)
analysis = {}
for name in ('mediums', 'artists', 'movements', 'trendings', 'flavors'):
    top = getattr(ci, name).rank(features, 3)
    analysis[name] = {phrase: sim for phrase, sim in zip(top, ci.similarities(features, top))}

if ci.config.clip_model_name != 'ViT-H-14/laion2b_s32b_b79k':
    ci.config.clip_model_name = 'ViT-H-14/laion2b_s32b_b79k'
    ci.load_clip_model()
again = ci.interrogate_fast(image.convert('RGB'), max_flavors=2, caption='a cat')
"""


class SmallModels:
    """Tiny networks in place of the published ones, which can't be had here."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.asked: list[str | None] = []
        self._load, self._captioner = open_clip.load, captioning.load_captioner

    def load(self, name: str, **settings: object) -> open_clip.OpenClip:
        self.asked.append(name)
        return self._load(self.folder, **settings)

    def load_captioner(self, name: str, *settings: object) -> captioning.TransformersCaptioner:
        self.asked.append(name)
        return self._captioner("demo", *settings)


@pytest.fixture
def small(backbone_folder, monkeypatch, tmp_path, picture) -> SmallModels:
    models = SmallModels(backbone_folder)
    monkeypatch.setattr(open_clip, "load", models.load)
    monkeypatch.setattr(captioning, "load_captioner", models.load_captioner)
    monkeypatch.chdir(tmp_path)  # the peer keeps its vectors in ./cache
    picture.save("picture.png")
    Path("terms.txt").write_text("a cat\na dog\n#1 hit\na dog\n", encoding="utf-8")
    return models


@pytest.fixture
def lists(tmp_path) -> str:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "negative"):
        (folder / f"{name}.txt").write_text(f"{name} a\n{name} b\n#{name}\n", encoding="utf-8")
    return str(folder)


def run(code: str, **names: object) -> dict:
    scope: dict = {"image_path": "picture.png", **names}
    exec(compile(code, "tutorial", "exec"), scope)  # noqa: S102 - the tutorials' own text
    return scope


def test_the_readmes_first_example_runs(small, capsys):
    """A prompt is printed, made with the models asked for and our word lists."""
    scope = run(README_USE)
    assert small.asked == ["blip-large", "ViT-L-14/openai"]
    assert capsys.readouterr().out.strip()
    assert len(scope["ci"].flavors.labels) > 1000
    assert not [label for label in scope["ci"].artists.labels if "#" in label]


def test_the_readmes_own_list_runs_and_is_read_as_it_is(small, capsys):
    """Without a captioner; a line that begins with # is a term like another."""
    scope = run(README_TERMS)
    assert small.asked == ["ViT-L-14/openai"]
    assert scope["table"].labels == ["a cat", "a dog", "#1 hit", "a dog"]
    assert capsys.readouterr().out.strip() in scope["table"].labels
    assert len(scope["table"].embeds) == 4


def test_the_notebooks_code_runs(small, lists):
    """All modes, the analysis, older names of settings, and a change of backbone."""
    scope = run(NOTEBOOK, lists=lists)
    assert small.asked == ["blip-large", "ViT-L-14/openai", "ViT-H-14/laion2b_s32b_b79k"]
    assert all(scope["prompts"].values())
    for ranked in scope["analysis"].values():
        assert list(ranked.values()) == pytest.approx(sorted(ranked.values(), reverse=True),
                                                      abs=2e-3)
    assert scope["again"].startswith("a cat, ")
    assert scope["config"].caption_num_beams == 2
    assert scope["config"].caption_offload


def test_older_settings_are_the_newer_ones():
    """`blip_model_type` and its like set and read what they are called today."""
    config = drop_in.Config(blip_model_type="base", blip_max_length=12, blip_image_eval_size=384)
    assert config.caption_model_name == "blip-base"
    assert config.blip_model_type == "base"
    assert config.caption_max_length == config.blip_max_length == 12
    assert drop_in.Config(blip_model_type=None).caption_model_name is None
    with pytest.raises(TypeError, match="no setting 'colour'"):
        drop_in.Config(colour="red")
    with pytest.raises(AttributeError):
        drop_in.Config().colour  # noqa: B018 - reading it is the test


def test_injected_models_are_used(small, backbone_folder, lists):
    """A CLIP and a captioner given in the config are taken in place of any name."""
    encoder = small._load(str(backbone_folder), device=torch.device("cpu"), dtype=torch.float32)
    captioner = small._captioner("demo", None, "cpu", torch.float32)
    config = drop_in.Config(quiet=True, data_path=lists, cache_path=None)
    config.clip_model, config.clip_preprocess = encoder.module, encoder.preprocess
    config.caption_model, config.caption_processor = captioner.module, Processor(captioner)
    ci = drop_in.Interrogator(config)
    assert small.asked == []
    image = Image.open("picture.png")
    assert ci.clip_model is encoder.module
    seen = encoder.encode_images(encoder.preprocess(image)[None])
    assert torch.allclose(ci.image_to_features(image), seen)
    caption = ci.generate_caption(image)
    assert caption == "a picture of pixels"
    assert ci.interrogate_classic(image).startswith(caption)


class Processor:
    """A processor as the peer calls one, with words that can be recognised."""

    def __init__(self, captioner: captioning.TransformersCaptioner) -> None:
        size = captioner.module.config.vision_config.image_size
        self.pixels = torch.zeros(1, 3, size, size)

    def __call__(self, images: object, return_tensors: str):
        from transformers import BatchFeature

        return BatchFeature({"pixel_values": self.pixels})

    def batch_decode(self, tokens: torch.Tensor, *, skip_special_tokens: bool) -> list[str]:
        assert tokens.shape[0] == 1
        return [" a picture of pixels "]


def test_a_table_that_was_replaced_or_changed_counts(small, picture, lists):
    """The tables are put together once, and again when code gives the program another."""
    ci = drop_in.Interrogator(drop_in.Config(data_path=lists, quiet=True))

    def classic() -> str:
        return ci.interrogate_classic(picture, caption="a cat")

    before = classic()
    assert "flavors a" in before
    assert classic() == before
    ci.flavors = drop_in.LabelTable(["mountains"], None, ci)
    assert "mountains" in classic()
    assert "flavors a" not in classic()
    ci.flavors.labels[0] = "hills"
    assert "hills" in classic()
    assert "mountains" not in classic()


def test_lists_of_names_are_those_of_the_catalogs():
    """The captioners' names and open_clip's pairs."""
    assert drop_in.list_caption_models() == list(drop_in.CAPTION_MODELS)
    assert "ViT-L-14/openai" in drop_in.list_clip_models()


def test_load_list_keeps_every_line(tmp_path):
    """Blank lines, repeats, signs and lines that are not UTF-8 stay, as in the peer."""
    (tmp_path / "a.txt").write_bytes(b"one\n\n #two \none\nna\xefve\n")
    expected = ["one", "", "#two", "one", "na\ufffdve"]
    assert drop_in.load_list(str(tmp_path / "a.txt")) == expected
    assert drop_in.load_list(str(tmp_path), "a.txt") == expected
