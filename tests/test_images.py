"""What `images` promises: pictures of every kind, opened upright in RGB, or one plain sentence."""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from clip_interrogator_ext import images
from clip_interrogator_ext.errors import BadImage

pytestmark = pytest.mark.hosts

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
PIXELS = np.array([[(40 * x, 90 * y, 7 * x * y) for x in range(5)] for y in range(3)], np.uint8)
POSITIVE = "a fox, snow\nNegative prompt: blurry\nSteps: 20, Sampler: Euler"
HEIC = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(200)
AVIF = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"mif1", 0, b"mif1", b"avif") + bytes(200)


def picture() -> Image.Image:
    """Return a picture of 5 by 3 pixels, each of its own color."""
    return Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(kind: str) -> bytes:
    """Return a file of some hundred bytes or more, so that it can be cut in many places."""
    noise = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)
    return encoded(Image.fromarray(noise), kind)


def png_header(width: int, height: int) -> bytes:
    """Return a well-formed gray PNG that claims this size and holds almost no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


Entry = tuple[int, int, int, int]


def exif_block(entries: list[Entry], order: str = "<", rest: bytes = b"") -> bytes:
    """Return a TIFF block: a directory of (tag, type, count, offset) at 8, `rest` behind it."""
    mark = b"II" if order == "<" else b"MM"
    directory = struct.pack(order + "H", len(entries))
    for entry in entries:
        directory += struct.pack(order + "HHII", *entry)
    return mark + struct.pack(order + "HI", 42, 8) + directory + bytes(4) + rest


def exif_with_comment(comment: bytes, order: str = "<") -> bytes:
    """Return a TIFF block whose EXIF directory, at 26, holds a user comment, at 44."""
    directory = struct.pack(order + "HHHII", 1, 0x9286, 7, len(comment), 44) + bytes(4)
    return exif_block([(0x8769, 4, 1, 26)], order, directory + comment)


def sentence_for(source: object) -> str:
    """Return the sentence that refuses a source, checked to be one plain sentence."""
    with pytest.raises(BadImage) as refusal:
        images.open_image(source)
    return plain(refusal)


def plain(refusal: pytest.ExceptionInfo[BadImage]) -> str:
    sentence = str(refusal.value)
    assert sentence.endswith((".", "..."))
    assert sentence.count("\n") == 0
    assert not any(word in sentence for word in ("Traceback", "Error", "BytesIO", "0x"))
    return sentence


def pixel(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel(at)


# Opening


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "GIF"])
def test_lossless_kinds_keep_every_pixel(tmp_path, kind):
    """What a lossless file holds is what comes out."""
    path = tmp_path / "cat.bin"
    stored = picture().quantize(15) if kind == "GIF" else picture()
    stored.save(path, kind)
    opened = images.open_image(path)
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_lossy_kinds_come_close(kind):
    """What a lossy file holds comes out in nearly its colors."""
    if kind == "AVIF" and not ("avif" in features.modules and features.check("avif")):
        pytest.skip("this Pillow has no AVIF")
    opened = images.open_image(encoded(Image.new("RGB", (32, 16), (200, 60, 20)), kind))
    assert opened.size == (32, 16)
    assert np.abs(np.asarray(opened).astype(int) - (200, 60, 20)).max() <= 8


def test_every_sort_of_source_gives_the_same_picture(tmp_path):
    """A path, its text, the bytes and a stream are all welcome; the stream stays open."""
    path = tmp_path / "Füchse 狐 🦊.png"
    path.write_bytes(encoded(picture()))
    with path.open("rb") as stream:
        opened = [images.open_image(one) for one in (path, str(path), path.read_bytes(), stream)]
        assert not stream.closed
    assert all(np.array_equal(np.asarray(one), PIXELS) for one in opened)


def test_cut_files_stay_forbidden_for_everybody():
    """Opening a picture doesn't flip Pillow's global switch for files that are cut off."""
    images.open_image(photo("JPEG"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# Refusing


def test_missing_file(tmp_path):
    """A path without a file is named and said to be missing."""
    sentence = sentence_for(tmp_path / "没有.png")
    assert "There is no file" in sentence
    assert "没有.png" in sentence


def test_path_through_a_file(tmp_path):
    """A path that goes on below a file leads nowhere."""
    (tmp_path / "cat.png").write_bytes(encoded(picture()))
    assert "There is no file" in sentence_for(tmp_path / "cat.png" / "inner.png")


def test_folder_in_place_of_a_file(tmp_path):
    """A folder is called one."""
    folder = tmp_path / "pictures.png"
    folder.mkdir()
    assert 'pictures.png" is a folder' in sentence_for(folder)


def test_empty_file(tmp_path):
    """A file of no bytes is called empty."""
    path = tmp_path / "nothing.png"
    path.touch()
    assert 'nothing.png" is empty' in sentence_for(str(path))


def test_empty_bytes_and_streams():
    """No bytes are empty wherever they come from."""
    assert "is empty" in sentence_for(b"")
    assert "is empty" in sentence_for(BytesIO())


def test_text_named_png(tmp_path):
    """A text stays a text under any name."""
    path = tmp_path / "notes.png"
    path.write_text("a cat sat on the mat\n" * 40)
    assert 'notes.png" is no picture of a known kind' in sentence_for(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_file_cut_in_half(tmp_path, kind):
    """Half a file is refused as damaged, not shown half gray."""
    path = tmp_path / f"half.{kind.lower()}"
    data = photo(kind)
    path.write_bytes(data[: len(data) // 2])
    sentence = sentence_for(path)
    assert path.name in sentence
    assert "damaged" in sentence


def test_forbidden_file(tmp_path, monkeypatch):
    """A file that the system keeps from us is said to be so."""
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(picture()))

    def refuse(*args: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert 'secret.png" may not be read' in sentence_for(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's file tree")
def test_pipe_and_device_are_not_waited_for(tmp_path):
    """A pipe without a writer and an endless device are refused at once."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert 'pipe.png" is not an ordinary file' in sentence_for(pipe)
    assert '/dev/zero" is not an ordinary file' in sentence_for("/dev/zero")


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000 + ".png", "line\nbreak.png", "\udcff.png"])
def test_names_that_no_system_takes(name):
    """Names with zero bytes, line breaks, lone surrogates or no end still make short sentences."""
    sentence = sentence_for(name)
    assert len(sentence) < 400
    assert ".png" in sentence
    assert sentence.encode()


def test_programs_are_not_run_for_a_picture(tmp_path):
    """EPS, for which Pillow would call ghostscript, is no kind that is opened."""
    path = tmp_path / "page.eps"
    picture().save(path, "EPS")
    assert "known kind" in sentence_for(path)


@pytest.mark.parametrize(
    ("data", "word"), [(HEIC, "install pillow-heif,"), (AVIF, "install pillow-avif-plugin,")]
)
def test_missing_decoder_is_named(tmp_path, monkeypatch, data, word):
    """HEIC and AVIF are known by their brands, and the sentence says what to install."""
    Image.init()
    for kind, plugin in (("HEIF", "pillow_heif"), ("AVIF", "pillow_avif")):
        monkeypatch.delitem(Image.OPEN, kind, raising=False)
        monkeypatch.setitem(sys.modules, plugin, None)
    path = tmp_path / "IMG_0001.jpg"
    path.write_bytes(data)
    sentence = sentence_for(path)
    assert word in sentence
    assert "IMG_0001.jpg" in sentence


def test_installed_decoder_is_found_when_it_is_needed(tmp_path, monkeypatch):
    """pillow-heif is imported by the first HEIC picture, not before."""
    package = tmp_path / "pillow_heif"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "HeifImagePlugin.py").write_text(
        "from PIL import Image\n"
        "def opener(file, name):\n"
        "    return Image.new('RGB', (4, 2), 'red')\n"
        "Image.register_open('HEIF', opener, lambda start: start[4:12] == b'ftypheic')\n"
    )
    Image.init()
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    for module in ("pillow_heif", "pillow_heif.HeifImagePlugin"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    images.open_image(photo("PNG"))
    assert "pillow_heif" not in sys.modules
    assert pixel(images.open_image(HEIC)) == RED


def test_too_many_bytes(tmp_path):
    """A file is measured before it is read."""
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    assert 'large.png" has more than 256 MiB' in sentence_for(path)


def test_streams_and_base64_without_end(monkeypatch):
    """A stream is read no further than the limit, and base64 is measured before it is decoded."""
    monkeypatch.setattr(images, "MAX_BYTES", 2**20)

    class Endless(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size == 2**20 + 1
            return bytes(size)

    assert "more than 1 MiB" in sentence_for(Endless())
    with pytest.raises(BadImage, match="more than 1 MiB"):
        images.decode_base64("A" * 1_500_000)


@pytest.mark.parametrize("size", [(10_001, 10_000), (13_000, 13_000), (100_000, 100_000)])
def test_decompression_bombs(tmp_path, capfd, size):
    """More than 100 million claimed pixels are refused from the header, without a warning.

    The sizes are below, above and far above where Pillow warns and where it gives up.
    """
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        sentence = sentence_for(path)
    assert "bomb.png" in sentence
    assert "pixels" in sentence
    assert "make it smaller" in sentence
    assert not printed
    assert capfd.readouterr() == ("", "")


def test_allowed_size_above_the_limit_where_pillow_warns(capfd):
    """Our limit counts: 95 million pixels are opened, though Pillow would warn of 90."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = images.open_image(encoded(Image.new("1", (19_000, 5_000), 1)))
    assert opened.size == (19_000, 5_000)


def test_large_claim_with_little_data(tmp_path):
    """A header that is allowed but not followed by pixels is damage."""
    path = tmp_path / "claim.png"
    path.write_bytes(png_header(9_000, 9_000))
    assert 'claim.png" is damaged or cut off' in sentence_for(path)


def test_tiff_that_points_to_the_same_bytes_again_and_again():
    """A small TIFF whose directory would be copied out to gigabytes is refused."""
    block = exif_block([(tag, 7, 100_000, 8) for tag in range(60_000, 64_000)], rest=bytes(100_000))
    assert "damaged in its header" in sentence_for(block)


def test_streams_that_fail():
    """A closed stream, and one of text, are refused like a bad file."""
    closed = BytesIO(photo("PNG"))
    closed.close()
    assert "stream" in sentence_for(closed)
    with Path(__file__).open() as text:
        assert 'test_images.py" was opened as text' in sentence_for(text)


SIGNATURES = [photo(kind)[:16] for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")]


@settings(max_examples=150)
@given(st.sampled_from([b"", HEIC[:24], AVIF[:24], b"MM\0+", *SIGNATURES]), st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(start, rest):
    """Whatever the bytes, the answer is an RGB picture or BadImage."""
    try:
        assert images.open_image(start + rest).mode == "RGB"
    except BadImage as refusal:
        assert str(refusal)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_files_cut_anywhere(kind):
    """A file cut at any byte is an RGB picture of the right size or BadImage."""
    whole = photo(kind)

    @settings(max_examples=60)
    @given(st.integers(0, len(whole) - 1))
    def cut(length: int) -> None:
        try:
            opened = images.open_image(whole[:length])
        except BadImage as refusal:
            assert "cut off" in str(refusal) or "known kind" in str(refusal) or length == 0
        else:
            assert (opened.mode, opened.size) == ("RGB", (32, 24))

    cut()


# Base64


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "data:image/png;base64,{}",
        " DATA:image/png;name=a;BASE64,\n{}\n",
    ],
)
def test_base64_plain_and_as_data_url(wrap):
    """Plain base64 and data URLs are decoded, broken into lines or not, padded or not."""
    text = base64.b64encode(encoded(picture())).decode()
    lines = "\r\n".join(text[at : at + 20] for at in range(0, len(text), 20))
    for body in (text, lines, text.rstrip("=")):
        assert np.array_equal(np.asarray(images.decode_base64(wrap.format(body))), PIXELS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("https://example.org/cat.png", "not fetched"),
        (" HTTP://example.org/cat.png", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("data:image/png,abc", "not in base64"),
        ("data:", "not in base64"),
        ("not*base64!", "not valid base64"),
        ("猫", "not valid base64"),
        ("A", "not valid base64"),
        ("", "is empty"),
        ("data:image/png;base64,", "is empty"),
        (base64.b64encode(b"plain text").decode(), "known kind"),
        (base64.b64encode(photo("JPEG")[:600]).decode(), "damaged or cut off"),
    ],
)
def test_base64_refused(text, sentence):
    """Addresses, broken base64 and broken pictures are refused in a sentence each."""
    with pytest.raises(BadImage, match=sentence) as refusal:
        images.decode_base64(text)
    plain(refusal)


@settings(max_examples=100)
@given(st.text())
def test_random_text_raises_nothing_else(text):
    """Whatever the text, the answer is a picture or BadImage."""
    try:
        assert images.decode_base64(text).mode == "RGB"
    except BadImage as refusal:
        assert str(refusal)


# Upright


TURNED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.swapaxes(0, 1),
    6: np.rot90(PIXELS, -1),
    7: PIXELS[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(PIXELS),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(kind, options, orientation):
    """Each EXIF orientation brings every pixel to its place, and does so once."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = images.open_image(encoded(picture(), kind, exif=exif, **options))
    assert np.array_equal(np.asarray(upright), TURNED[orientation])
    assert np.array_equal(np.asarray(images.upright_rgb(upright)), TURNED[orientation])


def test_rotated_photo():
    """A JPEG taken on its side stands up, and its corner is where it belongs."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.new("RGB", (32, 16), "blue")
    photo.paste("red", (0, 0, 16, 16))
    upright = images.open_image(encoded(photo, "JPEG", exif=exif))
    assert upright.size == (16, 32)
    assert pixel(upright, (8, 4))[0] > 240
    assert pixel(upright, (8, 28))[2] > 240


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + exif_block([(0x0112, 2, 900, 2**31)]),
        b"Exif\0\0" + exif_block([(0x0112, 3, 1, 99)]),
        b"Exif\0\0" + exif_block([(0x0112, 3, 1, 6), *[(9, 7, 9000, 8)] * 400], rest=bytes(9000)),
    ],
    ids=["no header", "nowhere", "wrong type", "no such turn", "copies"],
)
def test_broken_exif_does_not_cost_the_picture(exif):
    """With EXIF that is broken or made to exhaust memory, the picture is taken as it stands."""
    opened = images.open_image(encoded(picture(), exif=exif))
    assert np.array_equal(np.asarray(opened), PIXELS)


# RGB


def test_first_frame_of_an_animation():
    """Of an animation the first frame counts, even if another one is being looked at."""
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert pixel(images.open_image(data)) == RED
        looked_at = Image.open(BytesIO(data))
        looked_at.seek(1)
        assert pixel(images.upright_rgb(looked_at)) == RED
        assert looked_at.tell() == 1
        assert looked_at.convert("RGB").getpixel((0, 0)) == BLUE


def test_transparency_shows_white():
    """What is fully transparent is white, and what is half so is half white, in every mode."""
    clear = {
        "RGBA": Image.new("RGBA", (2, 2), (255, 0, 0, 0)),
        "LA": Image.new("LA", (2, 2), (0, 0)),
        "RGBa": Image.new("RGBA", (2, 2), (255, 0, 0, 0)).convert("RGBa"),
        "La": Image.new("LA", (2, 2), (0, 0)).convert("La"),
        "PA": Image.new("P", (2, 2), 0).convert("PA"),
    }
    clear["PA"].putalpha(0)
    for image in clear.values():
        assert pixel(images.upright_rgb(image)) == WHITE
    half = pixel(images.upright_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 128))))
    assert half == (255, 127, 127)


def test_palette_with_transparency():
    """Of a palette, the transparent entry turns white and the others keep their colors."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    for kind, transparency in (("PNG", 0), ("GIF", 0), ("PNG", b"\x00\xff")):
        opened = images.open_image(encoded(image, kind, transparency=transparency))
        assert [pixel(opened, (x, 0)) for x in (0, 1)] == [WHITE, BLUE]


@pytest.mark.parametrize(("mode", "color"), [("L", 0), ("RGB", (255, 0, 0))])
def test_one_transparent_color(mode, color):
    """A PNG without an alpha channel may still name one color that is clear."""
    data = encoded(Image.new(mode, (2, 2), color), transparency=color)
    assert pixel(images.open_image(data)) == WHITE


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    """Print colors come out right: magenta and yellow ink make red, not cyan."""
    red, green, blue = pixel(
        images.open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind))
    )
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind):
    """A 16-bit ramp becomes the 8-bit ramp; clipped, it would be white from 256 on."""
    ramp = np.array([[0, 128, 129, 255, 257, 32768, 65278, 65535]], np.uint16)
    opened = images.open_image(encoded(Image.fromarray(ramp), kind))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]


def test_whole_numbers_beyond_sixteen_bits():
    """32-bit values, or negative ones, are stretched from the darkest to the brightest."""
    for low, high in ((0, 2**30), (-1000, 1000)):
        values = np.array([[low, (low + high) // 2, high]], np.int32)
        opened = images.upright_rgb(Image.fromarray(values))
        assert np.asarray(opened)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 100, 255], [0, 100, 255]),
        ([-1, 0, 3], [0, 64, 255]),
        ([float("nan"), float("inf"), 1], [0, 0, 255]),
        ([500, 500, 500], [0, 0, 0]),
    ],
)
def test_floating_point(values, gray):
    """Fractions count up to 1, larger values up to 255, the rest is stretched; NaN is black."""
    opened = images.upright_rgb(Image.fromarray(np.array([values], np.float32)))
    assert np.asarray(opened)[0, :, 0].tolist() == gray


def test_other_color_spaces():
    """1 bit, YCbCr, HSV and LAB give the color that they stand for."""
    assert pixel(images.upright_rgb(Image.new("1", (2, 2), 1))) == WHITE
    for mode in ("YCbCr", "HSV"):
        red, green, blue = pixel(images.upright_rgb(Image.new("RGB", (2, 2), RED).convert(mode)))
        assert red >= 254
        assert max(green, blue) <= 1
    # L 54 %, a 81, b 70 is the red of sRGB; Pillow counts a and b from 128.
    red_in_lab = (138, 128 + 81, 128 + 70)
    red, green, blue = pixel(images.upright_rgb(Image.new("LAB", (2, 2), red_in_lab)))
    assert red > 245
    assert max(green, blue) < 30


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]


@pytest.mark.parametrize("mode", [*MODES, "LAB", "I", "F", "I;16", "I;16B", "I;16L"])
def test_argument_stays_and_a_second_time_changes_nothing(mode):
    """Of whatever mode, the argument stays as it was, and what is upright RGB stays so."""
    image = Image.new(mode, (4, 3))
    image.info["note"] = "kept"
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    upright = images.upright_rgb(image)
    assert (image.mode, image.size, image.tobytes(), image.info) == before
    assert (upright.mode, upright.size) == ("RGB", (4, 3))
    assert images.upright_rgb(upright).tobytes() == upright.tobytes()
    upright.paste("red", (0, 0, 4, 3))
    assert image.tobytes() == before[2]


def test_picture_that_can_not_be_used():
    """A picture without pixels, and one whose file is cut off, are refused here too."""
    data = photo("JPEG")
    cut = Image.open(BytesIO(data[:-200]))
    for image, word in ((Image.new("RGB", (0, 5)), "no pixels"), (cut, "cut off")):
        with pytest.raises(BadImage, match=word) as refusal:
            images.upright_rgb(image)
        plain(refusal)


# Generation data


def png_with_text(key: str, text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(key, text)
    return encoded(picture(), pnginfo=info)


def test_parameters_in_png_text(tmp_path):
    """The WebUI's PNG text is returned, from a file as from an opened picture."""
    path = tmp_path / "fox.png"
    path.write_bytes(png_with_text("parameters", POSITIVE))
    assert images.embedded_parameters(path) == POSITIVE
    assert images.embedded_parameters(str(path)) == POSITIVE
    assert images.embedded_parameters(BytesIO(path.read_bytes())) == POSITIVE
    assert images.embedded_parameters(Image.open(path)) == POSITIVE


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        (b"UNICODE\0", "utf-16-be"),
        (b"UNICODE\0", "utf-16-le"),
        (b"UNICODE\0", "utf-16"),
        (b"ASCII\0\0\0", "utf-8"),
        (b"JIS\0\0\0\0\0", "iso2022_jp"),
        (bytes(8), "utf-8"),
        (b"", "utf-8"),
    ],
)
def test_parameters_in_user_comment(order, kind, charset, encoding):
    """Every character set is read, in both byte orders, even one other than is declared."""
    text = POSITIVE + " 狐"
    block = exif_with_comment(charset + text.encode(encoding), order)
    data = encoded(picture(), kind, exif=b"Exif\0\0" + block)
    assert images.embedded_parameters(data) == text


@pytest.mark.parametrize(("order", "encoding"), [("<", "utf-16-le"), (">", "utf-16-be")])
def test_user_comment_without_any_latin_letter(order, encoding):
    """Where the text itself doesn't tell, the byte order of the EXIF block counts."""
    block = exif_with_comment(b"UNICODE\0" + "雪中狐狸".encode(encoding), order)
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + block)
    assert images.embedded_parameters(data) == "雪中狐狸"


def comfy(changes: dict[str, object]) -> dict[str, object]:
    """Return a small ComfyUI graph: a sampler, its two texts, what else it needs."""
    text = "CLIPTextEncode"
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": 8, "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
        "6": {"class_type": text, "inputs": {"text": "a fox, snow", "clip": ["4", 1]}},
        "7": {"class_type": text, "inputs": {"text": "blurry", "clip": ["4", 1]}},
        **changes,
    }


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


COMFY = {
    "plain": (comfy({}), "a fox, snow"),
    "through a control net": (
        comfy(
            {
                "3": node("KSamplerAdvanced", positive=["9", 0], negative=["9", 1]),
                "9": node(
                    "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], image=["5"]
                ),
            }
        ),
        "a fox, snow",
    ),
    "combined": (
        comfy(
            {
                "3": node("KSampler", positive=["9", 0], negative=["7", 0]),
                "9": node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["10", 0]),
                "10": node("CLIPTextEncode", text="at night", clip=["4", 1]),
            }
        ),
        "a fox, snow, at night",
    ),
    "text from another node": (
        comfy(
            {
                "6": node("CLIPTextEncode", text=["9", 0], clip=["4", 1]),
                "9": node("PrimitiveString", value="an owl"),
            }
        ),
        "an owl",
    ),
    "two encoders": (
        comfy({"6": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="snow", width=1024)}),
        "a fox, snow",
    ),
    "guider": (
        comfy(
            {
                "3": node("SamplerCustomAdvanced", guider=["9", 0], sampler=["11", 0]),
                "9": node("BasicGuider", conditioning=["10", 0], model=["4", 0]),
                "10": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
            }
        ),
        "a fox, snow",
    ),
    "loop": (comfy({"6": node("Reroute", text=["6", 0])}), None),
    "dead end": (comfy({"6": None}), None),
    "no sampler": (comfy({"3": node("SaveImage", images=["6", 0])}), None),
}


@pytest.mark.parametrize(("graph", "text"), COMFY.values(), ids=COMFY)
def test_comfy_graph(graph, text):
    """The texts that reach the sampler as its positive prompt are returned, the others not."""
    assert images.embedded_parameters(png_with_text("prompt", json.dumps(graph))) == text


def test_order_of_places():
    """The WebUI's own text comes before a ComfyUI graph."""
    image = picture()
    image.info.update(prompt=json.dumps(comfy({})), parameters="an owl")
    assert images.embedded_parameters(image) == "an owl"
    image.info["parameters"] = " \n"
    assert images.embedded_parameters(image) == "a fox, snow"


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"parameters": 5, "exif": "text", "prompt": b"{}"},
        {"parameters": "x" * (images.MAX_PARAMETERS_BYTES + 1)},
        {"prompt": "a plain text"},
        {"prompt": "[" * 200_000},
        {"prompt": '{"3": ' + "9" * 500_000 + "}"},
        {"prompt": "[1, 2]"},
        {"prompt": '{"3": {"class_type": "KSampler", "inputs": {"positive": [[], {}]}}}'},
        {"exif": exif_with_comment(b"ASCII\0\0\0")},
        {"exif": exif_with_comment(b"ASCII\0\0\0" + bytes(50))},
        {"exif": exif_with_comment(b"UNICODE\0" + b"\0 " * 20)},
        {"exif": exif_block([(0x8769, 4, 1, 8)])},
        {"exif": exif_block([(0x8769, 4, 1, 2**32 - 1)])},
        {"exif": exif_with_comment(b"ASCII\0\0\0" + b"x" * images.MAX_PARAMETERS_BYTES)},
    ],
)
def test_no_generation_data(info):
    """What is absent, blank, broken, endless or of the wrong type gives None."""
    image = picture()
    image.info.update(info)
    assert images.embedded_parameters(image) is None


def test_no_generation_data_in_bad_files(tmp_path):
    """A file that can't be opened carries nothing, and nothing is raised."""
    for source in (tmp_path, tmp_path / "missing.png", b"", b"text", png_header(100_000, 100_000)):
        assert images.embedded_parameters(source) is None


def test_large_comfy_graph_takes_linear_time():
    """A graph as large as is read at all, all of it linked together, is walked once."""
    graph: dict[str, object] = {"s": node("KSampler", positive=["0", 0])}
    graph |= {str(i): node("C", conditioning=[str(i + 1), 0]) for i in range(10_000)}
    graph["10000"] = node("CLIPTextEncode", text="at the end")
    image = picture()
    image.info["prompt"] = json.dumps(graph)
    assert images.embedded_parameters(image) == "at the end"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["1", "inputs", "class_type", "positive", "text"]), inner)
    ),
)


@settings(max_examples=150)
@given(JSON, st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b""]))
def test_random_generation_data_raises_nothing(graph, rest, start):
    """Whatever the fields hold, the answer is a text with something in it, or None."""
    image = picture()
    image.info.update(prompt=json.dumps({"1": graph, "2": node("Sampler", positive=["1"])}))
    image.info["exif"] = start + rest
    answer = images.embedded_parameters(image)
    assert answer is None or answer.strip()


# Folders


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, recursive: bool = False) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in images.list_folder(folder, recursive)]


def test_natural_order(tmp_path, monkeypatch):
    """2 comes before 10, upper and lower case mix, whatever the file system's own order."""
    expected = ["1.png", "2.png", "10.png", "a02.png", "a2.PNG", "A3.jpg", "a10.webp", "é.tga"]
    fill(tmp_path, *expected)
    assert listed(tmp_path) == expected
    walk = os.walk
    for backwards in (False, True):
        monkeypatch.setattr(
            images.os,
            "walk",
            lambda *args, backwards=backwards, **named: (
                (parent, folders, sorted(files, reverse=backwards))
                for parent, folders, files in walk(*args, **named)
            ),
        )
        assert listed(tmp_path) == expected


def test_only_visible_pictures(tmp_path):
    """Other suffixes, hidden files and folders, and folders named like pictures are left out."""
    fill(tmp_path, "a.png", "a.txt", "png", ".b.png", ".git/c.png", "s.png/d.heic", "s.png/.e.png")
    assert listed(tmp_path) == ["a.png"]
    assert listed(tmp_path, recursive=True) == ["a.png", "s.png/d.heic"]


def test_folders_are_listed_in_natural_order_too(tmp_path):
    """Deep lists are ordered folder by folder."""
    expected = ["day 2/9.png", "day 2/10.png", "day 10/1.png", "z.png"]
    fill(tmp_path, *expected)
    assert listed(tmp_path, recursive=True) == expected


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_loops_of_links(tmp_path):
    """A folder that links to itself ends; links to pictures count, broken ones don't."""
    fill(tmp_path, "in/a.png")
    (tmp_path / "in" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "d.png").symlink_to(tmp_path / "missing.png")
    assert listed(tmp_path, recursive=True) == ["in/a.png", "in/b.png"]


def test_folder_that_can_not_be_listed(tmp_path, monkeypatch):
    """A folder that is missing, a file or forbidden is named in the sentence."""
    fill(tmp_path, "file.png")

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    for name, word in (("missing", "There is no folder"), ("file.png", "is not a folder")):
        with pytest.raises(BadImage, match=word) as refusal:
            images.list_folder(tmp_path / name)
        assert name in plain(refusal)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadImage, match="can't be listed") as refusal:
        images.list_folder(tmp_path)
    assert tmp_path.name in plain(refusal)


def test_forbidden_folder_inside_is_left_out_and_logged(tmp_path, monkeypatch, caplog):
    """One folder that can't be read doesn't keep the rest of a tree from being listed."""
    fill(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(tmp_path, recursive=True) == ["a.png"]
    assert "locked" in caplog.text
