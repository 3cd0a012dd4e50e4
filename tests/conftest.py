"""Models and word lists that every test can have."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import hypothesis
import pytest
import torch

from clip_interrogator_ext.models.torchvision_operators import import_torchvision
from tests.faults import disk, in_time, open_folder  # noqa: F401 - fixtures

import_torchvision()  # the peer imports open_clip by itself

# The same examples each time and on each machine, however slow it is; `make fuzz` thinks up others.
hypothesis.settings.register_profile(
    "same", derandomize=True, database=None, deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a real WebUI to test in."""
    parser.addoption(
        "--webui", action="append", default=[], metavar="PATH",
        help="with =: a WebUI's folder, with its virtual environment in venv/; may be given again",
    )
    parser.addoption(
        "--checkpoints", metavar="FOLDER",
        help="with =: where a checkpoint of Stable Diffusion lies, to generate with in that "
        "WebUI; its weights may be random",
    )
    parser.addoption(
        "--screenshots", metavar="FOLDER", help="where the tests with --webui put their pictures"
    )
    parser.addoption(
        "--thorough", action="store_true",
        help="try faults as often as docs/reliability.md says, which takes hours",
    )


def _half_runs_on_cpu() -> bool:
    """Say whether this torch computes in float16 on a CPU; 2.1 does not, and we never do."""
    try:
        torch.nn.Conv2d(1, 1, 1).half()(torch.ones(1, 1, 1, 1).half())
    except RuntimeError:
        return False
    return True


needs_half_on_cpu = pytest.mark.skipif(
    not _half_runs_on_cpu(), reason="this torch computes in float16 on a GPU only"
)
HALF = pytest.param(torch.float16, marks=needs_half_on_cpu)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured."""
    reports = [one for one in terminalreporter.getreports("passed") if one.when == "call"]
    properties = [each for report in reports for each in report.user_properties]
    for name, text in properties:
        if name == "figures":
            terminalreporter.write_line(text)
    # How often phrases of nearly equal similarity changed places against the peer.
    ties = [count for name, count in properties if name == "near_ties"]
    if ties:
        terminalreporter.write_line(
            f"parity: phrases within 2e-6 changed places {sum(ties)} times in {len(ties)} tests"
        )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests compute out of the user's cache; what one has computed serves the others."""
    os.environ["CLIP_INTERROGATOR_EXT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_lists(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's word lists and a test's apart."""
    monkeypatch.setenv("CLIP_INTERROGATOR_EXT_DATA", str(tmp_path_factory.mktemp("data")))


def tiny_config(*, custom_text: bool = False, quick_gelu: bool = False, **text: object) -> dict:
    """Return open_clip's configuration of a model that computes in milliseconds."""
    return {
        "embed_dim": 48,
        "quick_gelu": quick_gelu,
        "custom_text": custom_text,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3, **text,
        },
    }


def tiny_model(seed: int, **config: object) -> torch.nn.Module:
    """Return a tiny open_clip model with random weights that tell texts apart."""
    from clip_interrogator_ext.models import open_clip

    torch.manual_seed(seed)
    model = open_clip.build(tiny_config(**config))
    text = getattr(model, "text", model)
    with torch.no_grad():
        # At open_clip's own scale all texts of an untrained model are nearly the same.
        text.token_embedding.weight.normal_(std=0.5)
        text.positional_embedding.normal_(std=0.3)
        for block in text.transformer.resblocks:
            block.attn.in_proj_weight.normal_(std=0.2)
            block.mlp.c_fc.weight.normal_(std=0.2)
            block.mlp.c_proj.weight.normal_(std=0.1)
    return model


def save_backbone(folder: Path, model: torch.nn.Module, config: dict) -> Path:
    """Save a model as a folder in open_clip's format."""
    import json

    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}}), encoding="utf-8"
    )
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone in open_clip's folder format."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    return save_backbone(folder, tiny_model(0), tiny_config())


@pytest.fixture(scope="session")
def picture():
    """A small RGB picture with something on it."""
    from PIL import Image

    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (40, 56, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).resize((280, 200), Image.Resampling.BICUBIC)
