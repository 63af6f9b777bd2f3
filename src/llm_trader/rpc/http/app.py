"""The HTTP application: `POST /rpc`, WebSocket at `/ws`, and the routes that a server adds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from llm_trader.rpc.envelope import raw_id
from llm_trader.rpc.errors import INTERNAL_ERROR, UnauthorizedError
from llm_trader.rpc.http.connection import HttpConnection
from llm_trader.rpc.http.origin import AllowedCallers, Objection
from llm_trader.rpc.http.status import (
    refusal,
    refusal_of,
    status_and_headers,
    status_of_error,
)
from llm_trader.rpc.http.websocket import WebSocketEndpoint, bearer_token
from llm_trader.rpc.keys import KEY_BY_HEADER

JSON: Final = "application/json"
_RPC_TYPES: Final = frozenset({JSON, "application/json-rpc", "application/jsonrequest"})
# The kind of turn of what is not a call.
_PAGE: Final = "a page"

_log = structlog.get_logger(__name__)

# Given whether the client sent a valid key, or needs none: an HTTP status, and a value for JSON or
# the bytes themselves.
Page = Callable[[bool], Awaitable[tuple[int, Any]]]

# An HTTP status, headers, and a body of JSON; None for no body.
DocumentReply = tuple[int, dict[str, str], bytes | None]
# Given the document, its context, and the headers of the request.
DocumentAnswer = Callable[[bytes, RequestContext, Headers], Awaitable[DocumentReply]]
Refuse = Callable[[LlmTraderError, RequestContext, bytes], bytes]


class ServedFile(NamedTuple):
    """`headers` have an `etag`, by which a browser asks whether it has the file already."""

    content: bytes
    media_type: str
    headers: Mapping[str, str]


# Given a name; None where there is no such file.
FindFile = Callable[[str], Awaitable[ServedFile | None]]


class RpcOverHttp:
    """Passes documents to the dispatcher, with one turn of the queue for all doors."""

    def __init__(self, dispatcher: Dispatcher, gate: Admission) -> None:
        self._dispatcher = dispatcher
        self._gate = gate

    def routes(self) -> list[BaseRoute]:
        endpoint = WebSocketEndpoint(self._dispatcher, self._gate)
        return [
            self.documents("/rpc", self._call, self._refuse, _RPC_TYPES),
            WebSocketRoute("/ws", endpoint.serve),
        ]

    def page(
        self, path: str, answer: Page, *, open_to_all: bool = False, media_type: str = JSON
    ) -> Route:
        """A route for GET; without `open_to_all` the client needs a key where calls do."""

        async def respond(request: Request) -> Response:
            session, refused = self._visitor(request, open_to_all=open_to_all)
            if refused is not None:
                return refused
            allowed = session.principal is not None or not self._gate.keys.required
            await self._gate.turn(session, _PAGE, quick=True)
            try:
                status, value = await answer(allowed)
                body = value if isinstance(value, bytes) else msgspec.json.encode(value)
                return Response(body, status, media_type=media_type)
            finally:
                self._gate.end_turn()

        return Route(path, respond, methods=["GET"])

    def files(self, path: str, find: FindFile, *, open_to_all: bool = False) -> Route:
        """A route for GET of files; `find` is given what `{name:path}` in the path stands for."""

        async def respond(request: Request) -> Response:
            session, refused = self._visitor(request, open_to_all=open_to_all)
            if refused is not None:
                return refused
            await self._gate.turn(session, _PAGE, quick=True)
            try:
                file = await find(request.path_params.get("name", ""))
            finally:
                self._gate.end_turn()
            if file is None:
                raise HTTPException(404)
            if request.headers.get("if-none-match") == file.headers.get("etag"):
                return Response(status_code=304, headers=dict(file.headers))
            return Response(file.content, 200, dict(file.headers), media_type=file.media_type)

        return Route(path, respond, methods=["GET"])

    def _visitor(self, request: Request, *, open_to_all: bool) -> tuple[Session, Response | None]:
        """The session of a GET, and its refusal where it lacks the key that it needs."""
        session = self._session(request)
        try:
            self._identify(request, session, time.monotonic())
        except UnauthorizedError as error:
            if not open_to_all:
                return session, self._unauthorized(request, error, refusal_of(error))
        allowed = session.principal is not None or not self._gate.keys.required
        if allowed or open_to_all:
            return session, None
        missing = UnauthorizedError(f"unauthorized; {KEY_BY_HEADER}")
        return session, self._unauthorized(request, missing, refusal_of(missing))

    def documents(
        self, path: str, answer: DocumentAnswer, refuse: Refuse, media_types: frozenset[str]
    ) -> Route:
        """A route that takes documents of these types by POST.

        `refuse` makes the body for a client with a wrong key, whose document is not answered.
        """

        async def respond(request: Request) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type not in media_types:
                return _json(415, refusal(f"send the header Content-Type: {JSON}"))
            connection: HttpConnection = request.scope["state"]["connection"]
            received_s = time.monotonic()
            try:
                document = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            session = self._session(request)
            context = RequestContext(
                session=session,
                received_s=received_s,
                deadline_s=time.monotonic() + self._gate.config.request_deadline_s,
                request_bytes=len(document),
            )
            try:
                self._identify(request, session, received_s)
            except UnauthorizedError as error:
                return self._unauthorized(request, error, refuse(error, context, document))
            status, headers, reply = await connection.answer(
                answer(document, context, request.headers)
            )
            if reply is None:
                return Response(status_code=status, headers=headers)
            return _json(status, reply, headers)

        return Route(path, respond, methods=["POST"])

    def _refuse(self, error: LlmTraderError, context: RequestContext, document: bytes) -> bytes:
        return self._dispatcher.refuse(error, context, raw_id(document))

    async def _call(
        self, document: bytes, context: RequestContext, headers: Headers
    ) -> DocumentReply:
        reply = await self._dispatcher.handle(document, context, self._gate)
        if reply is None:
            return 204, {}, None
        return *status_and_headers(reply, draining=self._gate.draining), reply

    def _session(self, request: HTTPConnection) -> Session:
        """A session for one request of a connection: a key counts for the request alone."""
        shared: Session = request.scope["state"]["connection"].session
        return Session(shared.peer, KEY_BY_HEADER, unsent=shared.unsent)

    def _identify(self, request: HTTPConnection, session: Session, now_s: float) -> None:
        """Raises `UnauthorizedError` for a wrong key, which counts for the connection."""
        token = bearer_token(request)
        if token is not None and self._gate.keys.required:
            shared: Session = request.scope["state"]["connection"].session
            session.principal = self._gate.identify(token, shared, now_s)

    def _unauthorized(
        self, request: HTTPConnection, error: UnauthorizedError, body: bytes
    ) -> Response:
        answer = self._dispatcher.error_object(error)
        status, headers = status_of_error(answer, draining=False)
        if request.scope["state"]["connection"].session.barred:
            headers["connection"] = "close"
        return _json(status, body, headers)


def http_application(routes: Sequence[BaseRoute], config: RpcConfig) -> ASGIApp:
    """Checks Host and Origin before anything else; answers errors as JSON."""
    origins = list(config.http_allowed_origins)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    app = Starlette(
        routes=routes,
        middleware=[cors] if origins else [],
        exception_handlers={HTTPException: _http_error},
    )
    app.router.redirect_slashes = False  # it would send the client to the host that it named
    callers = AllowedCallers((*config.http_allowed_hosts, config.host), origins)
    return _Guard(app, callers)


class _Guard:
    """Refuses callers of a foreign Host or Origin, and answers bugs with 500."""

    def __init__(self, app: ASGIApp, callers: AllowedCallers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = HTTPConnection(scope).headers
        own_address = scope["server"][0] if scope.get("server") else None
        objection = self._callers.objection(
            headers.getlist("host"), headers.getlist("origin"), own_address
        )
        if objection is not None:
            await _refused(objection)(scope, receive, send)
            return
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  a bug in one route must not end the server
            connection: HttpConnection = scope["state"]["connection"]
            if connection.transport.is_closing():
                _log.debug("http_connection_reset", peer=connection.session.peer)
                return
            _log.error("http_internal_error", path=scope["path"][:100], exc_info=error)
            if not started:
                body = refusal("Internal error: see the server's log", INTERNAL_ERROR)
                await _json(500, body)(scope, receive, send)


def _refused(objection: Objection) -> Response:
    return _json(objection.status, refusal(objection.message), {"connection": "close"})


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise error
    message = f"{error.detail}: POST /rpc takes JSON-RPC, GET /openrpc.json describes it"
    return _json(error.status_code, refusal(message), dict(error.headers or {}))


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type=JSON)
