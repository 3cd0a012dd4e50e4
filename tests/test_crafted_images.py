"""Files made to hurt whoever opens them: each is a picture or one sentence, in little memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(os.name == "nt", reason="no limits on a process's memory there"),
]

MEMORY_BYTES = 1536 * 2**20
CPU_SECONDS = 8  # for opening it five times
# Opens each file in a process of its own, with limits; tells what came of it, a line each.
OPENER = f"""
import base64, json, os, resource, sys
from pathlib import Path
from PIL import Image
from clip_interrogator_ext import images
from clip_interrogator_ext.errors import BadImage
Image.init()

def outcome(work):
    try:
        answer = work()
    except BadImage as refusal:
        return "refused: " + str(refusal)
    except BaseException as error:
        return "raised " + repr(error)[:200]
    return answer if isinstance(answer, (str, type(None))) else f"opened: {{answer.mode}}"

for path in sorted(Path(sys.argv[1]).iterdir()):
    data, (reading, writing) = path.read_bytes(), os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
        resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
        text = base64.b64encode(data).decode()
        answers = [outcome(lambda: images.open_image(data)),
                   outcome(lambda: images.decode_base64(text)),
                   outcome(lambda: images.open_whole(path)),
                   outcome(lambda: images.thumbnail(path, 64))]
        embedded = outcome(lambda: images.embedded_parameters(data))
        os.write(writing, json.dumps([answers, embedded]).encode()[:60000])
        os._exit(0)
    os.close(writing)
    told = os.fdopen(reading, "rb").read()
    _, status, used = os.wait4(child, 0)
    print(json.dumps([path.name, status, json.loads(told or "[[], null]"), used.ru_maxrss]))
"""


def saved(kind: str, mode: str = "RGB", side: int = 16, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.new(mode, (side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(kind: str) -> bytes:
    buffer = BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def header(width: int, height: int, depth: int = 8, color: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))


def png(
    *more: bytes, size: tuple[int, int] = (4, 4), depth: int = 8, color: int = 0,
    pixels: bytes = bytes(100),
) -> bytes:
    end = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header(*size, depth, color) + b"".join(more) + end


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"".join(blocks) + b";"


def frame(width: int = 4, height: int = 4) -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"


def bmp(
    width: int, height: int, data: bytes = b"", *, bits: int = 24, compression: int = 0,
    palette: bytes = b"", offset: int | None = None,
) -> bytes:
    at = 54 + len(palette) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0,
        len(palette) // 4, 0,
    ) + palette + data


Entry = tuple[int, int, int, int]


def tiff(entries: list[Entry], rest: bytes = b"", following: int = 0) -> bytes:
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory
            + struct.pack("<I", following) + rest)


def tiff_picture(*changed: Entry, rest: bytes = bytes(64), following: int = 0) -> bytes:
    entries = {
        256: (256, 4, 1, 8), 257: (257, 4, 1, 8), 258: (258, 3, 1, 8), 259: (259, 3, 1, 1),
        262: (262, 3, 1, 1), 273: (273, 4, 1, 400), 277: (277, 3, 1, 1), 278: (278, 4, 1, 8),
        279: (279, 4, 1, 64), **{one[0]: one for one in changed},
    }
    return tiff(sorted(entries.values()), bytes(400) + rest, following)


def segments(*bodies: bytes, marker: int = 0xE1) -> bytes:
    whole = saved("JPEG")
    added = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body for body in bodies
    )
    return whole[:2] + added + whole[2:]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def box(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(body) if length is None else length) + kind + body


def jp2(*boxes: bytes) -> bytes:
    return box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + b"".join(boxes)


def codestream(width: int, height: int, tile: int, components: int = 1) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, components)
    body = (size + b"\7\1\1" * components)[:60_000]
    return b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(body)) + body


def tga(width: int, height: int, kind: int = 2, bits: int = 24, data: bytes = b"") -> bytes:
    return struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, width, height, bits, 0) + data


# Thousands of values that all are the same bytes, which Pillow copies for each.
CLAIMS = tiff([(number, 7, 400_000, 8) for number in range(40_000, 45_000)], bytes(400_000))
NUMBERS = tiff([(number, 3, 200_000, 8) for number in range(40_000, 45_000)], bytes(400_000))
SMALL_CLAIMS = tiff([(number, 7, 50_000, 8) for number in range(40_000, 41_000)], bytes(53_000))
SMALL_NUMBERS = tiff(
    [*((number, 3, 20_000, 8) for number in range(40_000, 42_000)), (0xB001, 4, 1, 2)],
    bytes(40_000),
)
LOOP = tiff([(0x8769, 4, 1, 8), (0xA005, 4, 1, 8)], b"", 8)
LARGE = zlib.compress(bytes(10**8))
RLE_PALETTE = bytes(4 * 256)
HEIF_HEAD = box(b"ftyp", b"heic\0\0\0\0mif1heic")
AVIF_HEAD = box(b"ftyp", b"avif\0\0\0\0avif")

# Of two frames, the first of which is disposed of by filling the canvas.
ANIMATED = (
    chunk(b"acTL", struct.pack(">II", 2, 0)),
    chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 0, 1, 1, 0)),
)

CRAFTED: dict[str, bytes] = {
    "png of a huge size": png(size=(2**31 - 1, 2**31 - 1)),
    "png of a huge canvas to be filled": png(*ANIMATED, size=(16, 2**27)),
    "png of a huge canvas, told of late": png(*ANIMATED, header(2**16, 2**16)),
    "png of blocks": png(*[chunk(b"teSt", b"")] * 2_000_000),
    "png of an allowed size without pixels": png(size=(9_999, 9_999)),
    "png wide as a street": png(size=(50_000_000, 2)),
    "png of no size": png(size=(0, 0)),
    "png that inflates": png(size=(64, 64), pixels=bytes(10**8)),
    "png zTXt": png(chunk(b"zTXt", b"parameters\0\0" + LARGE)),
    "png iTXt": png(chunk(b"iTXt", b"prompt\0\1\0\0\0" + LARGE)),
    "png of many zTXt": png(*[
        chunk(b"zTXt", b"k%d\0\0" % one + zlib.compress(bytes(10**6))) for one in range(200)
    ]),
    "png iCCP": png(chunk(b"iCCP", b"x\0\0" + LARGE)),
    "png exif of claims": png(chunk(b"eXIf", CLAIMS)),
    "png exif that loops": png(chunk(b"eXIf", LOOP)),
    "png of endless frames": png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "png of frames without an end": png(*[chunk(b"fcTL", bytes(26))] * 1000),
    "png of many chunks": png(chunk(b"tEXt", b"a\0b") * 20_000),
    "png of a long chunk": png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(50),
    "png without its palette": png(color=3),
    "png of an odd palette": png(chunk(b"PLTE", bytes(7)), color=3),
    "png of an unknown color": png(depth=7, color=9),
    "png of long clearness": png(
        chunk(b"PLTE", bytes(6)), chunk(b"tRNS", bytes(999)), color=3
    ),
    "png with two headers": png(header(2**30, 9)),
    "png with a short header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0"),
    "png with a short pHYs": png(chunk(b"pHYs", b"")),
    "gif of a huge canvas": gif(65_535, 65_535, frame()),
    "gif of a huge frame": gif(1, 1, frame(65_535, 65_535)),
    "gif of thousands of frames": gif(500, 500, *[frame(500, 500)] * 20_000),
    "gif comment in small blocks": gif(4, 4, b"!\xfe" + b"\1a" * 2_000_000 + b"\0", frame()),
    "gif of many comments": gif(4, 4, b"!\xfe\0" * 2_000_000, frame()),
    "gif of many extensions": gif(4, 4, b"!\xf9\4\0\0\0\0\0" * 200_000, frame()),
    "gif of junk": gif(4, 4, bytes(2_000_000), frame()),
    "gif without frames": gif(9, 9),
    "gif that ends in its palette": gif(9, 9)[:14],
    "gif of bad codes": gif(9, 9, b",\0\0\0\0\x09\0\x09\0\0\x0c\xff" + b"\xff" * 255 + b"\0"),
    "tiff of claims": CLAIMS,
    "tiff of numbers": NUMBERS,
    "tiff of millions of strips": tiff_picture(
        (273, 4, 12_000_000, 400), (279, 4, 12_000_000, 400), rest=bytes(48_000_400)
    ),
    "tiff of a huge strip": tiff_picture(
        (256, 4, 1, 9_000), (257, 4, 1, 9_000), (279, 4, 1, 2**32 - 1), (278, 4, 1, 2**32 - 1)
    ),
    "tiff of a huge size": tiff_picture((256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1)),
    "tiff of huge tiles": tiff_picture(
        (322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 400), (325, 4, 1, 64)
    ),
    "tiff of tiles of nothing": tiff_picture(
        (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 400), (325, 4, 1, 64)
    ),
    "tiff whose directories loop": tiff_picture(following=8),
    "tiff whose tags point home": tiff_picture((0x8769, 4, 1, 8), (0x14A, 4, 1, 8)),
    "tiff compressed by nobody": tiff_picture((259, 3, 1, 60_000)),
    "tiff in deflate": tiff_picture((259, 3, 1, 8), (279, 4, 1, len(LARGE)), rest=LARGE),
    "tiff in JPEG": tiff_picture((259, 3, 1, 7)),
    "tiff in old JPEG": tiff_picture((259, 3, 1, 6)),
    "tiff in fax": tiff_picture((259, 3, 1, 4), (258, 3, 1, 1)),
    "tiff in lzma": tiff_picture((259, 3, 1, 34_925)),
    "tiff of many samples": tiff_picture((277, 3, 1, 65_535), (258, 3, 65_535, 200)),
    "tiff palette missing": tiff_picture((262, 3, 1, 3)),
    "tiff of 33 bits": tiff_picture((258, 3, 1, 33)),
    "bigtiff of claims": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(200),
    "jpeg of a huge size": saved("JPEG").replace(b"\x08\0\x10\0\x10", b"\x08\xff\xff\xff\xff"),
    "jpeg exif of claims": segments(b"Exif\0\0" + SMALL_CLAIMS),
    "jpeg exif in crumbs": segments(*[b"Exif\0\0" + b"a"] * 600_000),
    "jpeg exif of claims in parts": segments(
        *[b"Exif\0\0" + CLAIMS[at : at + 65_000] for at in range(0, len(CLAIMS), 65_000)]
    ),
    "jpeg exif that loops": segments(b"Exif\0\0" + LOOP),
    "jpeg MPF of numbers": segments(b"MPF\0" + SMALL_NUMBERS, marker=0xE2),
    "jpeg MPF of nothing": segments(b"MPF\0" + tiff([(0xB001, 4, 1, 9)]), marker=0xE2),
    "jpeg of segments": segments(*[b""] * 300_000),
    "jpeg of fill": saved("JPEG")[:2] + b"\xff" * 3_000_000 + saved("JPEG")[2:],
    "jpeg of junk": saved("JPEG")[:20] + bytes(3_000_000) + saved("JPEG")[20:],
    "jpeg ICC of parts": segments(*[b"ICC_PROFILE\0\1\xff" + bytes(9_000)] * 255, marker=0xE2),
    "jpeg of 8BIM": segments(b"Photoshop 3.0\0" + b"8BIM" * 1 + bytes(8) * 5_000, marker=0xED),
    "jpeg segment of no length": saved("JPEG")[:2] + b"\xff\xe1\0\0" + saved("JPEG")[2:],
    "jpeg of ten colors": saved("JPEG").replace(b"\x10\0\x10\x03", b"\x10\0\x10\x0a"),
    "jpeg of many scans": saved("JPEG", progressive=True)[:-2] * 200,
    "jpeg2000 of a huge size": codestream(2**31, 2**31, 2**31),
    "jpeg2000 of tiny tiles": codestream(9_000, 9_000, 1) + bytes(300),
    "jpeg2000 of components": codestream(9_000, 9_000, 9_000, 16_384) + bytes(300),
    "jpeg2000 cut": noise("JPEG2000")[:-200],
    "jp2 without boxes": jp2(),
    "jp2 box of no length": jp2(box(b"jp2h", b"", 1) + bytes(200)),
    "jp2 boxes in boxes": jp2(box(b"jp2h", box(b"jp2h", box(b"jp2h", bytes(9))))),
    "jp2 palette": jp2(box(
        b"jp2h", box(b"ihdr", struct.pack(">IIHBBBB", 9, 9, 1, 7, 7, 0, 0))
        + box(b"pclr", struct.pack(">HB", 65_535, 255) + bytes(99))
    )),
    "gif of a huge frame to be filled": gif(
        65_535, 65_535, b"\x21\xf9\4\x08\0\0\0\0", b",\0\0\0\0\xff\xff\xff\xff\0\2\0"
    ),
    "webp of a huge canvas": riff((b"VP8X", b"\2\0\0\0\xff\x3f\0\xff\x3f\0"), (b"ANIM", bytes(6))),
    "webp of a huge size": riff((b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(60))),
    "webp of claims": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f" + bytes(60),
    "webp exif of claims": riff(
        (b"VP8X", b"\x08\0\0\0\x1f\0\0\x1f\0\0"), (b"VP8 ", noise("WEBP")[20:]), (b"EXIF", CLAIMS)
    ),
    "webp cut": noise("WEBP")[:-300],
    "webp of frames": riff(
        (b"VP8X", b"\2\0\0\0\3\0\0\3\0\0"), (b"ANIM", bytes(6)),
        *[(b"ANMF", bytes(16) + noise("WEBP")[12:])] * 300,
    ),
    "avif of nothing": AVIF_HEAD + box(b"meta", bytes(40)),
    "avif box without an end": AVIF_HEAD + box(b"meta", bytes(40), 2**31),
    "avif of marks": AVIF_HEAD + b"II*\0\x08\0\0\0" * 100_000,
    "heic of nothing": HEIF_HEAD + box(b"meta", bytes(40)),
    "bmp of a huge size": bmp(2**31 - 1, 2**31 - 1),
    "bmp upside down": bmp(9, -(2**31)),
    "bmp of no bits": bmp(9, 9, bytes(300), bits=0),
    "bmp palette missing": bmp(9, 9, bytes(300), bits=8),
    "bmp palette beyond": bmp(9, 9, bytes(300), bits=8, offset=2**31),
    "bmp RLE that jumps": bmp(
        100_000_000, 1, b"\0\2\xff\xff" * 4, bits=8, compression=1, palette=RLE_PALETTE
    ),
    "bmp RLE that fills": bmp(
        100_000_000, 1, b"\1\1\0\0" * 4, bits=8, compression=1, palette=RLE_PALETTE
    ),
    "bmp RLE4": bmp(9_000, 9_000, b"\xff\x12" * 9, bits=4, compression=2, palette=bytes(64)),
    "bmp of masks": bmp(9, 9, bytes(400), bits=32, compression=3),
    "dib": bmp(9, 9, bytes(300))[14:],
    "ppm of a huge size": b"P6 999999999 999999999 255\n",
    "ppm of a long number": b"P6 " + b"9" * 100_000 + b" 1 255\n",
    "ppm less than nothing": b"P6 -5 -5 255\n" + bytes(75),
    "ppm of comments": b"P3 1000 1000 255\n" + b"#\n" * 500_000 + b"1 " * 100,
    "ppm as text": b"P2 9000 9000 1\n" + b"1 " * 500_000,
    "ppm of a strange maximum": b"P6 9 9 70000\n" + bytes(999),
    "pfm of a huge size": b"PF 99999 99999 -1.0\n",
    "tga of a huge size": tga(65_535, 65_535),
    "tga in runs": tga(9_000, 9_000, 10, data=b"\xff\1\2\3" * 99),
    "tga palette missing": tga(9, 9, 1, 8, bytes(81)),
    "tga of 13 bits": tga(9, 9, 2, 13, bytes(300)),
}
# Kinds that are none of FORMATS: those that call programs, and those that nobody looks after.
FOREIGN: dict[str, bytes] = {
    "eps": saved("EPS"),
    "eps of commands": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file",
    "ps": b"%!PS-Adobe-3.0\nshowpage\n",
    "pdf": saved("PDF"),
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "emf": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "msp": saved("MSP", "1"),
    "pcx": saved("PCX"),
    "dcx": struct.pack("<II", 0x3ADE68B1, 8) + saved("PCX"),
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(60),
    "ico": saved("ICO"),
    "cur": b"\0\0\2\0\1\0" + bytes(60),
    "icns": saved("ICNS"),
    "fli": struct.pack("<IHHHHHH", 999, 0xAF11, 1, 9, 9, 8, 3) + bytes(120),
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "bufr": b"BUFR" + bytes(60),
    "grib": b"GRIB\0\0\0\1" + bytes(60),
    "mpeg": b"\0\0\1\xb3" + bytes(60),
    "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n',
    "xbm": saved("XBM", "1"),
    "im": saved("IM"),
    "sgi": saved("SGI"),
    "spider": saved("SPIDER", "F"),
    "dds": saved("DDS"),
    "blp": b"BLP2" + struct.pack("<I", 1) + bytes(160),
    "gbr": struct.pack(">IIIII", 28, 2, 9, 9, 4) + b"GIMP" + bytes(400),
    "sun": struct.pack(">IIIIIIII", 0x59A66A95, 9, 9, 24, 243, 1, 0, 0) + bytes(300),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "zip": b"PK\3\4" + bytes(60),
    "html before a png": b"<html><script>alert(1)</script>" + png(),
}
if "avif" in features.modules and features.check("avif"):
    CRAFTED["avif exif of claims"] = saved("AVIF", exif=b"Exif\0\0" + CLAIMS)
    CRAFTED["avif cut"] = noise("AVIF")[:-200]
FILES = {**CRAFTED, **FOREIGN}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Any]:
    """What came of each file: status, answers and generation data, memory."""
    folder = tmp_path_factory.mktemp("crafted")
    names = dict(enumerate(FILES))
    for number, name in names.items():
        (folder / f"{number:03}").write_bytes(FILES[name])
    ended = subprocess.run(
        [sys.executable, "-c", OPENER, str(folder)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )
    lines = map(json.loads, ended.stdout.splitlines())
    return {names[int(number)]: rest for number, *rest in lines}


@pytest.mark.parametrize("name", FILES)
def test_a_crafted_file_is_a_picture_or_a_sentence(outcomes, name):
    """By every way in, within the limits of memory and time that its process has."""
    status, (answers, embedded), kilobytes = outcomes[name]
    assert status == 0, "it was killed: too slow, or a crash"
    assert kilobytes * 1024 < MEMORY_BYTES
    assert embedded is None or not embedded.startswith(("raised", "refused"))
    for answer in answers:
        assert answer.startswith(("opened: RGB", "refused: ")), answer
        assert "memory" not in answer, "the process's limit was met before ours"
        assert answer.startswith("opened") or answer.endswith(".")
    if name in FOREIGN:
        assert all(answer.startswith("refused") for answer in answers)


def test_there_are_more_than_a_hundred():
    """No two of them the same."""
    assert len(set(FILES.values())) == len(FILES) > 100
