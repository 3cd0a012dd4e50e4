"""Feed what atheris thinks up to all that reads files and requests of strangers.

A finding is whatever is neither an answer nor one of the errors that the reader documents, and an
input that takes more than half a minute or more memory than it may. Its bytes are kept in a file;
`tests/fuzz.py TARGET FILE` tries them again, and a plain test belongs beside every mending.
`make fuzz SECONDS=60` attacks all targets one after the other; test_fuzz.py does so in CI.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import multiprocessing
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Attempt = Callable[[bytes], None]

LONGEST_SECONDS = 30  # on a machine that is busy with other tests, too
MOST_MEGABYTES = 1500
# Files in memory, where the system has them: on a disk each costs a hundred times as much.
FOLDER = next(filter(os.path.isdir, ["/dev/shm"]), None)  # noqa: S108 - only its parent
MOST_PIXELS = 2**20  # of a picture here, so that one attempt is short


@dataclass(frozen=True)
class Target:
    """What is attacked: makes the attempt, in a folder of its own, and the inputs to begin with."""

    prepare: Callable[[Path], Attempt]
    seeds: Callable[[], list[bytes]]


# Pictures


def pictures(folder: Path) -> Attempt:
    """Open a picture from its bytes, and read the generation data in it."""
    with atheris.instrument_imports(include=["clip_interrogator_ext", "PIL"]):
        from clip_interrogator_ext import images, phrases
        from clip_interrogator_ext.errors import BadImage
    images.MAX_PIXELS = MOST_PIXELS

    def attempt(data: bytes) -> None:
        parameters = images.embedded_parameters(data)
        if parameters is not None:
            phrases.split_parameters(parameters)
        try:
            image = images.open_image(data)
        except BadImage:
            return
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= MOST_PIXELS

    return attempt


def picture_seeds() -> list[bytes]:
    """Return small pictures in every form that is opened, with generation data."""
    import numpy as np
    from PIL import Image, PngImagePlugin, features

    pixels = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a fox\nSteps: 20".encode("utf-16-be")
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a fox\nNegative prompt: fog\nSteps: 20", zip=True)
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}},
    }
    comfy = PngImagePlugin.PngInfo()
    comfy.add_itxt("prompt", json.dumps(graph))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "PNG", {"pnginfo": text}),
        (image.convert("I;16"), "PNG", {"pnginfo": comfy, "exif": exif}),
        (image.quantize(8), "PNG", {"transparency": 3}),
        (image.convert("RGBA"), "PNG", {"save_all": True, "append_images": [image]}),
        (image, "JPEG", {"exif": exif}),
        (image.convert("CMYK"), "JPEG", {"progressive": True}),
        (image, "WEBP", {"exif": exif}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "BMP", {}),
        (image.quantize(8), "BMP", {}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image.convert("F"), "TIFF", {}),
        (image.convert("1"), "TIFF", {"compression": "group4"}),
        (image, "JPEG2000", {}),
        (image, "PPM", {}),
        (image.convert("1"), "PPM", {}),
        (image.convert("F"), "PPM", {}),
        (image, "TGA", {"compression": "tga_rle"}),
        (image.quantize(8), "TGA", {}),
    ]
    if "avif" in features.modules and features.check("avif"):
        kinds.append((image, "AVIF", {"exif": exif}))
    found = []
    for one, kind, options in kinds:
        buffer = BytesIO()
        one.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def with_checksums(data: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have; else the data as they are.

    Without that nearly all that is done to a PNG ends at the first check.
    """
    mark = b"\x89PNG\r\n\x1a\n"
    if not data.startswith(mark):
        return data
    made, at = bytearray(data), len(mark)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 8 + size
        if end + 4 > len(data):
            break
        struct.pack_into(">I", made, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(made)


def texts(folder: Path) -> Attempt:
    """Open a picture from base64 or a data URL."""
    with atheris.instrument_imports(include=["clip_interrogator_ext", "base64"]):
        from clip_interrogator_ext import images
        from clip_interrogator_ext.errors import BadImage
    images.MAX_PIXELS = MOST_PIXELS

    def attempt(data: bytes) -> None:
        try:
            images.decode_base64(data.decode("utf-8", "surrogateescape"))
        except BadImage:
            return

    return attempt


def text_seeds() -> list[bytes]:
    """Return pictures in base64, plain and as data URLs."""
    written = [base64.b64encode(seed) for seed in picture_seeds()]
    urls = [b"data:image/png;base64," + one for one in written]
    return [*written, *urls, b"https://example.org/a.png", b"data:,x"]


# Word lists

LIST_NAMES = ("list.txt", "list.top3.txt", "artists.csv", "list.yaml", "folder/part.txt")
FORMS = ("", "wildcards", "interrogate")  # who keeps the list, which says how lines are read


def lists(folder: Path) -> Attempt:
    """Read a word list: the first byte says as what and whose, the others are its content."""
    with atheris.instrument_imports(include=["clip_interrogator_ext", "yaml", "csv"]):
        from clip_interrogator_ext.errors import BadWordList
        from clip_interrogator_ext.vocabulary.lists import read_category
    (folder / "folder").mkdir()

    def attempt(data: bytes) -> None:
        kind = data[0] if data else 0
        path = folder / LIST_NAMES[kind % len(LIST_NAMES)]
        path.write_bytes(data[1:])
        place = path.parent if path.parent != folder else path
        try:
            category = read_category(place, program=FORMS[kind // len(LIST_NAMES) % len(FORMS)])
        except BadWordList as error:
            assert str(path) in str(error)
            return
        phrases = set(category.phrases)
        assert len(phrases) == len(category.phrases)
        assert all(phrase.strip() for phrase in phrases)
        assert all(part <= phrases for part in (*category.parts.values(), category.subjects))
        assert len(category.problems) <= 101

    return attempt


def list_seeds() -> list[bytes]:
    """Return short lists of every kind, in every form."""
    lines = "# flavors: light\n# about: style\n{soft|hard} light\n{|very }blue fog\n2::x\n__y__\n"
    table = "name,trade,living\nAnn Alpha,painter;poet,yes\n\"Bob, Beta\",,no\n"
    tree = 'warm:\n  - red\n  - "{dark|light} orange"\ncold: {deep: [blue], x: y}\n'
    contents = (lines, lines, table, tree, lines)
    forms = range(0, len(FORMS) * len(LIST_NAMES), len(LIST_NAMES))
    found = [
        bytes([form + at]) + content.encode()
        for form in forms for at, content in enumerate(contents)
    ]
    return [*found, b"\0" + lines.encode("utf-16"), b"\0" + lines.encode("utf-8-sig")]


def word_sets(folder: Path) -> Attempt:
    """Read a file of sets, and ask for each of them."""
    with atheris.instrument_imports(include=["clip_interrogator_ext", "yaml"]):
        from clip_interrogator_ext.errors import BadOption
        from clip_interrogator_ext.vocabulary.sets import read_sets, set_named
    path = folder / "sets.yaml"

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        found = read_sets(path, own=True)
        for name, one in found.items():
            assert one.choices
            assert all(choice.count is None or choice.count > 0 for choice in one.choices)
            try:
                set_named(name, found, {})
            except BadOption as error:
                assert str(error)

    return attempt


def set_seeds() -> list[bytes]:
    """Return files of sets."""
    return [
        (ROOT / "data" / "sets.yaml").read_bytes(),
        (
            b"mine:\n  about: A few.\n  lists: [mediums: 1, flavors/light: 3, artists]\n"
            b"  without: artists\n  leave_out: [red, blue]\n"
        ),
        b'"one two": {lists: "flavors, sites", without: [negative]}\n',
    ]


# What a batch keeps


def journals(folder: Path) -> Attempt:
    """Open a journal, and write what it says is done as a batch of every form would."""
    # A seal tells damage, not forgery: atheris would learn to make one by watching comparisons.
    sealing = "clip_interrogator_ext.batch.sealing"
    with atheris.instrument_imports(include=["clip_interrogator_ext", "json"], exclude=[sealing]):
        from clip_interrogator_ext.batch import journal, outputs, pictures
        from clip_interrogator_ext.batch.looks import WholeFiles
        from clip_interrogator_ext.batch.options import BatchOptions
        from clip_interrogator_ext.batch.texts import standing
        from clip_interrogator_ext.errors import InterrogatorError
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"")
    found = pictures.Found(folder, ("a.png", "b.png"))

    def attempt(data: bytes) -> None:
        (folder / journal.NAME).write_bytes(data)
        try:
            kept = journal.Journal(folder, "job")
        except InterrogatorError:
            return
        try:
            for name in found.names:
                kept.hash_of(name, 0, 0)
                if name in kept.done:
                    standing(folder / "a.txt", kept.done_line(name))
            for key in ("one", "two"):
                kept.caption(key)
            for form in ("csv", "jsonl", "kohya", "txt-one"):
                options = BatchOptions("pictures", form=form)
                output = folder / f"prompts.{form}"
                outputs.Outputs(options, found, kept, WholeFiles(kept.id), output).write([])
        finally:
            kept.close()

    return attempt


def journal_seeds() -> list[bytes]:
    """Return a journal with a line of each kind, whole, torn, and each line alone."""
    from clip_interrogator_ext.batch.journal import NAME, Journal

    part = {"phrase": "fog", "category": "flavors", "similarity": 0.25, "gain": None}
    said = {
        "text": "a fox, fog", "mode": "fast", "caption": "a fox", "tokens": 6, "similarity": 0.2,
        "seconds": 1.5, "parts": [part], "demo": True, "interrupted": False, "negative": None,
    }
    with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder), "job")) as kept:
        kept.add(
            {"kind": "captions", "captions": {"one": "a fox", "two": "a dog"}},
            {"kind": "answer", "key": "three", "prompt": said},
            {
                "kind": "done", "job": "job", "root": ".", "picture": "a.png", "size": 0,
                "modified_ns": 0, "sha256": "ab", "keys": ["three"], "text": "a.txt",
                "existing": "skip", "before": None, "after": "a fox, fog",
            },
            {"kind": "file", "job": "job", "file": "prompts.csv", "sha256": "cd"},
        )
        whole = Path(folder, NAME).read_bytes()
    return [whole, whole[:-20], *whole.splitlines(keepends=True)]


def looks(folder: Path) -> Attempt:
    """Read the vectors of pictures in hand."""
    with atheris.instrument_imports(include=["clip_interrogator_ext", "json", "base64"]):
        from clip_interrogator_ext.batch.looks import NAME, Looks, WholeFiles

    def attempt(data: bytes) -> None:
        (folder / NAME).write_bytes(data)
        for vector in Looks(folder, WholeFiles("0123456789ab")).get("one") or ():
            assert all(isinstance(number, float) for number in vector)

    return attempt


def look_seeds() -> list[bytes]:
    """Return vectors of two pictures."""
    from clip_interrogator_ext.batch.looks import NAME, Looks, WholeFiles

    with tempfile.TemporaryDirectory() as folder:
        vectors = ((0.5, -1.0, 0.0),)
        Looks(Path(folder), WholeFiles("0123456789ab")).replace(
            {"one": vectors, "two": (*vectors, *vectors)}
        )
        return [Path(folder, NAME).read_bytes()]


# Requests

PATHS = ("prompt", "analyze", "similarity", "interrupt", "batch")


def requests(folder: Path) -> Attempt:
    """Send a body to a route; the first byte says to which. Networks that answer there are none."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with atheris.instrument_imports(include=["clip_interrogator_ext"]):
        from fastapi import FastAPI

        from clip_interrogator_ext import Service, StandaloneHost, catalog, images
        from clip_interrogator_ext.faces import api
    images.MAX_PIXELS = MOST_PIXELS
    host = StandaloneHost("cpu", folder)
    host.paths_hidden = True  # no batch is begun
    for name in catalog.CATEGORIES:  # in place of ours, which take seconds to read
        (folder / f"{name}.txt").write_text("fog\n", encoding="utf-8")
    app = FastAPI()
    api.add_routes(app, Service(host, cache_dir=folder, lists_dir=folder))
    loop = asyncio.new_event_loop()

    def attempt(data: bytes) -> None:
        path = PATHS[data[0] % len(PATHS) if data else 0]
        if catalog.DEMO.encode() in data:
            return  # that one would answer
        status, answer = loop.run_until_complete(_asked(app, path, data[1:]))
        assert status in {200, 401, 403, 404, 413, 422, 503}, (status, answer)
        said = json.loads(answer)
        assert isinstance(said, dict)
        if status >= 400:
            assert said["error"] != "InternalError"
            assert said["detail"]

    for seed in request_seeds():
        attempt(seed)  # which imports what takes longer than an attempt may
    return attempt


async def _asked(app: Any, path: str, body: bytes) -> tuple[int, bytes]:
    """Ask an application without a network, and return the status and the body."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": f"/interrogator/{path}", "raw_path": b"", "root_path": "", "query_string": b"",
        "headers": [(b"host", b"here"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("here", 80),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def request_seeds() -> list[bytes]:
    """Return bodies for every route."""
    image = base64.b64encode(picture_seeds()[0]).decode()
    bodies: tuple[dict[str, Any], ...] = (
        {
            "image": image, "mode": "best", "clip_model_names": ["ViT-B-32/openai"],
            "leave_out": ["red"], "replacements": {"old": "new"}, "max_flavors": None,
            "negative": True, "caption": "a fox", "captioner": "none", "token_budget": 60,
        },
        {"image": image, "top": 5, "categories": ["flavors/light", "artists"]},
        {"image": image, "texts": ["a fox", "a dog"], "chunk_size": 8, "task": "mine"},
        {"task": "mine"},
        {"input": "/nowhere", "form": "jsonl", "beside": [["ViT-B-32/openai"]], "prefix": "x"},
    )
    return [bytes([at]) + json.dumps(body).encode() for at, body in enumerate(bodies)]


TARGETS = {
    "pictures": Target(pictures, picture_seeds),
    "texts": Target(texts, text_seeds),
    "lists": Target(lists, list_seeds),
    "sets": Target(word_sets, set_seeds),
    "journals": Target(journals, journal_seeds),
    "looks": Target(looks, look_seeds),
    "requests": Target(requests, request_seeds),
}


def _mutated(data: bytes, most: int, seed: int) -> bytes:
    return with_checksums(atheris.Mutate(data, most))


def _attack(name: str, work: Path, flags: list[str]) -> None:
    """Attack one target in this process, which libFuzzer ends."""
    logging.disable(logging.CRITICAL)
    more = {"custom_mutator": _mutated} if name == "pictures" else {}
    atheris.Setup([sys.argv[0], *flags], TARGETS[name].prepare(work), **more)
    atheris.Fuzz()


def _found_something(name: str, flags: list[str], files: list[Path]) -> bool:
    """Attack one target in a process of its own, with these files only or for as long as said."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=FOLDER) as folder:
        work, seeds = Path(folder, "work"), Path(folder, "seeds")
        work.mkdir()
        seeds.mkdir()
        for number, seed in enumerate([] if files else TARGETS[name].seeds()):
            (seeds / f"{number:02}").write_bytes(seed)
        process = multiprocessing.get_context("spawn").Process(
            target=_attack, args=(name, work, [*flags, *map(str, files or [seeds])])
        )
        process.start()
        process.join()
        return process.exitcode != 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", choices=TARGETS, help="what is attacked; else all")
    parser.add_argument("files", nargs="*", type=Path, help="inputs to try once, of an earlier run")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--runs", type=int, default=-1, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0, help="0 is another one each time")
    parser.add_argument("--found", type=Path, default=Path(), help="where findings are put")
    return parser.parse_args()


def main() -> None:
    """Attack one target after another, and say in which something was found."""
    asked = _arguments()
    targets = [asked.target] if asked.target else list(TARGETS)
    flags = [
        f"-max_total_time={max(1, asked.seconds // len(targets))}", f"-seed={asked.seed}",
        f"-runs={asked.runs}", f"-timeout={LONGEST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={asked.found}/", "-print_final_stats=1", "-verbosity=0",
    ]
    found = [name for name in targets if _found_something(name, flags, asked.files)]
    if found:
        sys.exit(f"Found something in: {', '.join(found)}.")


if __name__ == "__main__":
    main()
