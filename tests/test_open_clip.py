"""Backbones: what their names mean, how they are loaded, and that their vectors are open_clip's."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import random
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import (
    BadOption,
    BrokenModel,
    Interrupted,
    MissingModel,
    OutOfMemory,
    UnknownModel,
    UnsafeWeights,
)
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.interrogator import Interrogator
from clip_interrogator_ext.models import open_clip, residency, torchvision_operators
from clip_interrogator_ext.models.continuations import find_causal_tower, pack, pack_evenly
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
from clip_interrogator_ext.vocabulary.lists import load_categories
from clip_interrogator_ext.vocabulary.tables import PhraseStore
from tests.conftest import HALF, needs_half_on_cpu, save_backbone, tiny_config, tiny_model

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.models.tokens import TokenReader

pytestmark = pytest.mark.hosts

CPU = torch.device("cpu")
ROUNDING = 2e-6
HALF_ROUNDING = 0.02
TEXTS = ["a cat", "an oil painting of two dogs, 8k", "", "sunset " * 90]
KINDS = {
    "CLIP": {},
    "CustomTextCLIP": {"custom_text": True},
    "CLIP with QuickGELU": {"quick_gelu": True},
    "CustomTextCLIP with LayerScale": {"custom_text": True, "ls_init_value": 0.3},
}


def vectors_of(module: torch.nn.Module, texts: list[str]) -> torch.Tensor:
    """Return the vectors that open_clip itself gives, at the full context length."""
    tokens = open_clip.import_open_clip().tokenize(texts)
    with torch.no_grad():
        return torch.nn.functional.normalize(module.encode_text(tokens).float(), dim=-1)


def see(encoder: open_clip.OpenClip, picture: Image.Image) -> torch.Tensor:
    """Return a picture's vector."""
    return encoder.encode_images(encoder.preprocess(picture)[None])[0]


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest distance of two vectors in the same row."""
    assert left.shape == right.shape
    return float((left - right).norm(dim=-1).max())


def encoder_of(module: torch.nn.Module, chunk_size: int = 64, **config) -> open_clip.OpenClip:
    """Return an encoder around a module, with the tokenizer of its configuration."""
    planned = open_clip.Plan("tiny", tiny_config(**config), {})
    return open_clip.OpenClip(
        "tiny", module, open_clip.preprocess_of(module, {}), open_clip.token_reader(planned),
        device=CPU, chunk_size=chunk_size,
    )


def load(name: str | Path, *models_dirs: Path) -> open_clip.OpenClip:
    return open_clip.load(str(name), device=CPU, dtype=torch.float32, models_dirs=models_dirs)


def activations(module: torch.nn.Module) -> set[str]:
    """Return the class names of the activations in both towers."""
    named = ((name, type(one).__name__) for name, one in module.named_modules())
    found = {name.rsplit(".", 1)[0]: kind for name, kind in named if name.endswith(".gelu")}
    assert {"visual" in name for name in found} == {True, False}
    return set(found.values())


@pytest.fixture
def architectures(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """open_clip's table of architectures; what a test changes in it is undone."""
    factory = open_clip.import_open_clip().factory
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    return factory._MODEL_CONFIGS


@pytest.fixture
def shrunk(architectures: dict[str, dict]) -> None:
    """The two smallest of OpenAI's architectures, of a size for tests."""
    for name in ("ViT-B-32", "ViT-L-14"):
        architectures[name] = tiny_config()


@pytest.fixture
def architecture(architectures: dict[str, dict], tmp_path: Path) -> str:
    """A tiny architecture that the user registered with open_clip."""
    path = tmp_path / "tiny-test.json"
    path.write_text(json.dumps(tiny_config()), encoding="utf-8")
    open_clip.import_open_clip().add_model_config(path)
    return "tiny-test"


# --- names ---


def test_every_name_that_open_clip_lists_can_be_planned():
    """Each pair has a configuration, and a place where its weights come from."""
    names = open_clip.list_names()
    assert len(names) > 80
    for name in names:
        planned = open_clip.plan(name)
        assert {"embed_dim", "vision_cfg", "text_cfg"} <= planned.config.keys()
        assert planned.source is not None
        assert planned.source.hub or planned.source.url, name
        assert planned.source.folders[0] == name.replace("/", "-")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ViT-bigG-14/laion2b_s39b", "ViT-bigG-14/laion2b_s39b_b160k"),
        ("ViT-L-14/openia", "ViT-L-14/openai"),
        ("vit-l-14/OPENAI", "ViT-L-14/openai"),
        ("ViT-H-14/laion2b", "ViT-H-14/laion2b_s32b_b79k"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong, right):
    """The first suggestion is the name that was meant."""
    with pytest.raises(UnknownModel, match=right) as caught:
        open_clip.plan(wrong)
    assert caught.value.nearest[0] == right


@pytest.mark.parametrize("wrong", ["", "no such thing", "hf-hub:me/mine", "hf-hub:mine", "a=b"])
def test_a_name_that_is_like_nothing_is_unknown(wrong):
    """Nothing is downloaded to find that out, and the message says where the names are."""
    with pytest.raises(UnknownModel, match="models --all"):
        open_clip.plan(wrong)


@pytest.mark.parametrize("name", ["ViT-L-14", "ViT-L-14/"])
def test_a_name_without_weights_is_refused_with_its_tags(name):
    """Without weights a backbone would rank at random."""
    with pytest.raises(UnknownModel, match=r"rank at random.*ViT-L-14/openai") as caught:
        open_clip.plan(name)
    assert all(one.startswith("ViT-L-14/") for one in caught.value.nearest)


def test_an_architecture_that_nobody_trained_is_refused():
    """`coca_base/` has no weights at all."""
    with pytest.raises(UnknownModel, match="rank at random"):
        open_clip.plan("coca_base/")


@pytest.mark.parametrize("row", catalog.BACKBONES.values(), ids=lambda row: row.name)
def test_a_row_of_the_catalog_is_true(row):
    """The name is one of open_clip's, and the parameters are counted right."""
    assert row.name in open_clip.list_names()
    with torch.device("meta"):
        model = open_clip.build(open_clip.plan(row.name).config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert row.parameters == round(count / 1e6)
    assert row.download_bytes / count == pytest.approx(4, rel=0.01)


def test_the_generators_of_the_catalog_read_with_its_backbones():
    """Each generator names rows that are there."""
    for names in catalog.GENERATORS.values():
        assert set(names) <= catalog.BACKBONES.keys()


# --- activation ---


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("ViT-B-32/openai", True),
        ("ViT-B-32/laion400m_e31", True),
        ("ViT-B-32/laion400m_e32", True),
        ("ViT-B-32/laion2b_s34b_b79k", False),
        ("ViT-L-14/openai", True),
        ("ViT-L-14/laion2b_s32b_b82k", False),
        ("ViT-L-14/laion400m_e31", False),
    ],
)
def test_the_activation_is_the_one_of_the_training(shrunk, tmp_path, name, quick):
    """Weights trained with QuickGELU get it, though the architecture's configuration has GELU."""
    module = tiny_model(1, quick_gelu=quick)
    save_backbone(tmp_path / name.replace("/", "-"), module, tiny_config())
    loaded = load(name, tmp_path)
    assert activations(loaded.module) == {"QuickGELU" if quick else "GELU"}
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING


def test_architectures_named_for_quickgelu_have_it():
    """open_clip keeps a second name for what was trained with QuickGELU."""
    for name in open_clip.list_names():
        if "-quickgelu/" in name:
            assert open_clip.plan(name).config["quick_gelu"] is True


# --- loading ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_vectors_of_the_saved_module(tmp_path, picture, kind):
    """A folder in open_clip's own format loads on every version, pictures and texts alike."""
    options = KINDS[kind]
    module = tiny_model(3, **options)
    folder = save_backbone(tmp_path / "mine", module, tiny_config(**options))
    loaded = load(folder)
    assert type(loaded.module).__name__ == kind.split()[0]
    assert not loaded.module.training
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING
    pixels = open_clip.preprocess_of(module, {})(picture)[None]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(module.encode_image(pixels), dim=-1)[0]
    assert torch.allclose(see(loaded, picture), expected, atol=1e-6)
    assert loaded.dimension == 48


def test_a_folder_says_how_its_pictures_are_prepared(tmp_path, picture):
    """Mean and deviation of the training are read from the folder."""
    folder = save_backbone(tmp_path / "mine", tiny_model(0), tiny_config())
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    path.write_text(json.dumps(content), encoding="utf-8")
    pixels = load(folder).preprocess(picture)
    usual = open_clip.preprocess_of(tiny_model(0), {})(picture)
    assert pixels.shape == usual.shape == (3, 32, 32)
    constants = open_clip.import_open_clip().constants
    mean = torch.tensor(constants.OPENAI_DATASET_MEAN).view(3, 1, 1)
    deviation = torch.tensor(constants.OPENAI_DATASET_STD).view(3, 1, 1)
    assert torch.allclose(pixels * 0.25 + 0.5, usual * deviation + mean, atol=1e-5)


def test_the_demo_is_a_folder_like_any_other():
    """The bundled backbone is had by the name "demo"."""
    planned = open_clip.plan("demo")
    assert planned.folder == open_clip.DEMO_FOLDER
    assert not planned.official


def test_a_checkpoint_file_is_loaded_into_a_named_architecture(architecture, tmp_path):
    """`architecture=FILE` is for weights of one's own."""
    module = tiny_model(4)
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    loaded = load(f"{architecture}={tmp_path / 'mine.safetensors'}")
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING


def test_a_checkpoint_file_of_an_unknown_architecture_is_refused(tmp_path):
    """The nearest architectures are named."""
    with pytest.raises(UnknownModel, match="ViT-B-32"):
        open_clip.plan(f"ViT-B32={tmp_path / 'mine.safetensors'}")


def test_a_checkpoint_file_that_is_not_there_is_missing(architecture, tmp_path):
    """The path is named."""
    with pytest.raises(MissingModel, match=r"nowhere\.safetensors"):
        load(f"{architecture}={tmp_path / 'nowhere.safetensors'}")


def test_a_pickled_checkpoint_of_ones_own_is_refused(architecture, tmp_path):
    """Only safetensors are read from whoever made them."""
    torch.save(tiny_model(4).state_dict(), tmp_path / "mine.pt")
    with pytest.raises(UnsafeWeights, match="safetensors"):
        load(f"{architecture}={tmp_path / 'mine.pt'}")


def test_the_old_layout_fills_a_model_with_its_own_text_tower(tmp_path):
    """Weights saved from a CLIP load into a CustomTextCLIP of the same sizes."""
    module = tiny_model(5)
    folder = save_backbone(tmp_path / "mine", module, tiny_config(custom_text=True))
    loaded = load(folder)
    assert type(loaded.module).__name__ == "CustomTextCLIP"
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING


def test_the_scale_of_similarities_may_have_any_shape_or_be_missing(tmp_path):
    """It is a training matter: nothing here depends on it."""
    module = tiny_model(5)
    expected = vectors_of(module, TEXTS)
    for scale in (torch.tensor([4.6]), None):
        folder = save_backbone(tmp_path / "mine", module, tiny_config())
        state = load_file(folder / "open_clip_model.safetensors")
        del state["logit_scale"]
        if scale is not None:
            state["logit_scale"] = scale
        save_file(state, folder / "open_clip_model.safetensors")
        assert distance(load(folder).encode_texts(TEXTS), expected) < ROUNDING


def test_positions_of_another_picture_size_are_fitted(tmp_path, picture):
    """As open_clip does, the grid of positions is stretched to the size of the configuration."""
    config = tiny_config()
    config["vision_cfg"]["image_size"] = 64
    folder = save_backbone(tmp_path / "mine", tiny_model(6), config)
    loaded = load(folder)
    assert loaded.module.visual.positional_embedding.shape == (65, 64)
    assert see(loaded, picture).norm() == pytest.approx(1)


def test_weights_saved_in_half_precision_are_computed_in_full(tmp_path):
    """On the CPU everything is float32, however it was saved."""
    module = tiny_model(7)
    folder = save_backbone(tmp_path / "mine", tiny_model(7).half(), tiny_config())
    loaded = load(folder)
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < HALF_ROUNDING


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 32},
        {"text_cfg": {"width": 128, "heads": 4, "layers": 3}},
        {"text_cfg": {"width": 64, "heads": 4, "layers": 4}},
        {"vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8,
                        "head_width": 32}},
    ],
    ids=["dimension", "width", "more layers", "fewer layers"],
)
def test_weights_of_another_architecture_are_refused(tmp_path, backbone_folder, change):
    """The message names the file and some of what does not fit."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(backbone_folder / "open_clip_model.safetensors", folder)
    config = {"model_cfg": {**tiny_config(), **change}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BrokenModel, match=r"don't fit the model's architecture.*named rightly\?"):
        load(folder)


def test_a_folder_that_was_cut_off_is_broken(tmp_path, backbone_folder):
    """Half a file of weights is no model."""
    folder = shutil.copytree(backbone_folder, tmp_path / "mine")
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(BrokenModel, match=r"open_clip_model\.safetensors can't be read"):
        load(folder)


def test_a_folder_without_configuration_is_not_in_the_format(tmp_path):
    """The message says which file is missing, and how such a folder is made."""
    with pytest.raises(MissingModel, match=r"holds no open_clip_config\.json.*save_for_hf"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "{}", '{"model_cfg": 7}', '{"model_cfg": {}}',
        '{"model_cfg": {"embed_dim": 8, "text_cfg": 7, "vision_cfg": {}}}',
        '{"model_cfg": {"embed_dim": 8, "text_cfg": {}, "vision_cfg": {}}, "preprocess_cfg": 7}',
        "\udcff",
    ],
)
def test_a_garbled_configuration_is_broken(tmp_path, backbone_folder, text):
    """The message names the file."""
    folder = shutil.copytree(backbone_folder, tmp_path / "mine")
    (folder / "open_clip_config.json").write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(BrokenModel, match=r"open_clip_config\.json"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"a_field_of_the_future": 1},
        {"vision_cfg": {"layers": 2, "width": 64, "patch_size": 0}},
        {"vision_cfg": {"timm_model_name": "no_such_model", "image_size": 32}},
        {"text_cfg": {"width": 64, "heads": 5}},
    ],
    ids=["unknown field", "no patches", "unknown tower", "heads"],
)
def test_a_configuration_that_can_not_be_built_is_broken(tmp_path, backbone_folder, change):
    """It may be a newer open_clip's, and the message says so."""
    folder = shutil.copytree(backbone_folder, tmp_path / "mine")
    config = {"model_cfg": {**tiny_config(), **change}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BrokenModel, match="can't build the model"):
        load(folder)


def test_a_folder_without_weights_is_missing_them(tmp_path, backbone_folder):
    """The message names the file that is looked for."""
    shutil.copy(backbone_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(MissingModel, match=r"holds no weights \(open_clip_model\.safetensors\)"):
        load(tmp_path)


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path, backbone_folder):
    """Somebody's folder is not open_clip's own publication."""
    shutil.copy(backbone_folder / "open_clip_config.json", tmp_path)
    torch.save(tiny_model(0).state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"open_clip_pytorch_model\.bin is not a safetensors"):
        load(tmp_path)


def test_an_official_pickle_is_loaded(shrunk, tmp_path):
    """What open_clip itself names may be a .bin, read as weights only."""
    folder = tmp_path / "ViT-B-32-laion2b_s34b_b79k"
    folder.mkdir()
    module = tiny_model(8)
    torch.save(module.state_dict(), folder / "open_clip_pytorch_model.bin")
    loaded = load("ViT-B-32/laion2b_s34b_b79k", tmp_path)
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING


def scripted(state: dict[str, torch.Tensor], path: Path) -> str:
    """Save a TorchScript archive of these weights as OpenAI did; return its hash."""

    class Archive(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    archive = Archive()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        module: torch.nn.Module = archive
        for part in parents:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, torch.nn.Parameter(tensor))
    for name in ("input_resolution", "context_length", "vocab_size"):
        archive.register_buffer(name, torch.tensor(77))
    torch.jit.save(torch.jit.trace(archive, torch.ones(1)), str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_openais_own_archive_is_loaded_when_its_hash_matches(shrunk, tmp_path, monkeypatch):
    """ViT-L-14.pt from the models folder, as TorchScript in half precision, with QuickGELU."""
    module = tiny_model(9, quick_gelu=True)
    state = {name: tensor.detach().half() for name, tensor in module.state_dict().items()}
    digest = scripted(state, tmp_path / "ViT-L-14.pt")
    published = open_clip.import_open_clip().pretrained._PRETRAINED["ViT-L-14"]["openai"]
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-L-14.pt"
    monkeypatch.setitem(published, "url", url)
    loaded = load("ViT-L-14/openai", tmp_path)
    assert distance(loaded.encode_texts(TEXTS), vectors_of(module, TEXTS)) < HALF_ROUNDING
    monkeypatch.setitem(published, "url", url.replace(digest, "0" * 64))
    with pytest.raises(BrokenModel, match="published hash"):
        load("ViT-L-14/openai", tmp_path)


def test_a_missing_backbone_offline_is_one_sentence_that_helps(tmp_path):
    """It names the model, the models folder and the repository."""
    with pytest.raises(MissingModel) as caught:
        load("ViT-L-14/openai", tmp_path)
    message = str(caught.value)
    assert message.startswith("The weights of ViT-L-14/openai are not on this machine")
    assert str(tmp_path / "ViT-L-14-openai" / "open_clip_model.safetensors") in message
    assert "hf download timm/vit_large_patch14_clip_224.openai" in message


# --- other towers ---


def coca_config() -> dict:
    """Return a tiny CoCa, whose text tower reads an end token of its own behind the text."""
    config = tiny_config(context_length=76, embed_cls=True, output_tokens=True)
    config["vision_cfg"].update(attentional_pool=True, attn_pooler_heads=4, output_tokens=True)
    config["multimodal_cfg"] = {
        "context_length": 76, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 1,
        "attn_pooler_heads": 4,
    }
    return config


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "fp16"])
def test_coca_takes_the_plain_path(tmp_path, picture, dtype):
    """Its vectors are those of open_clip's documented use: 77 columns for 2.20, 76 for 3.x."""
    torch.manual_seed(0)
    module = open_clip.build(coca_config())
    with torch.no_grad():
        module.text.token_embedding.weight.normal_(std=0.5)
        module.text.positional_embedding.normal_(std=0.3)
    folder = save_backbone(tmp_path / "mine", module, coca_config())
    loaded = open_clip.load(str(folder), device=CPU, dtype=dtype)
    columns = 76 if hasattr(open_clip.import_open_clip(), "__version__") else 77
    tokens = open_clip.import_open_clip().tokenize(TEXTS[:3], columns)
    with torch.no_grad():
        expected = module.encode_text(tokens)
    limit = ROUNDING if dtype == torch.float32 else HALF_ROUNDING
    assert distance(loaded.encode_texts(TEXTS[:3]), expected) < limit
    assert see(loaded, picture).isfinite().all()
    assert loaded.token_budget == 74


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        {"image_size": 32, "timm_model_name": "resnet10t", "timm_pool": "avg",
         "timm_proj": "linear"},
        {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg",
         "timm_proj": "linear"},
    ],
    ids=["ResNet", "timm ResNet", "timm ViT"],
)
def test_every_kind_of_image_tower_sees(tmp_path, picture, dtype, vision):
    """ResNets and timm's towers work in both precisions."""
    config = {**tiny_config(), "vision_cfg": vision}
    torch.manual_seed(0)
    module = open_clip.build(config)
    folder = save_backbone(tmp_path / "mine", module, config)
    loaded = open_clip.load(str(folder), device=CPU, dtype=dtype)
    pixels = open_clip.preprocess_of(module, {})(picture)[None]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(module.encode_image(pixels), dim=-1)[0]
    limit = 1e-5 if dtype == torch.float32 else HALF_ROUNDING
    assert (see(loaded, picture) - expected).norm() < limit


def bert_folder(folder: Path) -> tuple[Path, dict]:
    """Save a tiny BERT and its tokenizer; return the folder and the configuration around it."""
    import transformers
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", ","]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48,
    ).save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    return folder, {**tiny_config(), "text_cfg": text}


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "fp16"])
def test_a_text_tower_of_transformers_takes_the_plain_path(tmp_path, dtype):
    """Its tokenizer is read from the folder, and counts what the tower reads."""
    folder, config = bert_folder(tmp_path / "mine")
    module = open_clip.build(config)
    save_backbone(folder, module, config)
    loaded = open_clip.load(str(folder), device=CPU, dtype=dtype)
    with torch.no_grad():
        features = module.encode_text(loaded.reader.padded(["a cat, red"]))
    expected = torch.nn.functional.normalize(features, dim=-1)
    limit = ROUNDING if dtype == torch.float32 else HALF_ROUNDING
    assert distance(loaded.encode_continuations("a cat", ["red"]), expected) < limit
    assert loaded.count_continuations("a  cat", ["red", ""]) == [4, 3]
    assert loaded.token_budget == 75


def test_a_text_tower_that_is_not_here_is_missing(tmp_path, backbone_folder):
    """The repository that holds its configuration is named."""
    folder = shutil.copytree(backbone_folder, tmp_path / "mine")
    config = {**tiny_config(), "text_cfg": {"hf_model_name": "no/such-tower"}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), "utf-8")
    with pytest.raises(MissingModel, match="no/such-tower"):
        load(folder)


# --- half precision ---


@pytest.mark.parametrize("kind", KINDS)
@needs_half_on_cpu
def test_half_precision_stays_near_full_precision(tmp_path, picture, kind):
    """Texts, by the fast path, and pictures; the normalizations keep float32."""
    options = KINDS[kind]
    folder = save_backbone(
        tmp_path / "mine", tiny_model(10, **options), tiny_config(**options)
    )
    full, half = (
        open_clip.load(str(folder), device=CPU, dtype=dtype)
        for dtype in (torch.float32, torch.float16)
    )
    for name, module in half.module.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.weight.dtype == torch.float32, name
        elif isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)):
            assert module.weight.dtype == torch.float16, name
    phrases = [*TEXTS, "by an artist", "octane render"]
    assert distance(half.encode_texts(TEXTS), full.encode_texts(TEXTS)) < HALF_ROUNDING
    assert distance(
        half.encode_continuations("a cat", phrases), full.encode_continuations("a cat", phrases)
    ) < HALF_ROUNDING
    assert half._fast()
    assert (see(half, picture) - see(full, picture)).norm() < HALF_ROUNDING
    assert half.encode_texts(TEXTS).dtype == see(half, picture).dtype == torch.float32


# --- tokens ---

PIECES = [
    "cat", "a", "Oil Painting", " ", "  ", ",", ".", "!", "'s", "'", '"', "'ll", "don't", "#", "-",
    "_", "8k", "85mm", "f/1.4", "&", "&amp;", "&amp;amp;amp;", "&#39", "<", ">", "<end_of_text>",
    "<START_OF_TEXT>", "é", "ü", "Évora", "ōsaka", "Ø", "ễ", "ŉ", "Â", "Ã", "œ", "ß",
    "ﬁ", "İ", "日本", "😀", "“", "\u2019", "…", "â€™", "Ã©",
    "\u00a0", "\t", "\n", "\x00", "\x1b[0m",
]


def random_texts(seed: int, count: int) -> Iterator[str]:
    """Yield texts put together from pieces that tokenizers find hard."""
    chooser = random.Random(seed)
    for _ in range(count):
        yield "".join(chooser.choices(PIECES, k=chooser.randrange(8)))


@pytest.fixture(scope="module")
def reader() -> TokenReader:
    """The reader of CLIP's own tokenizer."""
    return open_clip.token_reader(open_clip.plan("ViT-L-14/openai"))


@pytest.fixture(scope="module")
def encode() -> Callable[[str], list[int]]:
    """open_clip's own way from a text to its ids."""
    return open_clip.import_open_clip().tokenizer.SimpleTokenizer().encode


def test_continuations_have_the_tokens_of_the_whole_text(reader, encode):
    """Byte-pair merges, quotes and repaired encodings across the joint are not lost."""
    phrases = list(random_texts(1, 60))
    for prefix in random_texts(2, 60):
        found = reader.continuations(prefix, phrases)
        assert found == [encode(f"{prefix}, {phrase}") for phrase in phrases], prefix


def test_continuations_have_the_tokens_of_the_whole_text_for_any_text(reader, encode):
    """The same, for whatever hypothesis thinks of."""
    hypothesis = pytest.importorskip("hypothesis", reason="installed for development")
    strategies = hypothesis.strategies
    pieces = strategies.lists(strategies.sampled_from(PIECES), max_size=6).map("".join)
    texts = strategies.one_of(pieces, strategies.text(max_size=12))

    @hypothesis.settings(max_examples=200)
    @hypothesis.given(texts, texts)
    def check(prefix: str, phrase: str) -> None:
        assert reader.continuations(prefix, [phrase]) == [encode(f"{prefix}, {phrase}")]

    check()


def test_letters_with_marks_are_read_the_same_in_any_text(reader, encode):
    """Each stands at the end of the one phrase and at the beginning of the other."""
    letters = [chr(code) for code in (*range(0xC0, 0x180), *range(0x1E00, 0x1F00, 5))]
    for letter in letters:
        phrases = [f"{letter}", f"{letter}a é", f"{letter} a", f"{letter}9", f"{letter}'"]
        for prefix in (f"caf{letter}", f"a cat, {letter}"):
            found = reader.continuations(prefix, phrases)
            assert found == [encode(f"{prefix}, {phrase}") for phrase in phrases], letter


def test_rows_are_those_of_open_clip(reader):
    """A row built by hand is open_clip's row, without the padding behind the first end token."""
    texts = [*random_texts(3, 300), "sunset " * 90, "", *TEXTS]
    end = open_clip.import_open_clip().tokenizer.SimpleTokenizer().encoder["<end_of_text>"]
    for text, padded in zip(texts, reader.padded(texts).tolist(), strict=True):
        assert reader.row(reader.ids(text)) == padded[: padded.index(end) + 1]


def test_the_budget_is_what_the_backbone_reads(reader, encode):
    """75 tokens for CLIP: the context without start and end; counts leave those out as well."""
    assert reader.budget == 75
    texts = [*TEXTS, "rock'n'roll & <end_of_text>"]
    assert reader.count(texts) == [len(encode(text)) for text in texts]
    assert reader.count(["sunset " * 75, "sunset " * 76]) == [75, 76]
    assert reader.row(reader.ids("sunset " * 75)) == reader.row(reader.ids("sunset " * 76))
    assert reader.row(reader.ids("sunset " * 75)) != reader.row(reader.ids("sunset " * 74))


# --- continuations ---


@pytest.fixture(scope="module", params=KINDS)
def tiny(request) -> open_clip.OpenClip:
    """An encoder around each kind of tiny model."""
    return encoder_of(tiny_model(11, **KINDS[request.param]))


def test_the_fast_path_gives_open_clips_vectors(tiny):
    """Of whole texts, whatever their length."""
    texts = [*TEXTS, *random_texts(4, 40)]
    assert tiny._fast()
    assert distance(tiny.encode_texts(texts), vectors_of(tiny.module, texts)) < ROUNDING


def test_continuations_have_open_clips_vectors(tiny):
    """Whatever the prefix and the phrases are, short, strange or too long for the context."""
    phrases = [
        *random_texts(5, 12), "by an artist", "", "8k", "a long phrase " * 40, "<end_of_text> x",
    ]
    prefixes = [
        "", "a painting of a cat", "wow!", "sunset " * 73, "sunset " * 74, "sunset " * 90,
        "a <end_of_text> b", *random_texts(6, 8),
    ]
    for prefix in prefixes:
        whole = [f"{prefix}, {phrase}" if prefix else phrase for phrase in phrases]
        found = tiny.encode_continuations(prefix, phrases)
        assert distance(found, vectors_of(tiny.module, whole)) < ROUNDING, prefix
        assert tiny.count_continuations(prefix, phrases) == tiny.count_tokens(whole)


def test_one_phrase_and_none_are_answered(tiny):
    """A single phrase has one vector; an empty list has none, of the right width."""
    found = tiny.encode_continuations("a cat", ["8k"])
    assert distance(found, vectors_of(tiny.module, ["a cat, 8k"])) < ROUNDING
    assert tiny.encode_continuations("a cat", []).shape == (0, 48)
    assert tiny.encode_texts([]).shape == (0, 48)
    assert tiny.count_continuations("a cat", []) == []


def test_the_chunk_size_never_changes_a_result():
    """Chunks are about memory only."""
    module = tiny_model(12)
    phrases = [*random_texts(7, 50), *TEXTS]
    whole = encoder_of(module, chunk_size=1000)
    for size in (1, 3, 16):
        chunked = encoder_of(module, chunk_size=size)
        assert distance(
            chunked.encode_continuations("a cat", phrases),
            whole.encode_continuations("a cat", phrases),
        ) < 2e-6
        assert distance(chunked.encode_texts(phrases), whole.encode_texts(phrases)) < 2e-6


@pytest.mark.parametrize("width", [9, 20, 100])
def test_a_row_holds_texts_and_what_they_begin_with_once(width):
    """Each text is what its last token sees, at its own positions; nothing is kept twice."""
    chooser = random.Random(width)
    texts = [[*chooser.choices(range(3), k=chooser.randrange(8)), 9] for _ in range(60)]
    rows = pack(texts, width)
    found: dict[int, list[int]] = {}
    for row in rows:
        assert len(row.ids) == len(row.positions) == len(row.until) <= width
        for number, end in zip(row.texts, row.ends, strict=True):
            seen = [place for place in range(end + 1) if row.until[place] > end]
            assert [row.positions[place] for place in seen] == list(range(len(seen)))
            found[number] = [row.ids[place] for place in seen]
        beginnings = {tuple(texts[n][:k]) for n in row.texts for k in range(1, len(texts[n]) + 1)}
        assert len(row.ids) == len(beginnings)
    assert [found[number] for number in range(60)] == texts
    assert sorted(number for row in rows for number in row.texts) == list(range(60))
    assert pack([], width) == []


@pytest.mark.parametrize("width", [9, 30, 60, 500])
def test_few_rows_are_filled_evenly(width):
    """As many rows as before and the same texts in them, but none wider than it has to be."""
    chooser = random.Random(width)
    for count in (0, 1, 2, 24, 40):
        texts = [[*chooser.choices(range(9), k=chooser.randrange(8)), 9] for _ in range(count)]
        plain, even = pack(texts, width), pack_evenly(texts, width)
        assert len(even) == len(plain)
        widths = [max((len(row.ids) for row in rows), default=0) for rows in (plain, even)]
        assert widths[1] <= widths[0] <= width
        assert sorted(number for row in even for number in row.texts) == list(range(count))
        if len(even) == 2 and width == 60 and count == 24:
            assert max(len(row.ids) for row in even) < 1.5 * min(len(row.ids) for row in even)


def test_what_was_read_of_a_text_is_read_once():
    """A search goes on from the text that it had; any other text is read from where they part."""
    encoder = encoder_of(tiny_model(17))
    read: list[int] = []
    whole = encoder._tower.read_prefix

    def noted(tokens, *rest):
        read.append(len(tokens))
        return whole(tokens, *rest)

    encoder.encode_texts(["a"])
    encoder._tower.read_prefix = noted
    phrases = ["8k", "8k", "an oil painting", "8k, red", "", "très coloré"]
    for prefix, new in (
        ("a red cat", 4),  # with the comma; all texts begin with the start token
        ("a red cat, sunset", 2),
        ("a red cat, sunset, 8k", 3),
        ("a red cat, sunset", 0),
        ("a red dog", 2),
        ("a cat", 2),
    ):
        texts = [f"{prefix}, {phrase}" for phrase in phrases]
        found = encoder.encode_continuations(prefix, phrases)
        assert distance(found, vectors_of(encoder.module, texts)) < ROUNDING
        assert read[-1:] == [new] if new else not read, prefix
        read.clear()


def test_texts_can_be_stopped_between_two_chunks(tiny):
    """The progress that is reported grows to the whole, and whoever is told may stop it."""
    encoder = encoder_of(tiny.module, chunk_size=1)  # 77 tokens at once: three or four of these
    phrases = [f"{number % 17} bottles of beer " + "on the wall " * 5 for number in range(20)]
    seen: list[tuple[str, int, int]] = []
    encoder.encode_continuations("a cat", phrases, lambda *told: seen.append(told), "flavors")
    assert [one[0] for one in seen] == ["flavors"] * len(seen)
    assert [one[1] for one in seen] == sorted(one[1] for one in seen)
    assert seen[0] == ("flavors", 0, 20)
    assert seen[-1] == ("flavors", 20, 20)
    assert len(seen) >= 6

    def stop(_label: str, done: int, _total: int) -> None:
        if done >= 8:
            raise Interrupted("The run was stopped.")

    for run in (encoder.encode_texts, lambda *rest: encoder.encode_continuations("a cat", *rest)):
        with pytest.raises(Interrupted):
            run(phrases, stop)


def test_a_tower_that_is_not_causal_takes_the_plain_path(caplog):
    """Where tokens see what follows them, nothing can be shared; a line in the log says so."""
    if not hasattr(open_clip.import_open_clip(), "__version__"):
        pytest.skip("open_clip 2.20 knows causal towers only")
    caplog.set_level(logging.INFO)
    config = {"no_causal_mask": True, "custom_text": True}
    encoder = encoder_of(tiny_model(13, **config), **config)
    assert find_causal_tower(encoder.module) is None
    assert "tiny: texts take the plain path" in caplog.text
    whole = [f"a cat, {text}" for text in TEXTS]
    found = encoder.encode_continuations("a cat", TEXTS)
    assert distance(found, vectors_of(encoder.module, whole)) < ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "fp16"])
def test_a_tower_that_disagrees_takes_the_plain_path(caplog, dtype):
    """A tower that only looks like open_clip's own is found out by its vectors, once."""
    caplog.set_level(logging.INFO)

    class Unlike(type(tiny_model(14))):
        def encode_text(self, text, normalize=False):
            return super().encode_text(text, normalize) + 1

    module = open_clip.build(tiny_config(), dtype)
    module.load_state_dict(tiny_model(14).state_dict())
    module.__class__ = Unlike
    encoder = encoder_of(module)
    assert find_causal_tower(module) is not None
    whole = [f"a cat, {text}" for text in TEXTS]
    found = encoder.encode_continuations("a cat", TEXTS)
    assert distance(found, vectors_of(module, whole)) < ROUNDING
    assert distance(encoder.encode_texts(TEXTS), vectors_of(module, TEXTS)) < ROUNDING
    lines = [one.message for one in caplog.records if "plain path" in one.message]
    assert lines == ["tiny: texts take the plain path, the fast one disagrees."]


def test_memory_that_runs_out_is_not_taken_for_a_disagreement(monkeypatch):
    """The fast path is tried again when there is memory."""
    encoder = encoder_of(tiny_model(15))
    with monkeypatch.context() as patched:
        def full(*_arguments: object) -> None:
            raise RuntimeError("CUDA out of memory.")

        patched.setattr(type(encoder._tower), "encode", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            encoder.encode_texts(TEXTS)
    encoder.encode_texts(TEXTS)
    assert encoder._fast()


def test_the_callers_autocast_changes_nothing():
    """A WebUI may compute under autocast; vectors keep the precision of the weights."""
    encoder = encoder_of(tiny_model(16))
    expected = encoder.encode_texts(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode_texts(TEXTS), expected)


def test_keys_are_safe_and_tell_names_apart():
    """A key names a folder of vectors."""
    module = tiny_model(0)
    keys = []
    for name in ("ViT-L-14/openai", "/home/me/a b", "/home/me/a_b", "../..", "C:\\models\\x", "é"):
        encoder = encoder_of(module)
        encoder.name = name
        keys.append(encoder.key())
    assert keys[0] == "ViT-L-14_openai"
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert key.strip(".")
        assert not set(key) & set('/\\:*?"<>| ')


# --- device and memory ---


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.float32), ("cpu:0", torch.float32), ("cuda", torch.float16),
        ("cuda:1", torch.float16), ("mps", torch.float16), ("mps:0", torch.float16),
        ("xpu", torch.float32), ("meta", torch.float32),
    ],
)
def test_the_type_of_the_device_decides_the_precision(device, dtype):
    """float16 on CUDA and MPS, whichever of several; float32 elsewhere."""
    assert residency.dtype_for(torch.device(device)) == dtype


@pytest.mark.parametrize("device", ["cpu", "cpu:0", CPU, torch.device("cpu", 0)])
def test_a_device_may_be_given_in_any_form(device):
    """A name or torch's own object; on the CPU it is always float32."""
    resolved = residency.resolve_device(device)
    assert resolved == torch.device(device)
    assert residency.dtype_for(resolved) == torch.float32


def test_without_a_device_there_is_still_one():
    """None means the best there is."""
    assert residency.resolve_device(None).type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cpu:x", "no such"])
def test_a_device_that_is_not_there_is_a_bad_option(device):
    """One sentence, and advice."""
    with pytest.raises(BadOption, match=r"Try cpu\.$") as caught:
        residency.resolve_device(device)
    assert caught.value.field == "device"
    assert "\n" not in str(caught.value)


class Shelf(StandaloneHost):
    """A host that remembers for which networks it was asked to make room."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.asked: list[int] = []

    @contextlib.contextmanager
    def on_device(self, network, size_bytes):
        self.asked.append(size_bytes)
        yield


class Net:
    """A network of one layer."""

    def __init__(self, name: str) -> None:
        self.name, self.module = name, torch.nn.Linear(3, 2)


@pytest.mark.parametrize("low_memory", [False, True])
def test_low_memory_keeps_one_network_on_the_device(low_memory):
    """Otherwise they stay; the host is told the size of each."""
    host = Shelf()
    kept = residency.Residency(CPU, host, low_memory=low_memory)
    first, second = Net("first"), Net("second")
    for network in (first, second, second):
        with kept.on_device(network):
            assert network in kept.resident()
    assert kept.resident() == ([second] if low_memory else [first, second])
    assert host.asked == [32, 32, 32]
    kept.clear()
    assert kept.resident() == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
    ids=lambda error: str(error)[:30] or "MemoryError",
)
def test_memory_that_ran_out_is_one_error(error):
    """However torch words it; the cause is kept."""
    kept = residency.Residency(CPU, Shelf())
    with pytest.raises(OutOfMemory, match="smaller backbone") as caught, kept.on_device(Net("a")):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes don't match"), ValueError("out of memory")])
def test_other_errors_pass(error):
    """Only memory is translated here."""
    with pytest.raises(type(error)) as caught, residency.memory_errors():
        raise error
    assert caught.value is error


def test_a_run_that_failed_holds_no_tensors():
    """The frames of the failed run let go of what they had."""
    held: list[weakref.ref] = []

    def run() -> None:
        tensor = torch.ones(10)
        held.append(weakref.ref(tensor))
        raise MemoryError

    with pytest.raises(OutOfMemory) as caught, residency.memory_errors():
        run()
    assert caught.value.__cause__ is not None  # somebody still has the error
    assert held[0]() is None


def test_a_stop_is_seen_between_two_layers_on_a_processor():
    """All layers of a large network take seconds there, for which nobody who stops should wait."""
    encoder = encoder_of(tiny_model(0))
    reports: list[tuple[str, int, int]] = []
    encoder.encode_texts(["a cat", "a dog"], lambda *report: reports.append(report), "words")
    assert reports == [("words", 0, 2)] * 4 + [("words", 2, 2)]  # one before, and three layers

    def stop(*report: object) -> None:
        reports.append(report)
        if len(reports) == 3:
            raise Interrupted("stopped")

    reports.clear()
    with pytest.raises(Interrupted):
        encoder.encode_texts(["a bird"], stop)


@pytest.mark.parametrize("fails", [False, True])
def test_after_closing_nothing_of_ours_is_referenced(backbone_folder, tmp_path, picture, fails):
    """Networks and vectors are gone after close(), after a failure as well."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        (lists / f"{name}.txt").write_text(f"{name} one\n{name} two\n", encoding="utf-8")
    engine = Interrogator(
        ModelOptions(backbones=(str(backbone_folder),), captioner="none"), StandaloneHost("cpu"),
        load_categories(lists), PhraseStore(tmp_path / "vectors"),
    )
    module = weakref.ref(engine.encoders[0].module)
    parameter = weakref.ref(next(engine.encoders[0].module.parameters()))

    def tick(label: str, done: int, total: int) -> None:
        if fails and label != "Looking" and done:
            raise MemoryError

    expected = pytest.raises(OutOfMemory) if fails else contextlib.nullcontext()
    with expected:
        engine.interrogate(picture, InterrogateOptions(caption="a cat", max_flavors=2), tick)
    assert module() is not None
    del expected  # as long as an error is held, so are the frames that it passed
    engine.close()
    gc.collect()
    assert module() is None
    assert parameter() is None


# --- torchvision ---


def test_a_torchvision_that_does_not_fit_is_imported_all_the_same():
    """In a fresh process: its transforms work, and one warning says what is wrong, if anything."""
    fits = torchvision_operators._library is None  # conftest.py has imported it for this process
    program = (
        "import logging; logging.basicConfig(level=logging.WARNING)\n"
        "from clip_interrogator_ext.models.torchvision_operators import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "from torchvision.transforms import Resize\n"
        "from PIL import Image\n"
        "print(Resize(8)(Image.new('RGB', (16, 32))).size)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(8, 16)"
    assert done.stderr.count("was not built for torch") == (0 if fits else 1)
    assert done.stderr.count("\n") == (0 if fits else 1)
