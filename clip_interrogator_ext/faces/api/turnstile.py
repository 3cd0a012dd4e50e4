"""Waiting for the turn without holding a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from starlette.requests import ClientDisconnect

from clip_interrogator_ext.errors import Interrupted, QueueFull

if TYPE_CHECKING:
    from starlette.types import Receive

    from clip_interrogator_ext.service import Service

WAITING_LIMIT = 8


@dataclass(eq=False)
class Place:
    """A request's place in the line, from its being read to its answer."""

    task: str = ""
    kind: str = ""
    since: float = field(default_factory=time.monotonic)
    stopped: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    called: asyncio.Future[None] | None = None

    def require_not_stopped(self) -> None:
        """Raise Interrupted if the run is not to begin any more."""
        if self.stopped:
            raise Interrupted("The run was stopped while it waited.")

    def seen(self) -> dict[str, Any]:
        """Return the run that it will be."""
        return {
            "task": self.task, "kind": self.kind, "running": False, "stopping": self.stopped,
            "label": "", "done": 0, "total": 0, "seconds": time.monotonic() - self.since,
            "seconds_left": None,
        }

    def call(self) -> bool:
        """Wake the request from any thread; say whether its event loop still runs."""
        called = self.called
        if self.loop is None or called is None:
            return True

        def wake() -> None:
            if not called.done():
                called.set_result(None)

        try:
            self.loop.call_soon_threadsafe(wake)
        except RuntimeError:
            return False
        return True


class Turnstile:
    """One request at a time goes through; the others wait, in any event loop, on no thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: list[Place] = []
        self._line: deque[Place] = deque()
        self._holder: Place | None = None

    @property
    def holder(self) -> Place | None:
        """Whose turn it is."""
        return self._holder

    def waiting(self) -> list[Place]:
        """Return the places of those whose turn has not come."""
        with self._lock:
            return [place for place in self._places if place is not self._holder]

    def require_room(self, limit: int) -> None:
        """Refuse whoever finds so many inside already."""
        if len(self._places) >= limit:
            raise QueueFull(f"{WAITING_LIMIT} requests wait already; ask again later.")

    @contextmanager
    def place(self, limit: int) -> Iterator[Place]:
        """Have a place while the context lasts, with or without the turn."""
        place = Place()
        with self._lock:
            self.require_room(limit)
            self._places.append(place)
        try:
            yield place
        finally:
            self._leave(place)

    async def turn(self, place: Place, receive: Receive) -> None:
        """Wait for the turn, which is given back when the place is left.

        Raises Interrupted if the place was stopped, ClientDisconnect if nobody waits any more.
        """
        place.loop = asyncio.get_running_loop()
        called = place.loop.create_future()
        with self._lock:
            place.require_not_stopped()
            if self._holder is None:
                self._holder = place
                return
            place.called = called
            self._line.append(place)
        gone = place.loop.create_task(_disconnected(receive))
        try:
            await asyncio.wait({called, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        place.require_not_stopped()
        if not called.done():
            raise ClientDisconnect

    def stop(self, task: str | None) -> bool:
        """Send away whoever waits under that name, or all; say whether there was one."""
        with self._lock:
            found = [place for place in self._places if task in (None, place.task)]
            for place in found:
                place.stopped = True
                place.call()
        return bool(found)

    def _leave(self, place: Place) -> None:
        with self._lock:
            self._places.remove(place)
            if place in self._line:
                self._line.remove(place)
            if self._holder is not place:
                return
            self._holder = None
            while self._line and self._holder is None:
                following = self._line.popleft()
                if following.call():
                    self._holder = following


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(1)  # some middlewares say the body again and again


_turnstiles: WeakKeyDictionary[Service, Turnstile] = WeakKeyDictionary()
_turnstiles_lock = threading.Lock()


def turnstile_of(service: Service) -> Turnstile:
    """Return a service's turnstile: two apps around one service have one line."""
    with _turnstiles_lock:
        return _turnstiles.setdefault(service, Turnstile())
