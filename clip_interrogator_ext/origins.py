"""Whose pages may have work done here, told by what browsers say of their requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

REFUSED = (
    "A page of another site asked this, so nothing was done. If the site is yours, start the WebUI "
    "with --cors-allow-origins and its address."
)


@dataclass(frozen=True)
class Origins:
    """The sites besides the page's own that the owner lets in: by name, "*" for all, or a pattern.

    Programs that are no browsers say nothing of a site, and are not asked.
    """

    allowed: frozenset[str] = frozenset()
    pattern: str | None = None

    def is_foreign(self, headers: Mapping[str, str]) -> bool:
        """Say whether a browser sends this for a page of a site that is not let in.

        `headers` are those of a request or of a websocket's opening, their names in small letters.
        """
        origin = headers.get("origin")
        if origin is not None and self._lets_in(origin):
            return False
        # Tells it also behind a proxy that says another Host; not every browser sends it, and
        # none to a machine of the local network.
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        return origin is not None and _host_of(origin) != headers.get("host", "").lower()

    def _lets_in(self, origin: str) -> bool:
        if self.allowed & {origin, "*"}:
            return True
        return self.pattern is not None and re.fullmatch(self.pattern, origin) is not None


OWN_ONLY = Origins()


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
