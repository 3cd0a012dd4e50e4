"""Open pictures of every kind, upright and in RGB."""

from __future__ import annotations

import base64
import importlib
import json
import logging
import math
import os
import re
import stat
import struct
import unicodedata
import warnings
from collections import deque
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from clip_interrogator_ext.errors import BadImage, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000
MAX_PARAMETERS_BYTES = 2**20

# Decoders that run other programs (EPS calls ghostscript) or that nobody looks after are left out.
# TGA comes last: it has no signature and would claim what belongs to the others.
FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA",
)  # fmt: skip
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga",
)  # fmt: skip
# Decoders that Pillow has in Python: a small file can keep them busy for hours.
SLOW_DECODERS = {"bmp_rle", "ppm_plain"}
# Format: the module whose import adds a decoder to Pillow, and the package that brings it.
PLUGINS = {
    "HEIF": ("pillow_heif.HeifImagePlugin", "pillow-heif"),
    "AVIF": ("pillow_avif", "pillow-avif-plugin"),
}

# What no picture has more of.
MOST_BLOCKS = 2**16
MOST_COMMENT_BLOCKS = 2**12
MOST_EXIF_SEGMENTS = 16
MOST_TIFF_MARKS = 64
MOST_NUMBERS = 2**20

PIXELS = {b"IDAT", b"fdAT", b"IEND"}
TIFF_MARK, NO_FILL = re.compile(rb"II[*+]\0|MM\0[*+]"), re.compile(rb"[^\xff]")
JPEG_SCAN, JPEG_BARE = 0xDA, {0, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
GIF_EXTENSION, GIF_COMMENT, GIF_PICTURE = 0x21, 0xFE, 0x2C
ORIENTATION, EXIF_DIRECTORY, USER_COMMENT = 0x0112, 0x8769, 0x9286
BYTES_OF_TYPE = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8, 16: 8, 17: 8, 18: 8}
UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Open a picture from a path, its bytes or a binary stream, upright and in RGB.

    Raises BadImage, in a sentence that names the file, whatever is wrong with it. A stream is
    read from where it stands and stays open.
    """
    data, name = _read(source)
    with _reading(name), _opened(data, name) as image:
        return _upright_rgb(image, name)


def open_whole(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Open a picture upright in RGBA, for a program that asks for all that it holds.

    Its transparency is kept, and in `info` the texts that it carries; generation data of other
    places stands there as `parameters`. Raises BadImage as `open_image` does.
    """
    data, name = _read(source)
    with _reading(name), _opened(data, name) as image:
        whole = _upright(image, name, _rgba)
        # XMP would say how the picture is to be turned, which is done.
        whole.info = {
            key: text for key, text in image.info.items()
            if isinstance(key, str) and isinstance(text, str) and "xmp" not in key.lower()
        }
        parameters = embedded_parameters(image)
    if parameters and not any(key in whole.info for key in ("parameters", "prompt")):
        whole.info["parameters"] = parameters
    return whole


def thumbnail(source: str | Path | bytes | BinaryIO, side: int) -> Image.Image:
    """Open a picture upright in RGB, at most so many pixels wide and high.

    Raises BadImage as `open_image` does.
    """
    data, name = _read(source)
    with _reading(name), _opened(data, name) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded small, in no time
        small = _upright_rgb(image, name)
    small.thumbnail((side, side))
    return small


def decode_base64(text: str) -> Image.Image:
    """Open a picture written as plain base64 or as a data URL, upright and in RGB.

    Raises BadImage as `open_image` and `base64_bytes` do.
    """
    return open_image(base64_bytes(text))


def base64_bytes(text: str) -> bytes:
    """Return the bytes of a picture that is written as plain base64 or as a data URL.

    Spaces and line breaks may stand anywhere, padding may be missing. Nothing is ever fetched:
    other addresses are refused with BadImage.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().rstrip().endswith(";base64"):
            raise BadImage("The data URL is not in base64: write it as data:image/png;base64,...")
    elif re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise BadImage("Addresses are not fetched: send the picture itself, in base64.")
    text = "".join(text.split())
    if len(text) // 4 * 3 > MAX_BYTES:
        raise _too_many_bytes("The picture")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise BadImage("The picture is not valid base64: encode its bytes again.") from error


def as_picture(image: Image.Image | str | Path) -> Image.Image:
    """Return a picture, or the one in a file, upright and in RGB."""
    return upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as one upright RGB frame; the argument stays as it is.

    EXIF rotation is applied, of an animation the first frame counts, what is transparent shows
    white, and deeper samples are scaled to 8 bits. Applying it twice changes nothing.
    Raises BadImage if the picture was not decoded yet and can't be.
    """
    with _reading("The picture"):
        return _upright_rgb(image, "The picture")


def embedded_parameters(image: Image.Image | str | Path | bytes | BinaryIO) -> str | None:
    """Return the generation data that a picture carries, or None.

    Looked for in this order: the PNG text `parameters` (AUTOMATIC1111, Forge), the EXIF user
    comment (their JPEG, WebP and AVIF files), the PNG text `prompt` (ComfyUI, of which the
    positive texts are returned). Nothing is decoded, and nothing is raised.
    """
    try:
        if not isinstance(image, Image.Image):
            data, name = _read(image)
            with _reading(name):
                image = _opened(data, name)
    except BadImage:
        return None
    parameters, prompt = image.info.get("parameters"), image.info.get("prompt")
    return (
        (_tidy(parameters) if isinstance(parameters, str) else None)
        or _user_comment(_exif_block(image))
        or (_comfy_positive(prompt) if isinstance(prompt, str) else None)
    )


def list_folder(folder: Path, recursive: bool = False) -> list[Path]:
    """List the picture files of a folder, by their suffixes, in natural order (2 before 10).

    Hidden files and folders are skipped, and links to folders are not followed, so loops of
    links do no harm. Raises BadImage if the folder can't be listed.
    """

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        log.warning("%s can't be listed, skipped: %s", error.filename, error.strerror)

    name = _quoted(folder)
    found: list[Path] = []
    try:
        for parent, folders, files in os.walk(folder, onerror=note):
            # os.walk goes on into what is left in this very list.
            folders[:] = [one for one in folders if recursive and not one.startswith(".")]
            paths = [Path(parent, one) for one in files if not one.startswith(".")]
            found += [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]
    except FileNotFoundError as error:
        raise BadImage(f"There is no folder {name}: check the path.") from error
    except NotADirectoryError as error:
        raise BadImage(f"{name} is not a folder: give the folder that holds it.") from error
    except (OSError, ValueError) as error:
        raise BadImage(f"The folder {name} can't be listed: check its permissions.") from error
    return sorted(found, key=lambda path: natural_order(path.relative_to(folder)))


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """Return a sort key that reads digits as numbers, the same on every file system."""
    keys: list[list[str | int]] = []
    for part in path.parts:
        # macOS keeps accents apart from their letters.
        pieces = re.split(r"([0-9]+)", unicodedata.normalize("NFC", part).casefold())
        # Texts and digits take turns, so that numbers only ever meet numbers.
        keys.append([int(piece) if at % 2 else piece for at, piece in enumerate(pieces)])
    return keys, path.as_posix()


# Reading bytes


def _read(source: str | Path | bytes | BinaryIO) -> tuple[bytes, str]:
    """Return the bytes of a source, and what to call it in a sentence."""
    if isinstance(source, bytes):
        data, name = source, "The picture"
    elif isinstance(source, (str, Path)):
        data, name = _read_file(Path(source)), _quoted(source)
    else:
        data, name = _read_stream(source)
    if not data:
        raise BadImage(f"{name} is empty: save or download it again.")
    if len(data) > MAX_BYTES:
        raise _too_many_bytes(name)
    return data, name


def _read_file(path: Path) -> bytes:
    name = _quoted(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadImage(f"{name} is a folder, not a picture: choose a file inside it.")
        # Reading a pipe or a device could wait or go on for ever.
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{name} is not an ordinary file: save the picture to a file first.")
        if status.st_size > MAX_BYTES:
            raise _too_many_bytes(name)
        with path.open("rb") as file:
            return file.read(status.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(f"There is no file {name}: check the path.") from error
    except PermissionError as error:
        raise BadImage(f"{name} may not be read: change its permissions or copy it.") from error
    except (OSError, ValueError) as error:
        raise BadImage(f"{name} can't be read: check the path and the disk.") from error


def _read_stream(stream: BinaryIO) -> tuple[bytes, str]:
    label = getattr(stream, "name", None)
    name = _quoted(label) if isinstance(label, str) else "The picture"
    try:
        data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise BadImage(f"{name} can't be read from its stream: open it again.") from error
    if not isinstance(data, bytes):
        raise BadImage(f"{name} was opened as text: open it in binary mode.")
    return data, name


def _quoted(path: str | Path) -> str:
    """Quote a path so that any terminal and any JSON can show it; of a long one, the end."""
    shown = "".join(char if char.isprintable() else "\N{WHITE SQUARE}" for char in str(path))
    return f'"{shown}"' if len(shown) <= 300 else f'"...{shown[-300:]}"'


def _too_many_bytes(name: str) -> TooLarge:
    return TooLarge(f"{name} has more than {MAX_BYTES // 2**20} MiB: make it smaller first.")


# Decoding


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into BadImage, and keep Pillow's warnings quiet."""
    with warnings.catch_warnings():
        # Pillow alone is quieted: this list is shared by all threads while a picture is read.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except BadImage:
            raise
        except Image.DecompressionBombError as error:
            raise TooLarge(f"{name} has too many pixels: make it smaller first.") from error
        except MemoryError as error:
            raise BadImage(f"{name} needs more memory than is free: make it smaller.") from error
        # Decoders raise anything on broken data: OSError, SyntaxError, struct.error, KeyError, ...
        except Exception as error:
            raise BadImage(f"{name} is damaged or cut off: save or download it again.") from error


def _opened(data: bytes, name: str) -> Image.Image:
    """Open a picture as far as its header, and refuse it if it is too large to go on."""
    Image.init()
    plugged = _plugged_format(data)
    if _is_bomb(data):
        raise BadImage(f"{name} is damaged in its header: save or download it again.")
    _refuse_too_many_pixels(_claimed_size(data), name)
    try:
        # Pillow stumbles over the names of formats that it does not know.
        image = Image.open(BytesIO(data), formats=[one for one in FORMATS if one in Image.OPEN])
    except UnidentifiedImageError as error:
        if plugged and plugged not in Image.OPEN:
            raise BadImage(
                f"{name} is in {'HEIC' if plugged == 'HEIF' else plugged} format, for which there"
                f" is no decoder: install {PLUGINS[plugged][1]}, or save it as PNG or JPEG."
            ) from error
        raise BadImage(
            f"{name} is no picture of a known kind, or is damaged from its start:"
            " save it as PNG, JPEG or WebP."
        ) from error
    _refuse_too_many_pixels(image.size, name)
    if any(tile[0] in SLOW_DECODERS for tile in getattr(image, "tile", ())):
        raise BadImage(
            f"{name} is written in a way that takes too long to read: save it as PNG or JPEG."
        )
    return image


def _refuse_too_many_pixels(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"{name} has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million:"
            " make it smaller first."
        )


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Return the largest size that a PNG claims to have, or none for pictures of other kinds.

    Pillow fills the whole canvas of an animated one while it opens it.
    """
    headers = [data[at : at + 8] for kind, at in _png_blocks(data) if kind == b"IHDR"]
    sizes = [struct.unpack(">II", body) for body in headers if len(body) == 8]
    return max(sizes, key=math.prod, default=(0, 0))


def _plugged_format(data: bytes) -> str | None:
    """Tell HEIC and AVIF by their brands, and add a decoder to Pillow if one is installed."""
    if data[4:8] != b"ftyp":
        return None
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {box[at : at + 4] for at in range(0, len(box), 4)}
    if brands & {b"avif", b"avis"}:
        kind = "AVIF"
    elif brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        kind = "HEIF"
    else:
        return None
    if kind not in Image.OPEN:
        with suppress(ImportError, OSError):
            importlib.import_module(PLUGINS[kind][0])
    return kind


# Bombs: headers that Pillow would read for hours, or into far more memory than the file has bytes


def _is_bomb(data: bytes) -> bool:
    if data[:3] == b"\xff\xd8\xff":
        return _is_jpeg_bomb(data)
    if data[:3] == b"GIF":
        return _is_gif_bomb(data)
    if sum(1 for _ in islice(_png_blocks(data), MOST_BLOCKS)) == MOST_BLOCKS:
        return True
    if data[4:8] == b"ftyp":
        # Its EXIF lies anywhere. In compressed pixels its mark comes up once in gigabytes.
        marks = [found.start() for found in islice(TIFF_MARK.finditer(data), MOST_TIFF_MARKS)]
        return len(marks) == MOST_TIFF_MARKS or any(_overclaims(data[at:]) for at in marks)
    return _overclaims(data)


def _png_blocks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kind of each block before the pixels of a PNG, and where its body begins."""
    at = 8
    while data[:4] == b"\x89PNG" and len(kind := data[at + 4 : at + 8]) == 4 and kind not in PIXELS:
        yield kind, at + 8
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _is_jpeg_bomb(data: bytes) -> bool:
    """Look at the segments before the pixels, where Pillow finds them."""
    exif: list[bytes] = []
    junk, at = 0, 2
    for _ in range(MOST_BLOCKS):
        mark = data.find(b"\xff", at)
        after = NO_FILL.search(data, mark) if mark >= 0 else None
        if after is None:
            return _overclaims(b"".join(exif))
        junk += after.start() - at
        marker, at = data[after.start()], after.end()
        if marker == JPEG_SCAN:
            return _overclaims(b"".join(exif))
        if junk > MOST_BLOCKS:
            return True
        if marker in JPEG_BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        at += max(2, length)
        if body[:6] == b"Exif\0\0":
            exif.append(body[6:])
        if (body[:4] == b"MPF\0" and _overclaims(body[4:])) or len(exif) > MOST_EXIF_SEGMENTS:
            return True
    return True


def _is_gif_bomb(data: bytes) -> bool:
    """Count the blocks before the first picture: of comments, Pillow copies all for each block."""
    flags = data[10] if len(data) > 10 else 0
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = comments = 0
    while at + 1 < len(data) and data[at] != GIF_PICTURE:
        if data[at] != GIF_EXTENSION:
            at, blocks = at + 1, blocks + 1
        else:
            is_comment, at = data[at + 1] == GIF_COMMENT, at + 2
            blocks, comments = blocks + 1, comments + is_comment
            while at < len(data) and data[at]:
                at, blocks, comments = at + data[at] + 1, blocks + 1, comments + is_comment
            at += 1
        if blocks > MOST_BLOCKS or comments > MOST_COMMENT_BLOCKS:
            return True
    return False


# Colors


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    return _upright(image, name, _rgb)


def _upright(
    image: Image.Image, name: str, colors: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    if 0 in image.size:
        raise BadImage(f"{name} has no pixels: choose another picture.")
    position = image.tell()
    if position:
        image.seek(0)
    try:
        # A file may hold its EXIF behind its pixels, and a mode may change once they are there.
        image.load()
        turn = UPRIGHT_BY.get(_orientation(image))
        upright = colors(image)
    finally:
        if position:
            image.seek(position)
    if turn is not None:
        upright = upright.transpose(turn)
    # What was said of the old pixels, their rotation above all, is not true of the new ones.
    upright.info = {}
    return upright


def _rgb(image: Image.Image) -> Image.Image:
    """Return a new RGB picture with the colors that a viewer would show on white."""
    shown = _shown(image)
    if shown.mode == "RGBA":
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, shown).convert("RGB")
    return shown


def _rgba(image: Image.Image) -> Image.Image:
    """Return a new RGBA picture with the colors that a viewer would show."""
    return _shown(image).convert("RGBA")


def _shown(image: Image.Image) -> Image.Image:
    """Return a new picture in 8 bits, in RGBA where parts of it may be transparent, else in RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image).convert("RGB")
    if image.mode in {"La", "RGBa"}:
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return image.convert("RGBA" if _has_transparency(image) else "RGB")


def _has_transparency(image: Image.Image) -> bool:
    if image.mode in {"LA", "PA", "RGBA"}:
        return True
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return True
    return image.mode in {"1", "L", "P", "RGB"} and "transparency" in image.info


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point gray to 8 bits; Pillow itself would clip it.

    Whole numbers count up to 65535 and fractions up to 1 or 255; a picture with values outside
    of that is stretched from its darkest to its brightest.
    """
    gray = np.asarray(image).astype(np.float32)  # (height, width)
    # What is no number, or none that was measured, would push all others together.
    gray[~(np.abs(gray) < 1e30)] = 0
    low, high = float(gray.min()), float(gray.max())
    for white in (1, 255) if image.mode == "F" else (65535,):
        if low >= 0 and high <= white:
            low, high = 0, white
            break
    gray = (gray - low) * np.float32(255 / ((high - low) or 1))
    return Image.fromarray(np.rint(gray).astype(np.uint8))


# Exif: a TIFF file without a picture, read here because Pillow copies every value that a
# directory points to, were it the same megabytes ten thousand times.


def _orientation(image: Image.Image) -> int:
    # Pillow turns a TIFF upright while decoding it; older versions leave the tag in place.
    if image.format == "TIFF" or _overclaims(_exif_block(image)):
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a broken note must not cost the picture
        return 1


def _exif_block(image: Image.Image) -> bytes:
    block = image.info.get("exif")
    return block.removeprefix(b"Exif\0\0") if isinstance(block, bytes) else b""


def _overclaims(block: bytes) -> bool:
    """Say whether the first directory of a TIFF block points to more than there is.

    Numbers in it become a Python object each.
    """
    claimed = 0
    for _, size, _, numbers in _entries(block):
        claimed += min(size, len(block))
        if claimed > 2 * len(block) or min(numbers, len(block)) > MOST_NUMBERS:
            return True
    return False


def _find(block: bytes, wanted: int, directory: int | None = None) -> tuple[int, int]:
    """Return size and offset of a tag's value, zeros if there is none."""
    entries = _entries(block, directory)
    return next(((size, offset) for tag, size, offset, _ in entries if tag == wanted), (0, 0))


def _entries(block: bytes, directory: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Read a directory of a TIFF or BigTIFF block.

    Yields tag, size of the value in bytes, offset, and of how many numbers it is, if any. Without
    an offset of its own it is the first directory. Anything broken ends the reading.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return
    # A number that leads out of the block ends in struct.error.
    with suppress(struct.error, OverflowError):
        (version,) = struct.unpack_from(order + "H", block, 2)
        if version not in (42, 43):
            return
        # How the number of entries is written, and how a count or an offset.
        number, long, start = ("H", "I", 4) if version == 42 else ("Q", "Q", 8)
        if directory is None:
            (directory,) = struct.unpack_from(order + long, block, start)
        (entries,) = struct.unpack_from(order + number, block, directory)
        first = directory + struct.calcsize("=" + number)
        entry = struct.Struct(f"{order}HH{long}{long}")
        for index in range(min(entries, 2**16)):
            tag, kind, count, offset = entry.unpack_from(block, first + index * entry.size)
            numbers = count if kind in BYTES_OF_TYPE else 0
            yield tag, count * BYTES_OF_TYPE.get(kind, 1), offset, numbers


# Generation data


def _user_comment(block: bytes) -> str | None:
    """Read the user comment of an EXIF block; its first 8 bytes name the character set."""
    _, directory = _find(block, EXIF_DIRECTORY)
    size, offset = _find(block, USER_COMMENT, directory)
    if not 8 < size <= MAX_PARAMETERS_BYTES:
        return None
    comment = block[offset : offset + size]
    charset, text = comment[:8].rstrip(b"\0 "), comment[8:]
    if charset == b"UNICODE":
        return _tidy(text.decode(_utf16_order(text, block[:2]), "replace"))
    if charset == b"JIS":
        return _tidy(text.decode("iso2022_jp", "replace"))
    # Programs write UTF-8 under the name of ASCII, and some leave the name out.
    return _tidy((text if charset in {b"", b"ASCII"} else comment).decode("utf-8", "replace"))


def _utf16_order(text: bytes, exif_order: bytes) -> str:
    """Guess the byte order of UTF-16: many programs write another one than they declare."""
    if text[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "utf-16"
    # Every space, digit and English letter has a zero as its high byte.
    big, little = text[0::2].count(0), text[1::2].count(0)
    if big == little:
        return "utf-16-le" if exif_order == b"II" else "utf-16-be"
    return "utf-16-be" if big > little else "utf-16-le"


def _tidy(text: str) -> str | None:
    if len(text) > MAX_PARAMETERS_BYTES:
        return None
    return text.replace("\0", "").strip() or None


def _comfy_positive(prompt: str) -> str | None:
    """Return the texts that lead to the samplers of a ComfyUI graph as their positive prompt.

    The graph is {id: {"class_type": ..., "inputs": {name: value or [id, slot]}}}.
    """
    if len(prompt) > MAX_PARAMETERS_BYTES:
        return None
    try:
        # Whole numbers stay text: none is needed, and very long ones are slow to read.
        graph = json.loads(prompt, parse_int=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(graph, dict):
        return None
    waiting = deque(
        link
        for node in graph.values()
        for name, link in _inputs(node).items()
        if name in {"positive", "guider"} and "Sampler" in str(node.get("class_type"))
    )
    seen: set[str] = set()
    texts: dict[str, None] = {}
    while waiting:
        link = waiting.popleft()
        if isinstance(link, str):
            texts.setdefault(link.strip())
        elif isinstance(link, list) and link and str(link[0]) not in seen:
            seen.add(str(link[0]))
            waiting += _positive_inputs(_inputs(graph.get(str(link[0]))))
    return _tidy(", ".join(text for text in texts if text))


def _inputs(node: Any) -> Mapping[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _positive_inputs(inputs: Mapping[str, Any]) -> list[Any]:
    """Return the inputs of a node that its positive prompt comes from."""
    if "positive" in inputs:
        return [inputs["positive"]]
    texts = ("text", "text_g", "text_l", "clip_l", "t5xxl", "string", "value", "")
    return [
        value
        for name, value in inputs.items()
        if name in texts or (name.startswith("conditioning") and isinstance(value, list))
    ]
