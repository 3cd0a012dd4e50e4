"""What may come into the page's boxes, without a browser."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image

from clip_interrogator_ext.errors import BadImage, InterrogatorError
from clip_interrogator_ext.faces.tab import components, draw, uploaded
from clip_interrogator_ext.faces.tab.surroundings import Surroundings
from clip_interrogator_ext.faces.tab.uploaded import Posted
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.service import Service
from tests import posting
from tests.posts import GRADIO, Poster, file_data, is_in, posted

pytestmark = pytest.mark.hosts

needs_moving = pytest.mark.skipif(GRADIO == 3, reason="Gradio 3 moves no files")


class Counting(ThreadingHTTPServer):
    """A server of the network around this machine, which counts who asks it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """What that server answers."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a secret")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def inner() -> Iterator[Counting]:
    with Counting() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path) -> Path:
    """The folder that Gradio keeps uploads in."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def secret(tmp_path) -> Path:
    """A picture of this machine that nobody has uploaded."""
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def placed(box: Any, cache: Path) -> Any:
    """Return a box whose uploads lie in that folder."""
    box.GRADIO_CACHE = box.DEFAULT_TEMP_DIR = str(cache)
    return box


def image_box(cache: Path) -> Any:
    with gr.Blocks(analytics_enabled=False):
        return placed(components.image(label="Picture"), cache)


def files_box(cache: Path) -> Any:
    with gr.Blocks(analytics_enabled=False):
        return placed(uploaded.files(label="Files"), cache)


def listed(box: Any, *files: dict[str, Any]) -> Any:
    return list(files) if GRADIO == 3 else box.data_model(list(files))


def foreign_places(secret: Path, cache: Path) -> list[str]:
    """Return places that were not uploaded, as somebody may write them."""
    link = cache / "link.png"
    link.symlink_to(secret)
    return [
        str(secret), str(cache / ".." / secret.name), os.path.relpath(secret), str(link),
        secret.as_uri(), "/dev/zero", "/dev/stdin", "", f"{cache}-beside/x.png", str(cache.parent),
    ]


def test_files_come_with_their_own_names(cache):
    """Gradio's copies have lost some of their letters."""
    box = files_box(cache)
    assert box.preprocess(None) == []
    copy, own = cache / "photo 1.png", "photo (1).png"
    Image.new("RGB", (8, 8)).save(copy)
    ((name, path),) = box.preprocess(listed(box, file_data(copy, own)))
    assert name == own
    assert path.read_bytes() == copy.read_bytes()


def test_a_file_that_was_not_uploaded_is_not_taken(secret, cache):
    """By whatever way its place is written, alone or behind one that was."""
    box = files_box(cache)
    good = cache / "a.png"
    good.write_bytes(secret.read_bytes())
    for place in foreign_places(secret, cache):
        # A stream is a file that Gradio leaves where it is.
        for more in ({}, {"is_stream": True}):
            if place or GRADIO > 3:
                both = [file_data(good, "a.png"), file_data(place, "a.png", **more)]
                with pytest.raises(gr.Error, match="Only what was uploaded"):
                    box.preprocess(listed(box, *both))
    assert [path for path in cache.rglob("*") if path.name == secret.name] == []


def test_a_picture_that_was_not_uploaded_is_not_taken(secret, cache):
    """Gradio 3 posts no places of pictures, so it takes none."""
    box = image_box(cache)
    for place in foreign_places(secret, cache):
        payload = file_data(place, "a.png")
        with pytest.raises(gr.Error, match="Only what was uploaded"):
            box.preprocess(payload if GRADIO == 3 else box.data_model(**payload))


@needs_moving
def test_no_box_of_the_page_has_addresses_fetched_or_files_copied(inner, secret, tmp_path):
    """Gradio looks for them in what is posted for any box, before the box itself sees it."""
    from gradio.processing_utils import async_move_files_to_cache

    with gr.Blocks(analytics_enabled=False) as blocks:
        draw(Service(StandaloneHost("cpu"), cache_dir=tmp_path / "c"), Surroundings())
    known = {block._id: block for block in blocks.blocks.values()}
    numbers = {one for event in blocks.get_config_file()["dependencies"] for one in event["inputs"]}
    boxes = [box for number in numbers for box in [known[number]] if not box.stateful]
    assert len(boxes) > 30
    for box in boxes:
        for place in (f"{inner.address}/{box.elem_id}", str(secret)):
            for value in (file_data(place, "a.txt"), {"deep": [file_data(place, "a.txt")]}):
                with pytest.raises(gr.Error, match="Only what was uploaded"):
                    asyncio.run(async_move_files_to_cache(value, box))
    assert inner.asked == []


@needs_moving
def test_the_same_is_true_of_a_box_that_gradio_makes_anew(inner, cache):
    """As it does for whoever's page has had the box updated."""
    from gradio.processing_utils import async_move_files_to_cache

    with gr.Blocks(analytics_enabled=False):
        box = gr.Textbox(label="x")
        uploaded.close(box)
        uploaded.close(box)
        anew = placed(type(box)(**box.constructor_args), cache)
    assert (anew.get_block_name(), anew.label) == ("textbox", "x")
    with pytest.raises(gr.Error, match="Only what was uploaded"):
        asyncio.run(async_move_files_to_cache(file_data(inner.address, "a.txt"), anew))
    own = cache / "own.txt"
    own.write_text("x", encoding="utf-8")
    assert asyncio.run(async_move_files_to_cache(file_data(own, "a.txt"), anew))["path"] == str(own)
    assert inner.asked == []


@needs_moving
def test_kinds_of_our_own_leave_no_files(cache):
    """Gradio writes the types of new kinds beside the module that they come from."""
    box = image_box(cache)
    assert box.get_block_name() == "image"
    assert list(Path(uploaded.__file__).parent.glob("*.pyi")) == []


def test_a_picture_is_handed_on_as_it_came(cache):
    """From one box to another, undecoded."""
    box = image_box(cache)
    kept = posted(Image.new("RGB", (3, 2)))
    assert box.postprocess(kept) == kept.payload
    assert box.postprocess(None) is None
    assert box.preprocess(None) is None


def test_a_picture_that_the_page_shows_may_come_back(cache, tmp_path, monkeypatch):
    """Forge has pictures lie in other folders, and writes their time behind their names."""
    box = image_box(cache)
    if GRADIO > 3:
        elsewhere = tmp_path / "outputs"
        elsewhere.mkdir()

        def save(picture: Image.Image, *_: Any, **__: Any) -> str:
            picture.save(elsewhere / "1.png")
            return f"{elsewhere / '1.png'}?12.5"

        monkeypatch.setattr(gr.processing_utils, "save_pil_to_cache", save)
    shown = box.postprocess(Image.new("RGB", (3, 2), "red"))
    if GRADIO > 3:
        assert is_in(shown.path, cache)
    back = box.preprocess(shown)
    assert back.open().getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_that_can_not_be_read_is_a_sentence(cache):
    """Of our own, which does not tell where Gradio keeps its files; nothing is raised before."""
    bad = cache / "bad.png"
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    pictures = [(Posted("data:image/png;base64,AAAA"), "no picture of a known kind"),
                (Posted("http://127.0.0.1/x.png"), "not fetched")]
    if GRADIO > 3:
        box = image_box(cache)
        here = box.preprocess(box.data_model(**file_data(bad, "bad.svg")))
        gone = box.preprocess(box.data_model(**file_data(cache / "gone.png", "a.png")))
        pictures += [(here, "no picture of a known kind"), (gone, "not here any more")]
    for picture, words in pictures:
        assert picture.parameters() is None
        for use in (picture.open, picture.whole, lambda picture=picture: uploaded.opened(picture)):
            with pytest.raises(BadImage, match=words) as refusal:
                use()
            assert str(cache) not in str(refusal.value)
    with pytest.raises(InterrogatorError, match="Put a picture into the box first"):
        uploaded.opened(None)


@pytest.mark.parametrize(("button", "boxes", "said"), [
    ("generate", {"caption": None, "subject": None}, "are not on this machine"),
    ("score", {"prompt": None}, "Scoring needs a picture and a prompt."),
    ("compare", {"texts": None}, "Write one or more texts"),
    ("batch-start", {"folder": None}, "folder"),
])
def test_boxes_without_a_text_are_empty_ones(secret, tmp_path, caplog, button, boxes, said):
    """Programs, and Gradio 6 of some boxes, post nothing at all for them."""
    # Gradio 4 makes no lock for its queue in a thread whose loop another test has taken away.
    asyncio.set_event_loop(asyncio.new_event_loop())
    with gr.Blocks() as page:
        service = Service(StandaloneHost("cpu"), cache_dir=tmp_path / "c")
        draw(service, Surroundings(streams=False))  # what is answered at last is all of it
    with posting.launched(page) as (_, address):
        poster = Poster(address)
        picture = poster.image(secret.read_bytes())
        done, answer = poster.use(button, "click", **boxes, image=picture, analyze_image=picture)
    assert "failed" not in caplog.text
    assert done, answer
    assert said in str(answer)
