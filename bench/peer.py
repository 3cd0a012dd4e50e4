"""Run clip-interrogator over the pictures, in a process of its own that batch.py starts.

The work is done by its own Interrogator with its own defaults. The order is that of the batch tab
of clip-interrogator-ext 0.2.1: all captions first, then all prompts, a text file for each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measuring import Meter, Task, read_lines

from clip_interrogator_ext.models import captioning, open_clip
from clip_interrogator_ext.models.torchvision_operators import import_torchvision
from clip_interrogator_ext.vocabulary.lists import load_categories

import_torchvision()  # the peer imports open_clip by itself

import torch
from clip_interrogator import Config, Interrogator, LabelTable
from clip_interrogator.clip_interrogator import CAPTION_MODELS, _prompt_at_max_len  # noqa: F401 - rows.py asks it
from PIL import Image


def main() -> None:
    """Write a text for each picture, and say how long it took and what the captions were."""
    task = Task(*sys.argv[1:])
    listed = Path(task.pictures)
    pictures = [listed.parent / name for name in read_lines(listed)]
    peer = make(Path(task.cache), Path(task.lists))
    ask = {
        "best": peer.interrogate,
        "classic": peer.interrogate_classic,
        "fast": peer.interrogate_fast,
    }[task.mode]
    meter = Meter()
    captions = []
    for path in pictures:
        captions.append(peer.generate_caption(Image.open(path).convert("RGB")))
        meter.step()
    for path, caption in zip(pictures, captions, strict=True):
        prompt = ask(Image.open(path).convert("RGB"), caption=caption)
        Path(task.output, f"{path.stem}.txt").write_text(prompt, encoding="utf-8")
        meter.step()
    meter.end()
    meter.save(task.notes, torch.get_num_threads(), captions)


def make(cache: Path, lists: Path) -> Interrogator:
    """Return the peer with the demo models and our lists; it keeps its vectors in `cache`."""
    # It would load a captioner of its own from the hub: under that name it finds ours instead, and
    # loads network, picture settings and tokenizer as it always does.
    CAPTION_MODELS["blip-base"] = str(captioning.DEMO_FOLDER)
    config = Config(
        caption_model_name="blip-base",
        clip_model_name="ViT-B-32/demo",  # names the tokenizer and the files of vectors
        cache_path=str(cache),
        download_cache=False,
        data_path=str(lists),
        device="cpu",
        quiet=True,
    )
    backbone = open_clip.load("demo", device=torch.device("cpu"), dtype=torch.float32)
    config.clip_model, config.clip_preprocess = backbone.module, backbone.preprocess
    peer = Interrogator(config)
    # It has sites of its own in its code, and ours are others.
    peer.trendings = LabelTable(list(load_categories(lists)["sites"].phrases), "sites", peer)
    return peer


if __name__ == "__main__":
    main()
