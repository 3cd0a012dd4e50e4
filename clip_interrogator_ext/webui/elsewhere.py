"""Other sites' pages, of which only those may have work done that the WebUI's flags let in."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from modules import shared
from starlette.datastructures import Headers
from starlette.routing import Match, Route

from clip_interrogator_ext.origins import Origins

if TYPE_CHECKING:
    from starlette.types import Scope

_headers: ContextVar[Mapping[str, str] | None] = ContextVar("headers", default=None)


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether the page of a site that is not let in asks what has such headers."""
    flags = shared.cmd_opts
    origins = Origins(
        frozenset((flags.cors_allow_origins or "").split(",")) - {""},
        flags.cors_allow_origins_regex or None,
    )
    # Under Gradio 3 the body of a request may hold other headers, which an event then is given.
    own = _headers.get()
    return origins.is_foreign(headers) or (own is not None and origins.is_foreign(own))


def watch(app: Any) -> None:
    """Note the headers of whatever an app is asked, for `is_foreign`."""
    app.router.routes.insert(0, _Watch("/interrogator", is_foreign, include_in_schema=False))


class _Watch(Route):
    """Stands before all routes, looks at what is asked, and lets it pass: it answers nothing."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Note the headers."""
        _headers.set(Headers(scope=scope))
        return Match.NONE, {}
