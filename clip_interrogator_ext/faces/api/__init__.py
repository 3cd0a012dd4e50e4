"""The routes: FastAPI around the service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.routing import Mount

from clip_interrogator_ext.faces.api.handlers import Api
from clip_interrogator_ext.faces.api.route import Route
from clip_interrogator_ext.origins import OWN_ONLY
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)


def _open_to_all(request: Request) -> bool:  # noqa: ARG001 - others look at it
    return True


def _default_setting(key: str) -> Any:
    return SETTINGS[key].default


def add_routes(
    app: FastAPI,
    service: Service,
    *,
    allowed: Callable[[Request], bool] = _open_to_all,
    setting: Callable[[str], Any] = _default_setting,
    is_foreign: Callable[[Mapping[str, str]], bool] = OWN_ONLY.is_foreign,
) -> list[str]:
    """Add the routes to an app, in place of those that an earlier call added.

    `allowed` says whether a request may pass; `setting` returns the value of a setting for
    fields that are not given; `is_foreign` finds by a request's headers that another site's page
    asks. Routes that somebody else has added already stay theirs: their paths are returned.
    """
    routes = app.router.routes
    routes[:] = [route for route in routes if not isinstance(route, Route)]
    theirs = {
        (getattr(route, "path", None), method)
        for route in routes
        for method in getattr(route, "methods", None) or ()
    }
    ours, taken = [], []
    for route in Api(service, allowed, setting, is_foreign).routes():
        if theirs & {(route.path, method) for method in route.methods or ()}:
            taken.append(route.path)
        else:
            ours.append(route)
    if taken:
        log.warning(
            "Another extension, perhaps clip-interrogator-ext, answers %s already; "
            "disable one of the two.", ", ".join(taken),
        )
    # What is mounted at the root, as a page is, would answer before whatever comes after it.
    places = (at for at, one in enumerate(routes) if isinstance(one, Mount) and not one.path)
    at = next(places, len(routes))
    routes[at:at] = ours
    app.openapi_schema = None  # FastAPI keeps what it has drawn
    return taken
