"""The page that runs alone, with the demo models, in headless Chromium."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import BrowserContext, Route, WebSocketRoute, expect

from clip_interrogator_ext.faces.tab import components
from clip_interrogator_ext.models.open_clip import count_clip_tokens
from tests import browser, posting
from tests.browser import CASTLE, Driver, gate_of_a_module, gate_that_is_shut  # noqa: F401 - fixtures

pytestmark = [pytest.mark.hosts, browser.needs_chromium]

LISTS = {
    "artists": ["Ann Alpha", "Bob Beta"],
    "mediums": ["pixel art", "an oil painting", "a photo", "a watercolor painting"],
    "movements": ["cubism", "realism"],
    "sites": ["Somewhere"],
    "flavors": [
        "at night", "in the snow", "castle (1900)", "vignette", "film grain",
        *map(" ".join, itertools.product(
            ("deep", "pale", "faint", "rich", "raw", "calm", "wild", "old", "new", "thin"),
            ("light", "fog", "edges", "glass", "paper", "stone"),
        )),
    ],
    "negative": ["two red cats on a beach (at sunset)", "three orange fish", "watermark"],
}
OWN_HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def address(tmp_path_factory, gate) -> Iterator[str]:
    """The page's address, served with short word lists and no network."""
    folder = tmp_path_factory.mktemp("page")
    lists = browser.write_lists(folder / "lists", LISTS)
    arguments = ["--mode", "fast", "--lists-dir", str(lists)]
    with browser.served(folder, arguments, gate=gate) as served:
        yield served


# A page asks a host for a picture, a script and by fetch, and opens a websocket to it.
ASK = """(host) => Promise.all([
    new Promise((done) => {
        const picture = new Image();
        picture.onload = picture.onerror = done;
        picture.src = `https://${host}/a.png`;
    }),
    new Promise((done) => {
        const script = document.createElement("script");
        script.onload = script.onerror = done;
        script.src = `https://${host}/a.js`;
        document.head.append(script);
    }),
    fetch(`https://${host}/a`).catch(() => null),
])"""
SOCKET = "(host) => { new WebSocket(`wss://${host}/`); }"


@pytest.fixture(scope="module")
def foreign_hosts() -> set[str]:
    """The hosts other than this machine that would have been asked, had they been let."""
    return set()


def is_foreign(url: str) -> bool:
    return urlsplit(url).hostname != OWN_HOST


@pytest.fixture(scope="module")
def context(address, foreign_hosts) -> Iterator[BrowserContext]:
    """A browser that reaches this machine only, and whose clipboard may be read."""

    # What the page's own policy forbids never comes here, for it is not sent.
    def note(route: Route) -> None:
        foreign_hosts.add(str(urlsplit(route.request.url).hostname))
        route.abort()

    def note_socket(socket: WebSocketRoute) -> None:
        foreign_hosts.add(str(urlsplit(socket.url).hostname))

    with browser.launched() as chromium:
        context = browser.patient(
            chromium.new_context(viewport={"width": 1280, "height": 1000})
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        context.route(is_foreign, note)
        context.route_web_socket(is_foreign, note_socket)
        yield context


@pytest.fixture
def user(context, address) -> Iterator[Driver]:
    """A user at a fresh page, in which no script fails."""
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield Driver(page).open(address)
    page.close()
    assert not failures


def phrases_of(user: Driver, name: str = "phrases") -> list[str]:
    """Return the phrases that are listed, without category and contribution."""
    labels = user.element(name, "label").all_inner_texts()
    return [label.strip().rsplit(" · ", 1)[0] for label in labels]


def start_a_search(user: Driver) -> None:
    """Begin a search, which goes on while the gate is shut."""
    user.upload(CASTLE)
    user.mode("best")
    user.element("generate").click()
    expect(user.element("stop")).to_be_enabled()


def counted(user: Driver, text: str) -> None:
    """Wait until the tokens of a text are shown."""
    tokens, limit = count_clip_tokens(text)
    expect(user.element("prompt-count")).to_contain_text(f"{tokens}/{limit} tokens")


def top_of(user: Driver, name: str) -> float:
    """Return where an element begins, once the boxes above it have grown around their texts."""
    user.ended()
    box = user.element(name).bounding_box()
    assert box is not None
    return float(box["y"])


# The prompt


def test_a_picture_gives_a_prompt(user):
    """Caption and phrases, the negative prompt, what they are near, and how long they are."""
    user.upload(CASTLE)
    user.element("with-negative", "input").check()
    user.generate()
    assert user.value("prompt").startswith("a purple castle in the snow at night, ")
    assert "pixel art" in user.value("prompt")
    assert "two red cats on a beach" in user.value("negative")
    similarity = user.element("similarity")
    expect(similarity).to_contain_text(re.compile(r"prompt 0\.\d{3}, negative prompt -?0\.\d{3}"))
    for name in ("prompt-count", "negative-count"):
        expect(user.element(name)).to_contain_text(re.compile(r"\b[1-9]\d?/75 tokens"))
    listed = phrases_of(user)
    assert {"pixel art", "at night"} <= set(listed)
    expect(user.element("phrases", "label").first).to_contain_text(re.compile(r"· \w+ [+-]0\.\d"))
    assert LISTS["negative"][0] in phrases_of(user, "negative-phrases")
    expect(user.message()).to_contain_text("Demo models are in use")


def test_the_token_count_follows_what_is_written(user):
    """The count is that of the box, which anybody may edit, as soon as another one is shown."""
    for words in (3, 50, 4, 40, 5, 30, 6, 20):
        user.write("prompt", ", ".join(["castle"] * words))
        expect(user.element("prompt-count")).to_contain_text(f" {2 * words - 1}/75 tokens")


def test_a_count_that_warns_moves_nothing(user):
    """Else a click on what stands below is lost, where the button moves away from under it."""
    tops = []
    for words in (74, 75, 76):  # as many lines; the last one has a token too many
        text = " ".join(["a"] * words)
        user.write("prompt", text)
        counted(user, text)
        tops.append(top_of(user, "negative"))
    assert tops[1] == tops[2]


def test_progress_is_shown_and_stop_keeps_what_was_found(user, shut):
    """A bar with the step and the time left; Stop ends the run within a second."""
    start_a_search(user)
    bar = user.element("progress").locator(".cliext-progress")
    step = re.compile(r"Searching · \d+ of \d+ · (\d+ min )?\d+ s left")
    expect(bar).to_contain_text(step)
    assert user.value("prompt") == ""
    expect(user.element("generate")).to_be_disabled()
    asked = time.monotonic()
    user.element("stop").click()
    expect(user.element("generate")).to_be_enabled()
    expect(user.message()).to_contain_text("Stopped: this is what had been found")
    assert time.monotonic() - asked < 30  # a second, and what a busy machine takes
    assert user.value("prompt").startswith("a purple castle in the snow at night")
    expect(bar).to_have_count(0)


def test_a_click_takes_exactly_one_phrase_out_and_another_puts_it_back(user):
    """What the user wrote meanwhile stays, and the phrase comes back in its place."""
    user.upload(CASTLE)
    user.generate()
    found = user.value("prompt")
    phrase = user.phrase("pixel art")
    phrase.uncheck()
    without = found.replace(", pixel art", "", 1)
    expect(user.box("prompt")).to_have_value(without)
    written = "my own, " + without + ", (hill:1.2)"
    user.write("prompt", written)
    phrase.check()
    whole = "my own, " + found + ", (hill:1.2)"
    expect(user.box("prompt")).to_have_value(whole)
    expect(user.element("score")).to_be_visible()
    counted(user, whole)  # the answer to the last change has come: nothing moves any more
    user.element("score").click()
    expect(user.element("similarity")).to_contain_text(
        re.compile(r"Similarity of picture and prompt: -?0\.\d{3}")
    )


def test_what_is_changed_as_soon_as_a_run_has_ended_stays(context):
    """Gradio shows the last step of a run once more."""
    # Gradio 4 makes no lock for its queue in a thread whose loop another test has taken away.
    asyncio.set_event_loop(asyncio.new_event_loop())
    changed = threading.Event()

    def run() -> Iterator[tuple[str, Any]]:
        yield "begun", gr.update()
        yield "over", gr.update(choices=["fog", "hill"], value=["fog", "hill"])
        assert changed.wait(browser.PATIENCE / 1000)

    with gr.Blocks(analytics_enabled=False) as blocks:
        button = gr.Button("Generate", elem_id="cliext-generate")
        gr.Button("Stop", elem_id="cliext-stop", interactive=False)
        prompt = gr.Textbox(label="Prompt", interactive=True, elem_id="cliext-prompt")
        phrases = gr.CheckboxGroup(
            [], label="Phrases", interactive=True, elem_id="cliext-phrases"
        )
        components.on(button.click, run, [], [prompt, phrases])
    # A page of Gradio's own, which asks others for its fonts.
    elsewhere = browser.patient(context.browser.new_context())
    elsewhere.route(is_foreign, lambda route: route.abort())
    page = elsewhere.new_page()
    user = Driver(page)
    with posting.launched(blocks) as (_, address):
        page.goto(address)
        with user.running():
            user.element("generate").click()
            expect(user.box("prompt")).to_have_value("over")
            user.write("prompt", "my own")
            user.phrase("fog").uncheck()
            changed.set()
        assert user.value("prompt") == "my own"
        assert not user.phrase("fog").is_checked()
        assert user.phrase("hill").is_checked()
        elsewhere.close()


def test_clicks_that_come_quickly_all_count(user):
    """Though some come while the answer to another is on its way; the token count follows too."""
    user.upload(CASTLE)
    user.generate()
    found = user.value("prompt")
    quick = [place for place, text in enumerate(phrases_of(user)) if "(" not in text][:3]
    texts = [phrases_of(user)[place] for place in quick]
    for place in quick:
        # After the first click a button comes above them: a mouse would be let go beside the box.
        user.element("phrases", "label").nth(place).locator("input").dispatch_event("click")
    for text in texts:
        assert f", {text}" in found
        found = found.replace(f", {text}", "", 1)
    expect(user.box("prompt")).to_have_value(found)
    counted(user, found)


def test_brackets_of_phrases_are_escaped_in_our_boxes(user):
    """The WebUIs would read plain brackets as weights."""
    user.upload(CASTLE)
    user.element("with-negative", "input").check()
    user.write("caption", "a [big] castle")
    user.generate()
    assert user.value("prompt").startswith(r"a \[big\] castle, ")
    assert r"castle \(1900\)" in user.value("prompt")
    assert r"two red cats on a beach \(at sunset\)" in user.value("negative")
    assert "castle (1900)" in phrases_of(user)
    user.phrase("castle (1900)").uncheck()
    expect(user.box("prompt")).not_to_have_value(re.compile("1900"))


def test_negative_mode_writes_the_negative_box_only(user):
    """Its text is one for the negative field."""
    user.upload(CASTLE)
    user.mode("negative")
    user.generate()
    assert "two red cats on a beach" in user.value("negative")
    assert user.value("prompt") == ""
    expect(user.element("phrases")).to_be_hidden()
    expect(user.element("negative-phrases")).to_be_visible()


def test_style_mode_takes_a_subject_in_place_of_a_caption(user):
    """The box of the subject is there in mode style only, in which nothing is captioned."""
    expect(user.element("subject")).to_be_hidden()
    user.upload(CASTLE)
    user.mode("style")
    expect(user.element("subject")).to_be_visible()
    expect(user.element("caption")).to_be_hidden()
    user.write("subject", "my garden")
    user.generate()
    assert user.value("prompt").startswith("my garden, ")
    assert "a purple castle" not in user.value("prompt")


def test_options_are_respected(user):
    """One flavor at most, from the chosen categories only."""
    user.upload(CASTLE)
    user.unfold_options()
    user.write("max-flavors", "1")
    user.element("categories", "label").filter(has_text="mediums").locator("input").uncheck()
    user.generate()
    assert len(phrases_of(user)) == 1
    assert not set(phrases_of(user)) & {"pixel art", "a photo", "an oil painting"}


def test_a_set_of_word_lists_chooses_the_lists(user):
    """Its line says what it is about, and the choice among all lists is there for all only."""
    user.upload(CASTLE)
    user.unfold_options()
    expect(user.element("categories")).to_be_visible()
    user.choose("vocabulary", "no artists")
    expect(user.element("categories")).to_be_hidden()
    expect(user.element("vocabulary-help")).to_contain_text("people's names")
    user.generate()
    labels = user.element("phrases", "label").all_inner_texts()
    assert labels
    assert not [label for label in labels if "· artists" in label]
    user.choose("vocabulary", "all")
    expect(user.element("categories")).to_be_visible()


def test_words_are_left_out_and_replaced(user):
    """In captions and phrases, before the search: others take the place of what is left out."""
    user.upload(CASTLE)
    user.generate()
    count = len(phrases_of(user))
    user.unfold_options()
    user.write("leave-out", "pixel art")
    user.write("replacements", "castle=fort\nsnow=ice")
    user.generate()
    assert user.value("prompt").startswith("a purple fort in the ice at night")
    assert "pixel art" not in user.value("prompt")
    assert abs(len(phrases_of(user)) - count) <= 2
    user.write("replacements", "castle")
    user.run()
    expect(user.message().locator("[role=alert]")).to_contain_text("OLD=NEW")


def test_ctrl_enter_generates_with_what_was_just_written(user):
    """Also from inside a box, whose last words count."""
    user.upload(CASTLE)
    user.box("caption").fill("a tower of my own")
    with user.running():
        user.box("caption").press("Control+Enter")
    assert user.value("prompt").startswith("a tower of my own, ")


def test_generate_is_reached_by_keyboard(user):
    """Tab leads there, and Enter presses it."""
    user.upload(CASTLE)
    user.element("tabs").locator("[role=tab], :scope > .tab-nav > button").first.focus()
    for _ in range(20):
        user.page.keyboard.press("Tab")
        if user.evaluate("document.activeElement.id") == "cliext-generate":
            break
    expect(user.element("generate")).to_be_focused()
    with user.running():
        user.page.keyboard.press("Enter")
    assert user.value("prompt")


def test_copy_buttons_fill_the_clipboard(user):
    """Exactly what stands in the box, also after it was edited."""
    user.write("prompt", "(castle:1.2), hill")
    user.write("negative", r"fog \(thick\)")
    for name, text in (("prompt", "(castle:1.2), hill"), ("negative", r"fog \(thick\)")):
        user.element(f"copy-{name}").click()
        user.page.wait_for_function(
            "async text => await navigator.clipboard.readText() === text", arg=text
        )


def test_unload_gives_the_memory_back(user):
    """The line says how much, and that nothing is left afterwards."""
    user.upload(CASTLE)
    user.generate()
    user.element("unload").click()
    expect(user.message()).to_contain_text(re.compile(r"Unloaded: \d+ MB given back"))
    user.element("unload").click()
    expect(user.message()).to_contain_text("Nothing was loaded.")


# What a picture carries


def test_a_pictures_own_generation_data_is_shown_and_can_be_used(user, tmp_path):
    """It comes first, before any model runs, and fills both boxes; other pictures hide it."""
    data = (
        "a fort, (hill:1.2)\nNegative prompt: fog, rain\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
    )
    info = PngInfo()
    info.add_text("parameters", data)
    path = tmp_path / "made.png"
    Image.new("RGB", (64, 64), "gray").save(path, pnginfo=info)
    expect(user.element("embedded")).to_be_hidden()
    user.upload(path)
    expect(user.box("parameters")).to_have_value(data)
    user.element("use-parameters").click()
    expect(user.box("prompt")).to_have_value("a fort, (hill:1.2)")
    expect(user.box("negative")).to_have_value("fog, rain")


# What can go wrong


def test_an_error_is_a_sentence_and_the_prompt_stays(user):
    """No picture, an unknown model, a model that can't be had, a number that is none."""
    user.write("prompt", "my own words")
    user.run()
    error = user.message().locator("[role=alert]")
    expect(error).to_contain_text("Put a picture into the box first.")
    user.upload(CASTLE)
    user.box("backbones").fill("ViT-L-14/opena")  # what is shown counts, without Enter too
    user.run()
    expect(error).to_contain_text("Did you mean ViT-L-14/openai")
    user.name("backbones", "ViT-B-32/openai")
    user.run()
    expect(error).to_contain_text(re.compile("weights of ViT-B-32/openai are not on this machine"))
    user.name("backbones", "demo")
    user.unfold_options()
    user.write("max-flavors", "many")
    user.run()
    expect(error).to_contain_text("Maximum flavors must be a whole number, not 'many'.")
    expect(user.element("generate")).to_be_enabled()
    assert user.value("prompt") == "my own words"
    assert user.value("negative") == ""


def test_the_target_generator_chooses_the_backbones(user):
    """A generator that reads with others than the chosen ones brings a warning."""
    warning = user.element("fit").locator(".cliext-warning")
    user.choose("generator", "SDXL")
    expect(user.box("backbones")).to_have_value("ViT-L-14/openai + ViT-bigG-14/laion2b_s39b_b160k")
    expect(warning).to_have_count(0)
    user.name("backbones", "ViT-H-14/laion2b_s32b_b79k")
    expect(warning).to_contain_text("SDXL reads a prompt with")
    user.choose("generator", "SD 2.x")
    expect(warning).to_have_count(0)


# The other tabs


def test_analyze_draws_bars_and_scores_own_texts(user):
    """A card for each category, its nearest phrase with the longest bar; own texts in order."""
    user.upload(CASTLE)
    user.tab("Analyze")
    expect(user.element("analyze-image", "img").first).to_be_visible()
    user.element("analyze").click()
    cards = user.element("cards").locator("section")
    expect(cards).to_have_count(5)
    assert [title.lower() for title in cards.locator("h4").all_inner_texts()] == [
        "artists", "flavors", "mediums", "movements", "sites",
    ]
    expect(cards.nth(2).locator(".cliext-row").first).to_contain_text(
        re.compile(r"pixel art\s*0\.\d{3}")
    )
    widths = cards.nth(2).locator(".cliext-bar").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    assert widths[0] > 100
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    user.write("texts", "two pink umbrellas\n\na purple castle in the snow\n<b>fog</b>")
    user.element("compare").click()
    rows = user.element("scores").locator(".cliext-phrase")
    expect(rows).to_have_count(3)
    assert rows.first.inner_text() == "a purple castle in the snow"
    assert "<b>fog</b>" in rows.all_inner_texts()
    user.write("texts", "")
    user.element("compare").click()
    expect(user.element("analyze-message")).to_contain_text("Write one or more texts")


def test_models_lists_the_catalog_and_what_is_loaded(user):
    """With size and whether it is here; Unload empties the list of the loaded ones."""
    user.upload(CASTLE)
    user.generate()
    user.tab("Models")
    tables = user.element("models-tables")
    row = tables.locator("tr").filter(has_text="ViT-bigG-14/laion2b_s39b_b160k")
    expect(row).to_contain_text("10.2 GB")
    expect(row).to_contain_text("SDXL")
    expect(tables).to_contain_text("blip-large")
    loaded = user.element("loaded")
    expect(loaded).to_contain_text(re.compile(r"Loaded now: \d+ MB"))
    expect(loaded.locator("tbody tr")).to_have_count(2)
    user.element("models-unload").click()
    expect(loaded).to_contain_text("No model is loaded.")
    user.element("download").click()
    expect(user.element("models-message")).to_contain_text("Choose a model first.")


# Looks

CONTRASTS = """
() => {
    // The browser itself says what a color is, whatever form it is written in.
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const painter = canvas.getContext("2d", {willReadFrequently: true});
    const read = (color) => {
        painter.clearRect(0, 0, 1, 1);
        painter.fillStyle = color;
        painter.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = painter.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) =>
        [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const behind = (element) => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) {
            const style = getComputedStyle(one);
            layers.push(read(style.backgroundColor));
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    };
    const light = ([r, g, b]) => [r, g, b]
        .map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const found = {};
    const kinds = ".cliext-note, .cliext-warning, .cliext-error, .cliext-card h4, " +
        ".cliext-phrase, .cliext-score, .cliext-progress span, .cliext-table td, " +
        ".cliext-table th, #cliext-prompt textarea";
    for (const element of document.querySelectorAll(kinds)) {
        if (!element.offsetParent) { continue; }
        const backs = [behind(element)];
        const done = element.parentElement.querySelector(".cliext-progress-done");
        if (done) {
            const style = getComputedStyle(done);
            const veil = read(style.backgroundColor);
            veil[3] *= Number(style.opacity);
            backs.push(over(veil, backs[0]));
        }
        for (const back of backs) {
            const front = over(read(getComputedStyle(element).color), back);
            const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
            const kind = `${element.tagName} ${element.className}`;
            const ratio = (high + 0.05) / (low + 0.05);
            found[kind] = Math.min(found[kind] ?? 99, ratio);
        }
    }
    return found;
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read(user, address, shut, theme):
    """Notes, warnings, errors, cards, tables and progress stand out by 4.5 to 1 or more."""
    user.open(f"{address}/?__theme={theme}")
    dark = user.evaluate("document.body.matches('.dark') || !!document.querySelector('.dark')")
    assert dark == (theme == "dark")
    seen: dict[str, float] = {}

    def look() -> None:
        for kind, ratio in user.evaluate(CONTRASTS).items():
            seen[kind] = min(ratio, seen.get(kind, ratio))

    user.run()
    expect(user.message().locator("[role=alert]")).to_be_visible()
    user.choose("generator", "SD 2.x")
    expect(user.box("backbones")).to_have_value(re.compile("ViT-H-14"))
    user.name("backbones", "ViT-L-14/openai")
    expect(user.element("fit").locator(".cliext-warning")).to_be_visible()
    look()
    user.name("backbones", "demo")
    start_a_search(user)
    expect(user.element("progress").locator(".cliext-progress")).to_be_visible()
    look()
    user.element("stop").click()
    user.ended()
    look()
    user.tab("Analyze")
    expect(user.element("analyze-image", "img").first).to_be_visible()
    user.element("analyze").click()
    expect(user.element("cards").locator("section").first).to_be_visible()
    look()
    user.tab("Models")
    expect(user.element("models-tables").locator("table").first).to_be_visible()
    look()
    words = " ".join(seen)
    for kind in ("note", "warning", "error", "phrase", "score", "SPAN", "H4", "TD", "TEXTAREA"):
        assert kind in words
    assert {kind: ratio for kind, ratio in seen.items() if ratio < 4.5} == {}


def test_nothing_has_to_be_scrolled_sideways(user):
    """Neither on a phone nor on wide screens, in any tab, with an answer shown."""
    user.upload(CASTLE)
    user.element("with-negative", "input").check()
    user.generate()
    user.unfold_options()
    for tab, ready in (("Prompt", "generate"), ("Analyze", "analyze"), ("Models", "download")):
        user.tab(tab)
        expect(user.element(ready)).to_be_visible()
        if tab == "Analyze":
            expect(user.element("analyze-image", "img").first).to_be_visible()
            user.element("analyze").click()
            expect(user.element("cards").locator("section").first).to_be_visible()
        for width in (1920, 1280, 390):
            user.page.set_viewport_size({"width": width, "height": 900})
            expect(user.element(ready)).to_be_in_viewport(ratio=0)
            user.page.wait_for_function(
                "width => document.documentElement.scrollWidth <= width", arg=width
            )
            box = user.element(ready).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_the_page_asks_nobody_else(user, context, foreign_hosts):
    """All that it needs comes from this machine, and its policy keeps it from asking others."""
    user.upload(CASTLE)
    user.generate()
    user.evaluate(ASK, "elsewhere.example")
    assert foreign_hosts == set()
    page = context.new_page()  # one without a policy, whose asking is noticed
    page.evaluate(ASK, "elsewhere.example")
    page.evaluate(SOCKET, "sockets.example")
    page.close()
    assert foreign_hosts == {"elsewhere.example", "sockets.example"}
    style = Path(browser.REPOSITORY, "style.css").read_text(encoding="utf-8")
    assert "http" not in style
