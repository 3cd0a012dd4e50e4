"""What strangers bring to the page: words with markup in them, files, and posts of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from clip_interrogator_ext.faces.tab import components, toasts
from tests import browser, posting
from tests.browser import CASTLE, Driver, chromium_of_a_module, page_without_failures  # noqa: F401 - fixtures
from tests.posts import GRADIO, Poster, file_data

pytestmark = [pytest.mark.hosts, browser.needs_chromium]

NASTY = '<img src=x onerror="window.cliext_hurt=1"><script>window.cliext_hurt=1</script>'
# A file's name holds no slash.
NAME = '<img src=x onerror="window.cliext_hurt=2"> **b**'
LISTS = {
    "artists": [f"artist {NASTY}"], "movements": [f"movement {NASTY}"],
    "sites": ["[a](javascript:window.cliext_hurt=3)"], "mediums": [f"medium {NASTY}"],
    "flavors": [f"flavor {number} {NASTY}" for number in range(12)], "negative": [NASTY],
    NAME: [f"phrase {NASTY}"],
}
SETS = f"""
'set {NASTY}':
  about: 'about {NASTY}'
  lists: [flavors, 'missing {NASTY}']
"""
# What markup would have made, and whether any of it ran.
MARKUP = """() => [
    ...document.querySelectorAll("img[onerror], img[src='x'], a[href^='javascript']"),
    ...Array.from(document.scripts).filter(
        // The page's own, which holds all values as they are.
        (one) => /cliext_hurt/.test(one.textContent) && !/gradio_config/.test(one.textContent)
    ),
].map((one) => one.outerHTML).concat("cliext_hurt" in window ? ["it ran"] : [])"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The page's address; its word lists and sets are those of somebody with a purpose."""
    folder = tmp_path_factory.mktemp("page")
    lists = browser.write_lists(folder / "lists", LISTS)
    (lists / "sets.yaml").write_text(SETS, encoding="utf-8")
    with browser.served(folder, ["--mode", "fast", "--lists-dir", str(lists)]) as served:
        yield served


@pytest.fixture
def user(page, address) -> Iterator[Driver]:
    """A user at a fresh page, in which no text has become markup."""
    user = Driver(page).open(address)
    yield user
    assert user.evaluate(MARKUP) == []


@pytest.fixture
def inner() -> Iterator[list[str]]:
    """The addresses that were asked for from a server of the network around this machine."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a secret")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked.append(f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def png(**texts: str) -> bytes:
    """Return a picture that carries texts."""
    info, data = PngInfo(), BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (32, 32), "purple").save(data, "PNG", pnginfo=info)
    return data.getvalue()


def put(user: Driver, name: str, *files: tuple[str, bytes]) -> None:
    """Put files into a box, by any names."""
    user.element(name, "input[type=file]").first.set_input_files(
        [{"name": own, "mimeType": "image/png", "buffer": data} for own, data in files]
    )


# Words


def test_a_pictures_words_and_its_prompt_are_text(user):
    """Generation data, phrases with their checkboxes, prompts, and names of models in errors."""
    put(user, "image", (f"{NAME}.png", png(parameters=f"a fox {NASTY}\nNegative prompt: {NASTY}")))
    expect(user.box("parameters")).to_have_value(f"a fox {NASTY}\nNegative prompt: {NASTY}")
    user.element("use-parameters").click()
    expect(user.box("prompt")).to_have_value(f"a fox {NASTY}")
    user.element("with-negative", "input").check()
    user.generate()
    label = user.element("phrases", "label").first
    expect(label).to_contain_text(NASTY)
    assert NASTY in user.value("negative").replace("\\", "")
    for box, words in (("backbones", "No architecture"), ("captioner", "No captioner")):
        user.name(box, NASTY)
        user.run()
        expect(user.message()).to_contain_text(words)
        expect(user.message()).to_contain_text("<img src")
        user.name(box, "demo")


def test_bars_are_text(user):
    """Phrases of word lists, and texts of one's own."""
    user.upload(CASTLE)
    user.tab("Analyze")
    user.element("analyze").click()
    expect(user.element("cards")).to_contain_text(f"artist {NASTY}")
    user.write("texts", NASTY)
    user.element("compare").click()
    expect(user.element("scores")).to_contain_text(NASTY)


def test_what_pops_up_is_text(page):
    """Errors and warnings of ours; and what nobody foresaw is not told in its own words."""
    # Gradio 4 makes no lock for its queue in a thread whose loop another test has taken away.
    asyncio.set_event_loop(asyncio.new_event_loop())

    def fail() -> None:
        raise toasts.error(f"an error {NASTY}")

    def warn() -> str:
        toasts.warn(f"a warning {NASTY} **b** &lt;i&gt;")
        return "warned"

    def break_down() -> None:
        raise ValueError(f"a secret {NASTY}")

    def break_down_later() -> Iterator[str]:
        yield "begun"
        raise ValueError(f"a secret {NASTY}")

    told = {
        fail: f"an error {NASTY}", warn: f"a warning {NASTY} **b** &lt;i&gt;",
        break_down: components.UNFORESEEN, break_down_later: components.UNFORESEEN,
    }
    with gr.Blocks(analytics_enabled=False) as blocks:
        box = gr.Textbox(label="x")
        for function in told:
            button = gr.Button(function.__name__, elem_id=function.__name__)
            components.on(button.click, function, [], [box])
    with posting.launched(blocks) as (_, address):
        for function, sentence in told.items():
            page.goto(address)
            page.locator(f"#{function.__name__}").click()
            shown = page.locator("[data-testid=toast-text], .toast-text").first
            expect(shown).to_contain_text(sentence)
            assert "a secret" not in page.content()
            assert page.evaluate(MARKUP) == []


# Pictures that can't be read


def test_a_picture_that_can_not_be_read_is_told_of_and_costs_nothing(user):
    """In the place where errors are, in each tab; the prompt stays and the buttons work."""
    user.write("prompt", "my own words")
    put(user, "image", ("cat.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))
    expect(user.element("image", "img").first).to_be_attached()
    user.element("generate").click()
    error = user.message().locator("[role=alert]")
    expect(error).to_contain_text("The picture is no picture of a known kind")
    expect(user.element("generate")).to_be_enabled()
    assert user.value("prompt") == "my own words"
    user.tab("Analyze")
    user.element("analyze").click()
    told = user.element("analyze-message")
    expect(told).to_contain_text("The picture is no picture of a known kind")
    user.tab("Prompt")
    # Gradio shows no second picture in a box before the first is taken out.
    user.element("image", "button[aria-label='Clear'], button[aria-label='Remove Image']").click()
    user.upload(CASTLE)
    user.generate()
    assert "castle" in user.value("prompt")


# Posts of one's own


def test_gradios_own_errors_are_not_told_in_their_own_words(address):
    """Too few values, and one that no box takes: it would list the boxes, and places of code."""
    poster = Poster(address)
    events = {
        event.get("id", number): len(event["inputs"])
        for number, event in enumerate(poster._config["dependencies"])
        if event.get("backend_fn") and event["inputs"]
    }
    for number, count in [*events.items()][:5]:
        for values in ([], [{"a secret": ["a secret"]}] * count):
            done, answer = poster.post(number, values)
            told = "" if done else str(answer["error"] or "").strip("'")
            # Sentences of ours; and Gradio's own, about a choice that is not among those there are.
            meant = ("Something unforeseen happened", "Only what was uploaded", "Value: ")
            assert not told or told.startswith(meant), told


def error_of(answer: Any) -> str:
    return str(answer)


def test_addresses_are_not_fetched_and_files_of_the_machine_are_not_read(address, inner, tmp_path):
    """Whatever is posted for boxes of texts, pictures and files, past the page's script."""
    poster = Poster(address)
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret\n", encoding="utf-8")
    above = Path(poster.upload("a.txt", b"mine")).parent / ".." / ".." / ".." / ".." / ".."
    places = [f"{inner[0]}/a.txt", secret, f"{above}{secret}", "/dev/zero"]
    boxes = [("prompt", "change", "prompt"), ("use-parameters", "click", "parameters"),
             ("image", "change", "image"), ("generate", "click", "image"),
             ("analyze", "click", "analyze_image"), ("lists-import", "click", "lists_files"),
             ("batch-start", "click", "batch_files"), ("lists-save", "click", "lists_text")]
    for place in places:
        for name, trigger, box in boxes:
            sent = file_data(place, "a.png" if name == "batch-start" else "a.txt")
            done, answer = poster.use(name, trigger, **{
                box: [sent] if box.endswith("files") else sent, "lists_name": "yours",
                "batch_source": "Uploaded",
            })
            # Boxes of Gradio 3 take a text's place for a text.
            assert not done or (GRADIO == 3 and ("_" not in box or box == "lists_text"))
            assert "a secret" not in str(answer)
    assert inner[1:] == []
    good = file_data(poster.upload("mine.txt", b"a red dragon\n"), "mine.txt")
    done, answer = poster.use("lists-import", "click", lists_files=[good])
    assert done
    assert "Imported: mine." in str(answer)


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"BM", b"\x89PNG\r\n", b"<svg"])
def test_a_posted_picture_that_is_none_is_a_sentence(address, head):
    """With nothing else changed, and the buttons as they were."""
    poster = Poster(address)
    sent = poster.image(head + b" no picture", "x.svg" if head == b"<svg" else "x.png")
    done, answer = poster.use("generate", "click", image=sent)
    assert done
    assert "The picture is" in answer[1]
    assert 'role="alert"' in answer[1]
