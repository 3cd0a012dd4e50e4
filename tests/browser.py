"""The page in headless Chromium: the server that it is asked from, and a user's hands and eyes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as TooLate

from tests import held_page

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES = REPOSITORY / "clip_interrogator_ext" / "models" / "demo" / "pictures"
CASTLE = PICTURES / "a-purple-castle-in-the-snow-at-night-pixel-art.jpg"
PATIENCE = 120_000  # milliseconds, on a slow machine
TRIES = 6
REQUIRED = "CI_REQUIRES_BROWSER"

expect.set_options(timeout=PATIENCE)

# Notes what the page asks of Gradio, and when it has the whole answer: under Gradio 3 the socket of
# an ask is closed then, later ones get a message. "Calm" counts the frames since all was answered.
WATCH = r"""(() => {
    const asks = [], ended = new Set();
    const begin = (number) => {
        const ask = {number, over: false};
        asks.push(ask);
        return ask;
    };
    const fetching = window.fetch;
    window.fetch = async (place, options) => {
        if (!/\/queue\/join|\/run\/predict/.test(place)) {
            return fetching(place, options);
        }
        const ask = begin(JSON.parse(options.body).fn_index);
        try {
            const answer = await fetching(place, options);
            ask.id = (await answer.clone().json().catch(() => ({}))).event_id;
            ask.over = !ask.id || ended.has(ask.id);
            return answer;
        } catch (error) {
            ask.over = true;
            throw error;
        }
    };
    const parse = JSON.parse;
    JSON.parse = (...given) => {
        const told = parse(...given);
        if (told?.msg === "process_completed") {
            ended.add(told.event_id);
            asks.filter(({id}) => id && id === told.event_id).forEach((ask) => ask.over = true);
        }
        return told;
    };
    window.WebSocket = class extends WebSocket {
        constructor(...given) {
            super(...given);
            this.ask = begin(null);
            this.addEventListener("close", () => this.ask.over = true);
        }
        send(text) {
            this.ask.number = parse(text).fn_index;
            super.send(text);
        }
    };
    window.cliext_calm = 0;
    const look = () => {
        window.cliext_calm = asks.every(({over}) => over) ? window.cliext_calm + 1 : 0;
        requestAnimationFrame(look);
    };
    look();
    // How often a button has been answered, or is about to be.
    window.cliext_asked = (name) => {
        const {components, dependencies} = window.gradio_config;
        const {id} = components.find(({props}) => props.elem_id === name);
        const place = dependencies.findIndex(
            ({targets, backend_fn}) => backend_fn && targets.flat().includes(id)
        );
        const number = dependencies[place].id ?? place;
        return asks.filter((ask) => ask.number === number).length;
    };
})()"""
CALM = 5  # frames, in which the page itself would ask on


def chromium() -> str | None:
    """Return the program of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


needs_chromium = pytest.mark.skipif(
    chromium() is None and os.environ.get(REQUIRED) != "1",
    reason="Chromium is not installed; the page is tested in it",
)


@contextmanager
def launched(*arguments: str) -> Iterator[Browser]:
    """Start Chromium without a window, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-background-networking", *arguments,
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


def patient(context: BrowserContext) -> BrowserContext:
    """Have a browser's pages wait for a slow machine."""
    context.set_default_timeout(PATIENCE)
    context.set_default_navigation_timeout(PATIENCE)
    return context


@contextmanager
def free_port() -> Iterator[int]:
    """Give a port at which nobody listens; meanwhile no other program is given it."""
    with socket.socket() as taken:
        # Whoever says so too may listen beside it, as it never listens itself.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def served(
    folder: Path,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    ending: signal.Signals = signal.SIGINT,
    gate: Path | None = None,
) -> Iterator[str]:
    """Serve the page from a process of its own, with its caches in a folder; give its address.

    Where there is a gate, its searches wait at it.
    """
    homes = {
        name: str(folder / "home")
        for name in (
            "HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CLIP_INTERROGATOR_EXT_DATA",
        )
    }
    program = "clip_interrogator_ext" if gate is None else held_page.__name__
    log = folder / "server.log"
    with log.open("wb") as output, free_port() as port:
        process = subprocess.Popen(
            [sys.executable, "-m", program, "page", "--demo", "--port", str(port), *arguments],
            cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **homes,
                 held_page.GATE: str(gate), **(environment or {})},
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(process, address, log)
            yield address
        finally:
            process.send_signal(ending)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"The page did not end:\n{_read(log)}") from None


@pytest.fixture(scope="module", name="chromium")
def chromium_of_a_module() -> Iterator[Browser]:
    """A browser for all tests of a file."""
    with launched() as chromium:
        yield chromium


@pytest.fixture(name="page")
def page_without_failures(chromium: Browser) -> Iterator[Page]:
    """A page of a browser that remembers nothing, in which no script fails."""
    context = patient(chromium.new_context(viewport={"width": 1280, "height": 1000}))
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert not failures


@pytest.fixture(scope="module", name="gate")
def gate_of_a_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder at which the searches of a file's page wait, once it is there."""
    return tmp_path_factory.mktemp("gate") / "gate"


@pytest.fixture(name="shut")
def gate_that_is_shut(gate: Path) -> Iterator[Path]:
    """The gate, shut until the test ends; each file that is put into it lets a search through."""
    gate.mkdir()
    yield gate
    open_gate(gate)


def open_gate(gate: Path) -> None:
    """Let all searches through."""
    shutil.rmtree(gate, ignore_errors=True)


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> Path:
    """Write word lists into a folder, which is made, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=30):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise AssertionError(f"The page did not start:\n{_read(log)}")


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


class Driver:
    """A user at the page: does by mouse and keyboard, and reads what is shown."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.add_init_script(WATCH)

    def element(self, name: str, inside: str = "") -> Locator:
        """Return an element of the page by the last part of its id, or what is inside it."""
        outer = self.page.locator(f"#cliext-{name}").first  # Gradio 3 gives an HTML's id twice
        return outer.locator(inside) if inside else outer

    def open(self, address: str) -> Driver:
        """Open the page, and wait until it can be used."""
        self.page.goto(address)
        expect(self.element("generate")).to_be_visible()
        return self

    def tab(self, name: str) -> None:
        """Choose a tab; Gradio 6 folds into a list those for which a narrow page has no room."""
        # Gradio 3 gives the buttons neither id nor role.
        tabs = self.element("tabs")
        buttons = tabs.locator("[role=tab], :scope > .tab-nav > button").filter(has_text=name)
        folded = tabs.locator(":scope > .tab-wrapper .overflow-dropdown button")
        expect(buttons.or_(folded.filter(has_text=name)).first).to_be_attached()
        for left in reversed(range(TRIES)):
            try:
                if buttons.count():
                    buttons.first.click(timeout=PATIENCE / TRIES)
                else:
                    menu = tabs.locator(":scope > .tab-wrapper .overflow-menu > button")
                    menu.click(timeout=PATIENCE / TRIES)
                    folded.filter(has_text=name).click(timeout=PATIENCE / TRIES)
                return
            except TooLate:  # it was folded, or unfolded, meanwhile
                if not left:
                    raise

    def upload(self, picture: Path, name: str = "image") -> None:
        """Put a picture into its box."""
        self.element(name, "input[type=file]").first.set_input_files(picture)
        expect(self.element(name, "img").first).to_be_visible()

    def upload_files(self, files: Sequence[Path], name: str) -> None:
        """Put files into a box for several, and wait until they are there.

        Gradio 3 forgets an upload when another answer comes meanwhile: then they are put there
        again, as a user would.
        """
        there = self.element(name, "a[href*='file=']")
        box = self.element(name, "input[type=file]")
        tries = 3 if gradio.__version__.startswith("3.") else 1
        for left in reversed(range(tries)):
            box.set_input_files(files)
            try:
                expect(there).to_have_count(len(files), timeout=PATIENCE / 2)
                return
            except AssertionError:
                if not left:
                    raise
                self.element(name, "button").first.click()  # empties the box

    def box(self, name: str) -> Locator:
        """Return what is written in."""
        return self.element(name, "textarea, input").first

    def value(self, name: str) -> str:
        """Return what stands in a box."""
        return self.box(name).input_value()

    def write(self, name: str, text: str) -> None:
        """Write into a box, and leave it."""
        box = self.box(name)
        box.fill(text)
        box.press("Tab")

    def choose(self, name: str, choice: str) -> None:
        """Choose from a list that unfolds."""
        self.box(name).click()
        self.page.locator(f'[data-testid=dropdown-option][aria-label="{choice}"]').first.click()

    def name(self, name: str, text: str) -> None:
        """Write a name of one's own into a box that offers others, and press Enter."""
        box = self.box(name)
        box.click()
        box.fill(text)
        box.press("Enter")

    def mode(self, name: str) -> None:
        """Choose a mode."""
        self.element("mode", "label").filter(has_text=name).locator("input").check()

    def phrase(self, text: str, name: str = "phrases") -> Locator:
        """Return the box that takes a phrase out and puts it back."""
        return self.element(name, "label").filter(has_text=text).locator("input")

    def unfold_options(self) -> None:
        """Open the folded options."""
        if not self.element("chunk-size").is_visible():
            self.element("options").locator("button, .label-wrap").first.click()
        expect(self.element("chunk-size")).to_be_visible()
        self.ended()  # what a picture has asked, and what makes the boxes, may set them

    def generate(self) -> None:
        """Press Generate, and wait for the answer."""
        self.run()
        expect(self.element("similarity")).to_contain_text("Similarity")

    def run(self) -> None:
        """Press Generate, and wait until the run has ended, with or without an answer."""
        with self.running():
            self.element("generate").click()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Wait until the run that is begun meanwhile has ended."""
        asked = "cliext_asked('cliext-generate')"
        before = self.evaluate(asked)
        yield
        self.page.wait_for_function(f"before => {asked} > before", arg=before)
        self.ended()

    def ended(self) -> None:
        """Wait until the page has been answered whatever it has asked."""
        self.evaluate("cliext_calm = 0")
        self.page.wait_for_function("calm => cliext_calm > calm", arg=CALM)
        expect(self.element("stop")).to_be_disabled()

    def message(self) -> Locator:
        """Return the line of messages."""
        return self.element("message")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Return what JavaScript gives."""
        return self.page.evaluate(script, argument)
