"""The page that runs alone answers this machine's own pages: asked by hand, and from Chromium."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clip_interrogator_ext.faces.cli.own_origin import OwnOrigin
from tests import browser
from tests.browser import CASTLE
from tests.posts import PREFIX, Poster
from tests.test_api import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Response

pytestmark = pytest.mark.hosts

HOST = "127.0.0.1:7870"
OWN = {"host": HOST, "origin": f"http://{HOST}"}


# By hand


def answered(headers: dict[str, str], *, kind: str = "http", **more: Any) -> tuple[bool, Any]:
    """Ask the page; say whether it was reached, and return what was sent first."""
    reached: list[str] = []
    sent: list[dict[str, Any]] = []

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        reached.append(kind)
        start = "http.response.start" if kind == "http" else "websocket.accept"
        await send({"type": start, "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    method = {"method": "POST"} if kind == "http" else {}
    scope = {"type": kind, "path": "/", "headers": encoded, **method, **more}
    asyncio.run(OwnOrigin(page)(scope, receive, send))
    return bool(reached), sent[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("host", "own"), [
    ("127.0.0.1", True), ("127.0.0.1:7870", True), ("localhost", True), ("localhost:80", True),
    ("", False), ("evil.example", False), ("evil.example:7870", False),
    ("localhost.evil.example", False), ("127.0.0.1.evil.example:7870", False),
    ("evil-localhost", False), ("evil.example@127.0.0.1", False),
    # Where nothing listens, or whoever is there has led a name of another's to it.
    ("[::1]", False), ("[::1]:7870", False), ("0.0.0.0:7870", False), ("127.0.0.2", False),
    ("2130706433", False), ("localhost.", False),
])
def test_only_this_machines_names_are_answered(kind, host, own):
    """A name of another's that leads here is refused, whatever else the request says."""
    for headers in ({}, {"origin": f"http://{host}"}, {"sec-fetch-site": "same-origin"}):
        reached, first = answered({"host": host, **headers}, kind=kind)
        assert reached is own
        if not own:
            assert first["type"] in ("http.response.start", "websocket.close")
            assert first.get("status", 403) == 403
            assert first.get("code", 1008) == 1008


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_names_no_host_is_refused(kind):
    """As HTTP/1.0 allows it."""
    assert not answered({}, kind=kind)[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("headers", "own"), [
    ({}, True), ({"origin": f"http://{HOST}"}, True),
    ({"sec-fetch-site": "same-origin"}, True), ({"sec-fetch-site": "none"}, True),
    ({"origin": "http://127.0.0.1:7871"}, False), ({"origin": "http://localhost:7870"}, False),
    ({"origin": "https://evil.example"}, False), ({"origin": "null"}, False),
    ({"sec-fetch-site": "same-site"}, False), ({"sec-fetch-site": "cross-site"}, False),
    ({"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, False),
], ids=str)
def test_only_its_own_pages_are_answered(kind, headers, own):
    """Programs that are no browsers say nothing of a site."""
    assert answered({"host": HOST, **headers}, kind=kind)[0] is own


def test_a_link_from_elsewhere_leads_to_the_page_and_does_nothing():
    """Whoever follows one looks at the page; nothing can be posted by it, nor put into a frame."""
    led = {
        "host": HOST, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert answered(led, method="GET")[0]
    assert not answered(led, method="POST")[0]
    assert not answered(led | {"sec-fetch-dest": "iframe"}, method="GET")[0]
    assert not answered(led | {"sec-fetch-mode": "no-cors"}, method="GET")[0]
    assert not answered(led, kind="websocket")[0]
    assert not answered(led | {"host": "evil.example"}, method="GET")[0]


@pytest.mark.parametrize("path", ["/", "/interrogator/status", "/docs"])
def test_no_page_may_frame_ours(path):
    """Nor load from elsewhere, but for the page of the routes, which has its script from there."""
    _, first = answered(OWN, path=path)
    sent = {name.decode(): value.decode() for name, value in first["headers"]}
    policy = sent["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert ("https:" in policy) is (path == "/docs")
    assert sent["x-content-type-options"] == "nosniff"


def test_what_is_neither_asked_nor_opened_passes():
    """As the program's own start and end."""
    assert answered({}, kind="lifespan")[0]


# From Chromium

EVIL = "evil.example"

# Whatever a page can send: each ask by every kind of content, with and without asking before.
ATTACK = """async ({target, asks, wait}) => {
    const read = [];
    const ended = (promise) => Promise.race([
        promise, new Promise((done) => setTimeout(done, wait, null)),
    ]);
    const fetched = async (path, options) => {
        try {
            const answer = await ended(fetch(target + path, options));
            if (answer && answer.type !== "opaque") read.push(`${answer.status} ${path}`);
        } catch {}
    };
    for (const {path, method, body} of asks) {
        const text = JSON.stringify(body);
        const form = new FormData();
        form.append("files", new File([text], "a.txt"));
        const kinds = [
            ["text/plain", text], ["application/json", text],
            ["application/x-www-form-urlencoded", text], [null, form],
            [null, new Blob([text])],
        ];
        await Promise.all(["cors", "no-cors"].flatMap((mode) => kinds.map(([type, content]) => {
            const headers = type ? {"Content-Type": type} : {};
            return fetched(path, {method, mode, headers, body: content, credentials: "include"});
        })));
        navigator.sendBeacon(target + path, text);
        // A form that is no form: its text is JSON.
        for (const enctype of ["text/plain", "multipart/form-data"]) {
            const frame = document.createElement("iframe");
            frame.name = `frame${Math.random()}`;
            const form = document.createElement("form");
            Object.assign(form, {
                method: "post", action: target + path, target: frame.name, enctype,
            });
            const field = document.createElement("input");
            field.name = text.slice(0, -1) + ',"x":"';
            field.value = '"}';
            form.append(field);
            document.body.append(frame, form);
            form.submit();
        }
    }
    for (const {path, body} of asks.filter(({path}) => path.endsWith("/queue/join"))) {
        await ended(new Promise((done) => {
            const socket = new WebSocket(target.replace("http", "ws") + path);
            socket.onmessage = ({data}) => {
                read.push(data);
                const {msg} = JSON.parse(data);
                if (msg === "send_hash" || msg === "send_data") socket.send(JSON.stringify(body));
                if (msg === "process_completed") done();
            };
            socket.onerror = socket.onclose = done;
        }));
        const session = `?session_hash=${body.session_hash}`;
        await ended(new Promise((done) => {
            const events = new EventSource(target + path.replace("join", "data") + session);
            events.onmessage = ({data}) => {
                read.push(data);
                if (/process_completed|close_stream/.test(data)) { events.close(); done(); }
            };
            events.onerror = () => { events.close(); done(); };
        }));
    }
    await fetched("/interrogator/status", {});
    await fetched("/config", {});
    return read;
}"""


class Machine:
    """The page of a process, and what on the disk tells that something was done."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.poster = Poster(address)
        self.lists, self.photos = folder / "lists", folder / "photos"
        self._home = folder / "home"
        self._image = CASTLE.read_bytes()

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask a route as a program does."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.address}/interrogator/{path}", body and json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())

    def load(self) -> None:
        """Have the networks loaded, which makes no vectors of lists."""
        image = base64.b64encode(self._image).decode()
        self.ask("similarity", {"image": image, "clip_model_name": "demo", "texts": ["a fox"]})

    def done(self) -> dict[str, Any]:
        """Return what has been done so far, once nothing goes on."""
        wait_until(lambda: not self.ask("status")["runs"])
        ended = {"done", "stopped", "failed"}
        wait_until(lambda: {one["state"] for one in self.ask("batch")} <= ended)
        return {
            "loaded": bool(self.ask("status")["loaded"]),
            "batches": bool(self.ask("batch")),
            "texts": [path.name for path in self.photos.glob("*.txt")] != [],
            "vectors": any(self._home.rglob("*.safetensors")),
            "lists": sorted(path.stem for path in self.lists.glob("*.txt")),
        }

    def asks(self) -> list[dict[str, Any]]:
        """Return what a page may ask that would be seen: by routes, and by Gradio's own ways."""
        demo = {"clip_model_name": "demo", "captioner": "demo", "mode": "classic"}
        routes = [
            ("prompt", {"image": base64.b64encode(self._image).decode(), **demo}),
            ("interrupt", {}), ("unload", {}), ("batch", {"input": str(self.photos), **demo}),
        ]
        asked = [
            {"path": f"/interrogator/{name}", "method": "POST", "body": body}
            for name, body in routes
        ]
        for name, given in (
            ("generate", {"image": self.poster.image(self._image), "mode": "classic"}),
            ("lists-delete", {"lists_chosen": "mine"}),
            ("lists-save", {"lists_name": "theirs", "lists_text": "a fox"}),
            ("models-unload", {}),
        ):
            number, values = self.poster.event(name, "click", **given)
            for path in ("run/predict", "queue/join"):
                body = {"data": values, "fn_index": number, "session_hash": f"{name}-{path[:3]}"}
                asked.append({"path": f"{PREFIX}/{path}", "method": "POST", "body": body})
        return asked


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    """A page with a list of one's own, and pictures beside it."""
    lists, photos = tmp_path / "lists", tmp_path / "photos"
    for folder in (lists, photos):
        folder.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "negative", "sites", "mine"):
        (lists / f"{name}.txt").write_text("fog\nmist\n", encoding="utf-8")
    (photos / "a.jpg").write_bytes(CASTLE.read_bytes())
    cache = {"CLIP_INTERROGATOR_EXT_CACHE": str(tmp_path / "home" / "cache")}
    with browser.served(
        tmp_path, ["--mode", "fast", "--lists-dir", str(lists)], cache
    ) as address:
        yield Machine(address, tmp_path)


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of another server on this machine, with pages that are empty."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            inner = "<body></body>"
            frame = f'<iframe id="inner" sandbox="allow-scripts allow-forms" srcdoc="{inner}">'
            self.wfile.write(f"<body>{frame}</iframe></body>".encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """A browser in which a name of another's leads to this machine."""
    with browser.launched(f"--host-resolver-rules=MAP {EVIL} 127.0.0.1") as chromium:
        yield chromium


def new_page(chromium: Browser) -> Page:
    """Return a page that waits for a slow machine."""
    return browser.patient(chromium.new_context()).new_page()


def statuses_of(page: Page, address: str) -> list[tuple[int, str]]:
    """Return a list that is filled with what the page is answered by an address."""
    seen: list[tuple[int, str]] = []

    def note(response: Response) -> None:
        if response.url.startswith(address):
            seen.append((response.status, response.url))

    page.on("response", note)
    return seen


@browser.needs_chromium
def test_another_sites_page_starts_nothing(machine, elsewhere, chromium):
    """From another port, another name, a frame without a site, and a name that leads here."""
    machine.load()
    before, asks = machine.done(), machine.asks()
    assert before["loaded"]
    assert not before["vectors"]
    given = {"target": machine.address, "asks": asks, "wait": browser.PATIENCE}
    places = [(f"http://127.0.0.1:{elsewhere}", 0), (f"http://localhost:{elsewhere}", 0),
              (f"http://127.0.0.1:{elsewhere}", 1)]
    for place, frame in places:
        page = new_page(chromium)
        statuses = statuses_of(page, machine.address)
        page.goto(place)
        assert page.frames[frame].evaluate(ATTACK, given) == []
        end = time.monotonic() + 120
        while len(statuses) <= 6 * len(asks):
            assert time.monotonic() < end
            page.wait_for_timeout(50)
        assert {status for status, _ in statuses} == {403}
        assert machine.done() == before
        page.close()
    page = new_page(chromium)
    port = machine.address.rpartition(":")[2]
    led = page.goto(f"http://{EVIL}:{port}/")
    assert led is not None
    assert led.status == 403
    there = {**given, "target": f"http://{EVIL}:{port}"}
    assert {said[:3] for said in page.evaluate(ATTACK, there)} == {"403"}
    assert machine.done() == before
    page.close()
    # The same of our own page does all of it.
    page = new_page(chromium)
    page.goto(machine.address)
    page.evaluate(ATTACK, given)
    wanted = {
        "batches": True, "texts": True, "vectors": True,
        "lists": sorted({*before["lists"], "theirs"} - {"mine"}),
    }
    # Some of it may not have begun yet; whether models stay loaded is a matter of chance.
    wait_until(lambda: wanted.items() <= machine.done().items())
