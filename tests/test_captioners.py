"""Captioners: found, loaded, refused, and what they write."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clip_interrogator_ext import catalog, errors
from clip_interrogator_ext.models import captioning
from clip_interrogator_ext.models.captioning import load_captioner
from clip_interrogator_ext.options import CaptionOptions
from tests import tiny_models
from tests.conftest import HALF, needs_half_on_cpu

pytestmark = pytest.mark.hosts

OFFICIAL = "blip-base"
HUB = catalog.CAPTIONERS[OFFICIAL].hub
LAST = HUB.split("/")[1]
FLAT = HUB.replace("/", "--")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these spend more time on handing work over than on doing it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each kind of captioner, with safetensors."""
    root = tmp_path_factory.mktemp("captioners")
    return {
        kind: tiny_models.save(build(), root / kind) for kind, build in tiny_models.KINDS.items()
    }


@pytest.fixture(params=list(tiny_models.KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def captioner(kind: str, folders: dict[str, Path]) -> Any:
    """A captioner of each kind, freshly loaded."""
    return load(folders[kind])


@pytest.fixture
def blip_copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of BLIP that a test may spoil."""
    return Path(shutil.copytree(folders["blip"], tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _empty_hub_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Forbid downloads, and keep the cache of whoever runs the tests out of sight."""
    from huggingface_hub import constants

    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The variable for it is read once, when huggingface_hub is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def load(folder: Path, **how: Any) -> Any:
    how = {"models_dirs": (), "device": "cpu", "dtype": torch.float32, **how}
    return load_captioner(str(folder), **how)


def put_in_cache(folder: Path, cache: Path) -> Path:
    """Lay a folder out as huggingface_hub keeps a download."""
    repository = cache / f"models--{FLAT}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    return Path(shutil.copytree(folder, repository / "snapshots" / "0123abcd"))


def to_pickle(folder: Path, **more: Any) -> Path:
    """Turn a folder's safetensors into a pickled file of the older kind."""
    weights = folder / "model.safetensors"
    torch.save({**load_file(weights), **more}, folder / "pytorch_model.bin")
    weights.unlink()
    return folder


class Trap:
    """Something that leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


# --- what is written ---


def test_a_caption_is_plain_text(captioner: Any, picture: Image.Image) -> None:
    """A caption is words of the vocabulary, without special tokens or space around them."""
    caption = captioner.caption(picture, CaptionOptions(max_length=8))
    assert caption
    assert set(caption.split(" ")) <= set(tiny_models.WORDS[4:])


def test_the_same_picture_has_the_same_caption(captioner: Any, picture: Image.Image) -> None:
    """Nothing is left to chance."""
    options = CaptionOptions(max_length=8)
    captions = {captioner.caption(picture, options) for _ in range(3)}
    assert len(captions) == 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("min_length", [0, 3])
def test_several_pictures_have_the_captions_of_each(
    captioner: Any, picture: Image.Image, beams: int, min_length: int
) -> None:
    """Written together, also where one ends before the others."""
    options = CaptionOptions(beams=beams, min_length=min_length, max_length=8)
    images = [picture, picture.rotate(90), picture.resize((30, 70)), Image.new("RGB", (9, 9))]
    pixels = torch.stack([captioner.preprocess(image) for image in images])
    each = [captioner.caption(image, options) for image in images]
    assert captioner.captions(pixels, options) == each


def test_what_fills_up_a_caption_that_ends_early_is_no_part_of_it(captioner: Any) -> None:
    """Whatever a version of transformers puts behind the end."""
    end = captioner.roles["eos_token_id"]
    assert captioner._ended([7, 8, end, 9, end]) == [7, 8]
    assert captioner._ended([7, 8]) == [7, 8]
    captioner.roles["eos_token_id"] = [end, 9]
    assert captioner._ended([7, 9, end]) == [7]


def test_the_picture_is_looked_at(captioner: Any, picture: Image.Image) -> None:
    """Another picture gives the decoder other numbers."""
    seen = []
    captioner.writer().get_output_embeddings().register_forward_hook(
        lambda _layer, _inputs, scores: seen.append(scores[:, -1])
    )
    for image in (picture, picture.rotate(180)):
        captioner.caption(image, CaptionOptions(max_length=1))
    assert not torch.allclose(seen[0], seen[1])


def test_beams_are_searched(
    captioner: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every kind searches with several beams in this version of transformers."""
    asked = []
    writer = captioner.writer()
    generate = writer.generate
    monkeypatch.setattr(
        writer, "generate", lambda **how: asked.append(how["num_beams"]) or generate(**how)
    )
    assert captioner.caption(picture, CaptionOptions(beams=3, max_length=8))
    assert asked == [3]
    assert not caplog.records


@pytest.mark.parametrize("beams", [1, 3])
def test_the_longest_caption_has_as_many_tokens_as_allowed(
    captioner: Any, picture: Image.Image, beams: int
) -> None:
    """The maximum counts the tokens of the caption, not those of the prompt or the picture."""
    tiny_models.favour(captioner, 9)
    caption = captioner.caption(picture, CaptionOptions(beams=beams, max_length=6))
    assert caption == " ".join(["word9"] * 6)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_end_is_put_off_until_the_minimum(
    captioner: Any, picture: Image.Image, beams: int
) -> None:
    """A captioner that would end at once writes as many tokens as it must."""
    tiny_models.favour(captioner, tiny_models.END, 9)
    assert captioner.caption(picture, CaptionOptions(beams=beams)) == ""
    caption = captioner.caption(picture, CaptionOptions(beams=beams, min_length=4))
    assert caption == "word9 word9 word9 word9"


def test_the_prompt_is_no_part_of_the_caption(
    kind: str, folders: dict[str, Path], tmp_path: Path, picture: Image.Image
) -> None:
    """What a captioner starts from does not show, even where the tokenizer would let it."""
    folder = Path(shutil.copytree(folders[kind], tmp_path / "copy"))
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    captioner = load(folder)
    tiny_models.favour(captioner, 9)
    assert captioner.caption(picture, CaptionOptions(max_length=2)) == "word9 word9"


def test_the_folder_can_not_ask_for_sampling(
    kind: str, folders: dict[str, Path], tmp_path: Path, picture: Image.Image,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Settings for sampling that lie in a folder change nothing and warn of nothing."""
    folder = Path(shutil.copytree(folders[kind], tmp_path / "copy"))
    path = folder / "generation_config.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    saved |= {"do_sample": True, "temperature": 9.0, "top_p": 0.9, "num_beams": 2, "max_length": 3}
    path.write_text(json.dumps(saved), encoding="utf-8")
    options = CaptionOptions(max_length=8)
    expected = load(folders[kind]).caption(picture, options)
    recwarn.clear()
    sampled = load(folder)
    assert {sampled.caption(picture, options) for _ in range(5)} == {expected}
    assert not [str(one.message) for one in recwarn if "sampl" in str(one.message)]


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_caption_is_what_transformers_writes(
    captioner: Any, kind: str, folders: dict[str, Path], picture: Image.Image
) -> None:
    """Loaded and asked in its own way, transformers comes to the same words."""
    import transformers

    folder = folders[kind]
    module = getattr(transformers, captioner.model_class).from_pretrained(folder)
    reader = getattr(transformers, captioner.image_processor_class).from_pretrained(folder)
    pixels = reader(images=picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(captioner.preprocess(picture)[None], pixels, atol=0.03, rtol=0)
    ids = module.generate(
        pixel_values=captioner.preprocess(picture)[None], do_sample=False, max_new_tokens=8
    )
    own = captioner._tokenizer.decode(ids[0].tolist(), skip_special_tokens=True).strip()
    assert captioner.caption(picture, CaptionOptions(max_length=8)) == own


def test_blip2_writes_what_its_module_writes(
    folders: dict[str, Path], picture: Image.Image
) -> None:
    """The steps taken here one by one add up to the module's own way from picture to words."""
    import transformers

    captioner = load(folders["blip2-opt"])
    caption = captioner.caption(picture, CaptionOptions(max_length=6))
    module = captioner.module
    if int(transformers.__version__.split(".")[0]) >= 5:
        module.config.image_token_index = 47  # newer versions put the picture in their place
    ids = module.generate(captioner.preprocess(picture)[None], do_sample=False, max_length=20)
    own = captioner._tokenizer.decode(ids[0].tolist(), skip_special_tokens=True).strip()
    assert len(caption.split()) == 6
    assert own.removeprefix("word47 " * 4).startswith(caption)


@needs_half_on_cpu
def test_t5_stays_in_range(folders: dict[str, Path], picture: Image.Image) -> None:
    """In half precision, T5's layers that overflow in float16 are kept in float32."""
    captioner = load(folders["blip2-t5"], device="cuda", dtype=torch.float16)
    types = {name: parameter.dtype for name, parameter in captioner.module.named_parameters()}
    outputs = {types.pop(name) for name in list(types) if ".wo." in name}
    assert outputs == {torch.float32}
    assert types["language_model.shared.weight"] == torch.float16
    tiny_models.favour(captioner, 9)
    assert captioner.caption(picture, CaptionOptions(max_length=2)) == "word9 word9"


# --- where it runs ---


def test_precision_is_the_devices(kind: str, folders: dict[str, Path]) -> None:
    """On the CPU weights are float32 whatever was asked for; elsewhere as asked."""
    for device, expected in (("cpu", torch.float32), ("cuda:0", torch.float16)):
        module = load(folders[kind], device=device, dtype=torch.float16).module
        assert module.vision_model.dtype == expected if kind != "git" else module.dtype == expected


@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16])
def test_a_network_may_change_between_captions(
    captioner: Any, picture: Image.Image, dtype: torch.dtype
) -> None:
    """The picture is given to the network in the precision that it has now."""
    tiny_models.favour(captioner, 9)
    for precision in (dtype, torch.float32):
        captioner.module.to(precision)
        assert captioner.caption(picture, CaptionOptions(max_length=2)) == "word9 word9"


@pytest.mark.parametrize("size", [(1, 1), (40, 1), (40, 3), (3, 40), (900, 2)])
def test_thin_pictures_are_read_rightly(captioner: Any, size: tuple[int, int]) -> None:
    """A side of 1 or 3 pixels is not taken for the color channels."""
    seen = []
    patches = next(m for m in captioner.module.modules() if isinstance(m, torch.nn.Conv2d))
    patches.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    for shape in (size, (40, 40)):
        image = Image.new("RGB", shape, (200, 30, 90))
        captioner.caption(image, CaptionOptions(max_length=1))
    assert torch.equal(seen[0], seen[1])


# --- ticks ---


@pytest.mark.parametrize("beams", [1, 3])
def test_a_tick_comes_before_each_token(
    captioner: Any, picture: Image.Image, beams: int
) -> None:
    """The tick counts the tokens written so far, towards the maximum."""
    tiny_models.favour(captioner, 9)
    ticks: list[tuple[str, int, int]] = []
    captioner.caption(
        picture, CaptionOptions(beams=beams, max_length=4), lambda *tick: ticks.append(tick)
    )
    assert ticks == [("caption", done, 4) for done in range(4)]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind_of_error", [errors.Interrupted, ValueError])
def test_the_tick_can_stop_a_caption(
    captioner: Any, picture: Image.Image, beams: int, kind_of_error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the tick raises comes out at once, and is not taken for a failure of the beams."""
    tiny_models.favour(captioner, 9)
    ticks = []

    def stop_at_third(_label: str, done: int, _total: int) -> None:
        ticks.append(done)
        if done == 2:
            raise kind_of_error("stop")

    with pytest.raises(kind_of_error, match=r"^stop$"):
        captioner.caption(picture, CaptionOptions(beams=beams), stop_at_third)
    assert ticks == [0, 1, 2]
    assert not caplog.records


# --- beams that fail ---


def fail_with_beams(captioner: Any, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make generation with several beams fail; return the list of beams asked for."""
    asked: list[int] = []
    writer = captioner.writer()
    generate = writer.generate

    def generate_or_fail(**how: Any) -> Any:
        asked.append(how["num_beams"])
        if how["num_beams"] > 1:
            raise error
        return generate(**how)

    monkeypatch.setattr(writer, "generate", generate_or_fail)
    return asked


def test_failing_beams_give_way_to_greed(
    captioner: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a version can't search with beams, one warning says so and captions are greedy."""
    greedy = captioner.caption(picture, CaptionOptions(max_length=5))
    message = "The size of tensor a (3) must match the size of tensor b (9)"
    asked = fail_with_beams(captioner, RuntimeError(message), monkeypatch)
    options = CaptionOptions(beams=3, max_length=5)
    with caplog.at_level(logging.WARNING):
        captions = [captioner.caption(picture, options) for _ in range(2)]
    assert captions == [greedy, greedy]
    assert asked == [3, 1, 1]
    assert [message in record.getMessage() for record in caplog.records] == [True]


def test_a_full_device_is_no_failure_of_the_beams(
    captioner: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory is said, not tried again with one beam."""
    asked = fail_with_beams(captioner, torch.cuda.OutOfMemoryError("CUDA full"), monkeypatch)
    with pytest.raises(errors.OutOfMemory):
        captioner.caption(picture, CaptionOptions(beams=3))
    assert asked == [3]


# --- where folders are looked for ---


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A slip of the pen gets the name that was meant."""
    with pytest.raises(errors.UnknownModel, match=r"'blip-bas'.*Did you mean blip-base") as caught:
        load_captioner("blip-bas", (), "cpu", torch.float32)
    assert caught.value.nearest[0] == "blip-base"


def test_a_repositorys_name_is_answered_with_ours() -> None:
    """Whoever gives the hub's name is told the catalogue's."""
    with pytest.raises(errors.UnknownModel) as caught:
        load_captioner(HUB, (), "cpu", torch.float32)
    assert caught.value.nearest == (OFFICIAL,)


def test_missing_offline_names_each_place(tmp_path: Path, _empty_hub_cache: Path) -> None:
    """The message names the model, where it was looked for, and how to put it there."""
    with pytest.raises(errors.MissingModel) as caught:
        load_captioner(OFFICIAL, [tmp_path], "cpu", torch.float32)
    message = str(caught.value)
    for part in (
        OFFICIAL, "HF_HUB_OFFLINE", f"hf download {HUB} --local-dir {tmp_path / LAST}",
        f"{tmp_path / LAST};", f"{tmp_path / 'captioners' / LAST};", f"{tmp_path / FLAT};",
        f"{tmp_path / f'models--{FLAT}'};", str(_empty_hub_cache / f"models--{FLAT}"),
    ):
        assert part in message


def test_missing_without_a_network_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the download fails, its error is part of the message."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HfHubHTTPError

    def no_network(*_args: Any, **_how: Any) -> str:
        raise HfHubHTTPError.__bases__[0]("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(captioning.downloads, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(HfApi, "list_repo_files", no_network)
    with pytest.raises(errors.MissingModel, match=r"failed \(Name or service not known") as caught:
        load_captioner(OFFICIAL, [tmp_path], "cpu", torch.float32)
    assert str(tmp_path / LAST) in str(caught.value)


@pytest.mark.parametrize(
    "place", [LAST, f"captioners/{LAST}", FLAT, "cache of the models folder", "cache"]
)
def test_places_are_looked_in(
    place: str, folders: dict[str, Path], tmp_path: Path, _empty_hub_cache: Path,
    picture: Image.Image,
) -> None:
    """Weights are taken from wherever the user keeps them, without a network."""
    if place.startswith("cache"):
        cache = _empty_hub_cache if place == "cache" else tmp_path
        folder = put_in_cache(folders["blip"], cache)
    else:
        folder = Path(shutil.copytree(folders["blip"], tmp_path / place))
    assert captioning.find(OFFICIAL, [tmp_path]).folder == folder
    assert captioning.local_folder(OFFICIAL, [tmp_path]) == folder
    captioner = load_captioner(OFFICIAL, [tmp_path], "cpu", torch.float32)
    assert captioner.name == OFFICIAL
    assert captioner.caption(picture, CaptionOptions())


def test_the_models_folder_comes_before_the_cache(
    folders: dict[str, Path], tmp_path: Path, _empty_hub_cache: Path
) -> None:
    """Of two copies, the one in the user's own folder is taken."""
    put_in_cache(folders["blip"], _empty_hub_cache)
    folder = shutil.copytree(folders["blip"], tmp_path / "captioners" / LAST)
    assert captioning.find(OFFICIAL, [tmp_path]).folder == folder


def test_several_models_folders_are_looked_in_in_order(
    folders: dict[str, Path], tmp_path: Path, _empty_hub_cache: Path
) -> None:
    """The first folder that has the captioner gives it; where none has, all are named."""
    dirs = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(errors.MissingModel) as caught:
        captioning.find(OFFICIAL, dirs)
    places, advice = str(caught.value).split("Looked in: ")[1].split(" To put it there: ")
    order = [places.index(str(one)) for one in (*dirs, _empty_hub_cache)]
    assert order == sorted(order)
    assert str(dirs[0]) in advice
    assert str(dirs[1]) not in advice
    put_in_cache(folders["blip"], _empty_hub_cache)
    last = shutil.copytree(folders["blip"], dirs[1] / FLAT)
    assert captioning.find(OFFICIAL, dirs).folder == last
    first = put_in_cache(folders["blip"], dirs[0])
    assert captioning.find(OFFICIAL, dirs).folder == first


def test_half_a_download_does_not_count(blip_copy: Path, tmp_path: Path) -> None:
    """A folder without its weights is passed over."""
    (blip_copy / "model.safetensors").unlink()
    blip_copy.rename(tmp_path / LAST)
    assert captioning.local_folder(OFFICIAL, [tmp_path]) is None
    with pytest.raises(errors.MissingModel):
        load_captioner(OFFICIAL, [tmp_path], "cpu", torch.float32)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_download_goes_to_the_models_folder(
    pickled: bool, blip_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safetensors are asked for, a pickled file only of a repository that has no others."""
    from huggingface_hub import HfApi

    asked = []
    if pickled:
        to_pickle(blip_copy)
    small = {file.name for file in blip_copy.iterdir() if file.suffix in (".json", ".txt")}
    weights = ["pytorch_model.bin"] if pickled else ["model.safetensors", "pytorch_model.bin"]
    published = [*small, *weights, "README.md", "flax_model.msgpack", "onnx/model.safetensors"]

    def fetch(hub: str, names: list[str], cache: Path, _transfer: Any) -> Path:
        asked.append((hub, set(names), cache))
        return blip_copy / names[-1]

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(captioning.downloads, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(HfApi, "list_repo_files", lambda _api, _hub: published)
    monkeypatch.setattr(captioning.downloads, "fetch", fetch)
    found = captioning.find(OFFICIAL, [tmp_path, tmp_path / "second"])
    assert found.folder == blip_copy
    assert asked == [(HUB, {*small, weights[0]}, tmp_path)]


# --- what is refused ---


def test_a_folder_with_pickled_weights_only_is_refused(blip_copy: Path) -> None:
    """A stranger's .bin is not opened, and the message says what to do."""
    to_pickle(blip_copy)
    with pytest.raises(errors.UnsafeWeights, match="safetensors"):
        load(blip_copy)


def test_published_pickled_weights_are_read(
    blip_copy: Path, folders: dict[str, Path], tmp_path: Path, picture: Image.Image
) -> None:
    """A captioner of the catalogue may come as a .bin, and says the same as with safetensors."""
    to_pickle(blip_copy).rename(tmp_path / LAST)
    captioner = load_captioner(OFFICIAL, [tmp_path], "cpu", torch.float32)
    options = CaptionOptions(max_length=8)
    assert captioner.caption(picture, options) == load(folders["blip"]).caption(picture, options)


@pytest.mark.parametrize("official", [False, True])
def test_a_pickled_trap_does_not_go_off(official: bool, blip_copy: Path, tmp_path: Path) -> None:
    """Code in a weights file is not run, whatever name the file goes by."""
    trace = tmp_path / "trace"
    to_pickle(blip_copy, trap=Trap(trace))
    torch.load(blip_copy / "pytorch_model.bin", weights_only=False)
    assert trace.exists(), "the trap itself works"
    trace.unlink()
    blip_copy.rename(tmp_path / LAST)
    name = OFFICIAL if official else str(tmp_path / LAST)
    with pytest.raises(errors.BrokenModel if official else errors.UnsafeWeights):
        load_captioner(name, [tmp_path], "cpu", torch.float32)
    assert not trace.exists()


def test_safetensors_are_preferred(
    blip_copy: Path, tmp_path: Path, picture: Image.Image
) -> None:
    """Where both kinds lie side by side, the .bin is not even opened."""
    (blip_copy / "pytorch_model.bin").write_bytes(b"not a checkpoint")
    assert load(blip_copy).caption(picture, CaptionOptions())


@pytest.mark.parametrize(
    "lost", ["vision_model.embeddings.patch_embedding.weight", "text_decoder.cls.predictions.bias"]
)
def test_missing_weights_are_refused(blip_copy: Path, lost: str) -> None:
    """A network that would be random in part is not used."""
    path = blip_copy / "model.safetensors"
    state = load_file(path)
    state = {name: tensor for name, tensor in state.items() if not shares(name, lost)}
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(errors.BrokenModel, match=r"predictions|patch_embedding"):
        load(blip_copy)


def shares(name: str, lost: str) -> bool:
    """Say whether a weight is the lost one, or the same under its other name."""
    return name == lost or name == lost.replace("predictions.bias", "predictions.decoder.bias")


def test_weights_of_another_shape_are_refused(blip_copy: Path) -> None:
    """A configuration that does not belong to the weights is found out."""
    change_json(blip_copy / "config.json", vision_config={"hidden_size": 48})
    with pytest.raises(errors.BrokenModel, match="does not make a working"):
        load(blip_copy)


def change_json(path: Path, **values: Any) -> None:
    """Change values in a JSON file, one level deep."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"]
)
def test_truncated_files_are_refused(blip_copy: Path, name: str) -> None:
    """A copy that broke off is told from a model, in a sentence that names the place."""
    content = (blip_copy / name).read_bytes()
    (blip_copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(errors.BrokenModel, match=str(blip_copy)) as caught:
        load(blip_copy)
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_refused(blip_copy: Path) -> None:
    """A folder that is not a captioner's is named for what it is."""
    change_json(blip_copy / "config.json", model_type="llama")
    with pytest.raises(errors.BrokenModel, match=r"'llama'.*blip"):
        load(blip_copy)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A folder without a configuration is not guessed at."""
    with pytest.raises(errors.MissingModel, match=r"config\.json"):
        load(tmp_path)


# --- forms that a folder can have ---


def test_weights_may_be_in_parts(
    tmp_path: Path, folders: dict[str, Path], picture: Image.Image
) -> None:
    """Large models come in several files, each of which is needed."""
    folder = tiny_models.save(tiny_models.blip(), tmp_path / "parts", max_shard_size="40KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    options = CaptionOptions(max_length=8)
    assert load(folder).caption(picture, options) == load(folders["blip"]).caption(picture, options)
    parts[0].unlink()
    with pytest.raises(errors.BrokenModel, match=parts[0].name):
        load(folder)


def test_shared_weights_may_be_written_once(
    blip_copy: Path, folders: dict[str, Path], picture: Image.Image
) -> None:
    """BLIP's output layer is its word embeddings, which transformers 5 writes under one name."""
    path = blip_copy / "model.safetensors"
    state = load_file(path)
    decoder = "text_decoder.cls.predictions.decoder."
    embeddings = "text_decoder.bert.embeddings.word_embeddings.weight"
    shared = {**state, f"{decoder}weight": state[embeddings].clone()}
    save_file(shared, path, metadata={"format": "pt"})
    options = CaptionOptions(max_length=8)
    expected = load(blip_copy).caption(picture, options)
    once = {name: tensor for name, tensor in shared.items() if not name.startswith(decoder)}
    save_file(once, path, metadata={"format": "pt"})
    assert load(blip_copy).caption(picture, options) == expected


def test_picture_settings_may_be_nested(
    blip_copy: Path, folders: dict[str, Path], picture: Image.Image
) -> None:
    """Transformers 5 writes them into processor_config.json, under a key."""
    expected = load(blip_copy).preprocess(picture)
    path = blip_copy / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"image_processor_type": "BlipImageProcessorFast", "data_format": "channels_first"}
    path.unlink()
    (blip_copy / "processor_config.json").write_text(
        json.dumps({"image_processor": settings, "processor_class": "BlipProcessor"}),
        encoding="utf-8",
    )
    assert torch.equal(load(blip_copy).preprocess(picture), expected)


def test_words_may_be_a_plain_list(blip_copy: Path, picture: Image.Image) -> None:
    """Older folders have no tokenizer.json, only BERT's list of words."""
    (blip_copy / "tokenizer.json").unlink()
    (blip_copy / "vocab.txt").write_text("\n".join(tiny_models.WORDS), encoding="utf-8")
    (blip_copy / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8"
    )
    captioner = load(blip_copy)
    tiny_models.favour(captioner, 9)
    assert captioner.caption(picture, CaptionOptions(max_length=2)) == "word9 word9"


def test_loading_and_writing_are_quiet(
    blip_copy: Path, picture: Image.Image, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars and remarks of transformers' stay away, and its own settings are given back."""
    from transformers.utils import logging as chatter

    path = blip_copy / "model.safetensors"
    save_file({**load_file(path), "unused": torch.ones(2)}, path, metadata={"format": "pt"})
    before = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    capfd.readouterr()
    load(blip_copy).caption(picture, CaptionOptions(beams=2, max_length=4))
    assert capfd.readouterr() == ("", "")
    assert (chatter.get_verbosity(), chatter.is_progress_bar_enabled()) == before


def test_the_bundled_captioner_writes(picture: Image.Image) -> None:
    """The demo needs neither a network nor a models folder."""
    captioner = load_captioner(catalog.DEMO, (), "cpu", torch.float32)
    assert captioner.caption(picture, CaptionOptions())
