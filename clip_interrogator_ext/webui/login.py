"""Who may use our routes: those whom the WebUI's own login flags let in."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modules import initialize_util, shared

if TYPE_CHECKING:
    from starlette.requests import Request

log = logging.getLogger(__name__)

_COOKIES = ("access-token", "access-token-unsecure")


def guard() -> Callable[[Request], bool]:
    """Return what says whether a request may pass, by the flags the WebUI was started with.

    Without a login flag everything passes. With any, an API user's Basic credentials pass, and a
    page login's cookie; the page's own name and password are no API credentials.
    """
    api_users = _api_users(shared.cmd_opts.api_auth)
    if not shared.cmd_opts.api_auth and not _page_has_login():
        return lambda _request: True

    def allowed(request: Request) -> bool:
        return _is_api_user(request, api_users) or _is_logged_in(request)

    return allowed


def _api_users(flag: str | None) -> dict[str, str]:
    """Return the passwords by user of `u1:p1,u2:p2`."""
    pairs = (entry.partition(":") for entry in (flag or "").split(","))
    return {user: password for user, colon, password in pairs if colon}


def _page_has_login() -> bool:
    if not (shared.cmd_opts.gradio_auth or shared.cmd_opts.gradio_auth_path):
        return False
    try:
        return any(True for _ in initialize_util.get_gradio_auth_creds())
    except (OSError, UnicodeError):
        log.warning("The file of --gradio-auth-path can't be read; our routes stay closed.")
        return True


def _is_api_user(request: Request, api_users: dict[str, str]) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        return False
    user, colon, password = decoded.partition(":")
    is_user = False
    for known_user, known_password in api_users.items():
        # Every pair is compared in full, so that the time taken tells nothing.
        same_user = secrets.compare_digest(user.encode(), known_user.encode())
        same_password = secrets.compare_digest(password.encode(), known_password.encode())
        is_user |= same_user and same_password
    return bool(colon) and is_user


def _is_logged_in(request: Request) -> bool:
    """Say whether the request carries the cookie that gradio gave at a page login."""
    tokens: Any = getattr(request.app, "tokens", None) or {}
    cookie_id = getattr(request.app, "cookie_id", None)  # gradio 4
    names = [f"{name}-{cookie_id}" for name in _COOKIES] if cookie_id else _COOKIES
    return any(request.cookies.get(name) in tokens for name in names)
