"""The route: login, body and line before the handler, errors after it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from clip_interrogator_ext.errors import InterrogatorError, QueueFull
from clip_interrogator_ext.faces.api.body import ReadRequest, as_json, read_content
from clip_interrogator_ext.faces.api.refusals import Refusal, misfit, refusal_of
from clip_interrogator_ext.origins import REFUSED

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from clip_interrogator_ext.faces.api.handlers import Api

log = logging.getLogger(__name__)

TAG = "Interrogator"


class Route(APIRoute):
    """A route that asks for the login, limits the body, and says every error in one shape.

    All of it happens here, so that the handlers of the program around us change nothing. A route
    that `waits` has its place in the line; one that opens `folders` is closed where they are.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        call: Callable[..., Any],
        *,
        waits: bool,
        folders: bool,
        **more: Any,
    ) -> None:
        self._api = api  # FastAPI asks for the handler while it makes the route
        self._waits = waits
        self._folders = folders
        super().__init__(path, call, tags=[TAG], **more)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await self._answer(request, inner)
            except Refusal as refusal:
                return refusal.response()
            except ClientDisconnect:
                return Response(status_code=400)  # which nobody reads
            except Exception:  # the caller gets no trace, the log does
                log.exception("%s %s failed.", request.method, request.url.path)
                return Refusal(
                    500, "InternalError", "Something unforeseen happened; the server's log has it."
                ).response()

        return handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say that the path has another method."""
        if scope["method"] in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        routes = [route for route in scope["app"].routes if isinstance(route, Route)]
        methods = sorted(
            method
            for route in routes if route.path == self.path
            for method in route.methods or ()
        )
        refusal = Refusal(
            405, "MethodNotAllowed", f"Ask this with {' or '.join(methods)}.",
            headers={"Allow": ", ".join(methods)},
        )
        await refusal.response()(scope, receive, send)

    async def _answer(
        self, request: Request, inner: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not self._api.allowed(request):
            raise Refusal(
                401, "Unauthorized", "Log in first: name and password as HTTP Basic.",
                headers={"WWW-Authenticate": "Basic"},
            )
        # The program around us may let any site's page send what it likes, as Gradio 4 does.
        if request.method != "GET" and self._api.is_foreign(request.headers):
            raise Refusal(403, "NotAllowed", REFUSED)
        turnstile = self._api.turnstile
        content: dict[str, Any] = {}
        try:
            if self._folders:
                self._api.service.require_folders()
            if self._waits:
                turnstile.require_room(self._api.limit())
            if request.method == "POST":
                # No page from elsewhere may have files written here, not even by a browser that
                # does not say where from: it sends JSON only if this server agrees, or not at all.
                content = await read_content(request, must_say_json=self._folders)
            read = ReadRequest(as_json(request.scope), request.receive)
            read.api, read.content = self._api, content
            if not self._waits:
                return await inner(read)
            with turnstile.place(self._api.limit()) as read.place:
                return await inner(read)
        except InterrogatorError as error:
            refusal = refusal_of(error, content)
            refusal.args = (self._api.service.without_paths(str(refusal)),)
            if refusal.status >= 500 and not isinstance(error, QueueFull):
                log.error("%s failed: %s", request.url.path, error, exc_info=error)
            raise refusal from error
        except RequestValidationError as error:
            raise misfit(error) from error
