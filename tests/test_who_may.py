"""Who may do what: every route and every action of the page, under every login, from every site."""

from __future__ import annotations

import asyncio
import base64
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from clip_interrogator_ext.faces.api.route import Route
from clip_interrogator_ext.faces.tab import components
from clip_interrogator_ext.origins import Origins
from tests import posting
from tests.test_webui import a1111, forge  # noqa: F401 - fixtures

pytestmark = pytest.mark.hosts

API_USER, PAGE_USER = "dog:bone", ":".join(posting.WHO)
LOGINS = {
    "open": {},
    "api": {"api_auth": API_USER},
    "page": {"gradio_auth": PAGE_USER},
    "both": {"api_auth": API_USER, "gradio_auth": PAGE_USER},
}
# Those of Forge, under the versions that it pins, and AUTOMATIC1111's elsewhere.
WEBUI = "forge" if posting.VERSION == 4 else "a1111"


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}


@pytest.fixture
def webui(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The WebUI that this Gradio is of."""
    started: SimpleNamespace = request.getfixturevalue(WEBUI)
    return started


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Stand in for what actions do: names what would have been done."""
    done: list[str] = []
    guarding = components._plain

    def noting(function: Any, *, streams: bool) -> Any:
        if function is None:
            return None
        name = getattr(function, "__qualname__", repr(function))

        def note(*_values: Any) -> Any:
            done.append(name)
            raise gr.Error("done")

        def steps(*values: Any) -> Iterator[Any]:
            yield note(*values)

        is_generator = inspect.isgeneratorfunction(function)
        return guarding(steps if is_generator else note, streams=streams)

    monkeypatch.setattr(components, "_plain", noting)
    return done


@pytest.fixture
def page(webui, ran) -> gr.Blocks:
    """Our tab, as the WebUI is given it."""
    # Gradio 4 makes no lock for its queue in a thread whose loop another test has taken away.
    asyncio.set_event_loop(asyncio.new_event_loop())
    built = webui.ours("tab").build(webui.ours().service())
    posting.take_anything(built)
    assert len(posting.actions(built)) > 40  # and not an apology
    return built


def routes_of(webui: SimpleNamespace, app: Any, page: gr.Blocks | None = None) -> list[Any]:
    """Tell us that the WebUI has started; return what we have added to its app."""
    before = list(app.router.routes)
    webui.ours()._on_app_started(page, app)
    return [route for route in app.router.routes if route not in before]


# Logins


@pytest.mark.parametrize("login", LOGINS)
def test_any_login_closes_every_route(webui, monkeypatch, login):
    """All that we have added to the app, to whoever has none; the API user's opens all of it."""
    for flag, value in LOGINS[login].items():
        monkeypatch.setattr(webui.flags, flag, value)
    app = FastAPI()
    ours = routes_of(webui, app)
    answering = [route for route in ours if isinstance(route, Route)]
    watching = webui.ours("elsewhere")._Watch
    assert {type(route) for route in ours} == {Route, watching}
    client = TestClient(app)
    for route in answering:
        path = route.path.replace("{id}", "batch-1")
        for method in route.methods:
            wrong = [{}, basic("dog:cat"), basic(PAGE_USER), {"Cookie": "access-token=x"}]
            for headers in wrong:
                status = client.request(method, path, headers=headers).status_code
                assert (status == 401) == (login != "open"), (method, path)
            if "api_auth" in LOGINS[login]:
                status = client.request(method, path, headers=basic(API_USER)).status_code
                assert status != 401, (method, path)


@pytest.mark.parametrize("login", LOGINS)
def test_the_pages_login_closes_every_action(webui, page, ran, monkeypatch, login):
    """Past the queue and through it; and where only the API has a login, the page is open."""
    for flag, value in LOGINS[login].items():
        monkeypatch.setattr(webui.flags, flag, value)
    closed = "gradio_auth" in LOGINS[login]
    with posting.launched(page, login=closed) as (app, address):
        (status, *_) = [
            route for route in routes_of(webui, app, page)
            if getattr(route, "path", "").endswith("/status")
        ]
        strangers: list[dict[str, str]] = [{}]
        if closed:
            names = [f"{name}{end}" for name in ("access-token", "access-token-unsecure")
                     for end in ("", f"-{getattr(app, 'cookie_id', '')}")]
            strangers += [{"Cookie": "; ".join(f"{name}=x" for name in names)}, basic(API_USER)]
        for number, (queued, count) in posting.actions(page).items():
            for headers in strangers:
                refused = [posting.post(address, number, count, headers).status_code == 401]
                if queued:
                    posting.queue(address, number, count, headers)
                assert not closed or (all(refused) and not ran), (number, ran)
        known = {"Cookie": posting.log_in(address)} if closed else {}
        ran.clear()
        for number, (queued, count) in posting.actions(page).items():
            ask = posting.queue if queued else posting.post
            before = len(ran)
            ask(address, number, count, known)
            assert len(ran) == before + 1, number
        opened = httpx.get(f"{address}{status.path}", headers=known).status_code
        assert opened == (401 if login == "api" else 200)


# Sites

FOREIGN = [
    {"Origin": "https://example.com"}, {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
]


def test_no_action_is_done_for_a_page_of_another_site(webui, page, ran):
    """Past the queue and through it, of those that stand on the page; its own are done."""
    with posting.launched(page) as (app, address):
        routes_of(webui, app, page)
        own = {"Origin": address}
        for number, (queued, count) in posting.actions(page).items():
            foreign = FOREIGN[number % len(FOREIGN)]
            posting.post(address, number, count, foreign)
            if queued:
                posting.queue(address, number, count, foreign)
            assert not ran, number
            # Gradio 3 believes what the body says of its headers.
            lies = {"request": {"headers": {**own, "host": address.partition("//")[2]}}}
            posting.post(address, number, count, foreign, **lies)
            assert not ran, number
            (posting.queue if queued else posting.post)(address, number, count, own)
            assert len(ran) == 1, number
            ran.clear()


@pytest.mark.parametrize("flags", [
    {"cors_allow_origins": "http://a.example,https://friend.example"},
    {"cors_allow_origins": "*"},
    {"cors_allow_origins_regex": r"https://[a-z]+\.example"},
], ids=str)
def test_sites_that_the_webui_lets_in_may_ask(webui, page, ran, monkeypatch, flags):
    """As its own flags say; they are looked at as a whole."""
    for flag, value in flags.items():
        monkeypatch.setattr(webui.flags, flag, value)
    friend = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}
    app = FastAPI()
    routes_of(webui, app)
    interrupt = TestClient(app)
    assert interrupt.post("/interrogator/interrupt", headers=friend).status_code == 200
    with posting.launched(page) as (app, address):
        routes_of(webui, app, page)
        number, (queued, count) = next(iter(posting.actions(page).items()))
        (posting.queue if queued else posting.post)(address, number, count, friend)
        assert len(ran) == 1
        if "*" not in flags.values():
            other = {"Origin": "https://friend.example.com"}
            posting.post(address, number, count, other)
            assert len(ran) == 1
            refused = interrupt.post("/interrogator/interrupt", headers=other)
            assert refused.status_code == 403
            assert "--cors-allow-origins" in refused.json()["detail"]


def permissive() -> list[tuple[type, dict[str, Any]]]:
    """Return the middlewares by which Gradio lets other sites send what they like."""
    from starlette.middleware.cors import CORSMiddleware

    anybody: dict[str, Any] = {
        "allow_origins": ["*"], "allow_methods": ["*"], "allow_headers": ["*"],
    }
    found: list[tuple[type, dict[str, Any]]] = [(CORSMiddleware, anybody)]
    if posting.VERSION > 3:
        from gradio.route_utils import CustomCORSMiddleware

        found.append((CustomCORSMiddleware, {}))
    return found


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_no_route_changes_anything_for_a_page_of_another_site(webui, foreign):
    """Whatever it sends, also where Gradio's own middleware has told its browser that it may."""
    for middleware, settings in permissive():
        app = FastAPI()
        app.add_middleware(middleware, **settings)
        ours = [route for route in routes_of(webui, app) if isinstance(route, Route)]
        client = TestClient(app, base_url="http://192.168.1.5:7860")
        for route in ours:
            for method in route.methods - {"GET"}:
                path = route.path.replace("{id}", "batch-1")
                for content in ({"json": {"task": "x"}}, {"content": b""}, {"data": {"a": "b"}}):
                    answer = client.request(method, path, headers=foreign, **content)
                    assert answer.status_code == 403, (method, path)
                    assert answer.json()["error"] == "NotAllowed"


@pytest.mark.parametrize(("headers", "foreign"), [
    ({}, False),
    ({"origin": "http://a:7860", "host": "a:7860"}, False),
    ({"origin": "http://A:7860", "host": "a:7860"}, False),
    ({"origin": "http://a:7861", "host": "a:7860"}, True),
    ({"origin": "http://a", "host": "a.b"}, True),
    ({"origin": "null", "host": "null"}, True),
    ({"origin": "", "host": ""}, True),
    ({"origin": "http://[", "host": "a"}, True),
    ({"origin": "http://a", "host": "b", "sec-fetch-site": "same-origin"}, False),  # by a proxy
    ({"host": "a", "sec-fetch-site": "none"}, False),
    ({"host": "a", "sec-fetch-site": "cross-site"}, True),
    ({"origin": "http://a", "host": "a", "sec-fetch-site": "same-site"}, True),
    ({"host": "a", "sec-fetch-site": "nonsense"}, True),
], ids=str)
def test_what_is_foreign(headers, foreign):
    assert Origins().is_foreign(headers) is foreign


def test_a_pattern_must_fit_the_whole_origin():
    origins = Origins(pattern=r"https://[a-z]+\.example")
    assert not origins.is_foreign({"origin": "https://me.example", "host": "x"})
    assert origins.is_foreign({"origin": "https://me.example.com", "host": "x"})
