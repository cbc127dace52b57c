"""The door: who may ask at all, and what every answer carries. See `bunny.serve.guarding` for whom it keeps out.

Keys are compared in a time that does not depend on them, and are never written anywhere. An error that nobody expected
becomes a JSON answer with a number that the log has too.
"""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bunny.core.log import log
from bunny.serve.failures import ApiError
from bunny.serve.guarding import HEADERS, host_allowed, is_loopback
from bunny.serve.metrics import Metrics

PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/ready", "/metrics", "/openapi.json", "/")


@dataclass(frozen=True, slots=True)
class Access:
    """bound: the address that the server listens on. keys: one of them is demanded; empty: none is.
    hosts: more names that a Host header may have. origins: other sites (`https://example.org`) whose pages may ask."""

    bound: str = "127.0.0.1"
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Door:
    """An ASGI app behind the door."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self.app, self.access, self.metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websockets here
        headers = Headers(scope=scope)
        visit = _Visit(scope, send, _cors(headers.get("origin"), self.access))
        try:
            if answer := self._answer_at_once(scope, headers):
                await answer(scope, receive, visit.send)
            else:
                await self.app({**scope, "app": self}, receive, visit.send)  # with an app, a router raises its 404
        except ApiError as error:
            await visit.fail(error, receive)
        except HTTPException as error:
            told = "there is nothing at this address" if error.status_code == 404 else error.detail
            await visit.fail(ApiError(error.status_code, told, headers=error.headers), receive)
        except Exception:  # the last place: whatever it is, the client gets words and the log the whole
            log.exception("%s: %s %r failed", visit.id, scope["method"], scope["path"])
            if visit.status:
                raise
            told = f"the server failed; its log has more under {visit.id}"
            await visit.fail(ApiError(500, told, code="internal_error"), receive)
        finally:
            self._count(scope, visit)

    def _answer_at_once(self, scope: Scope, headers: Headers) -> Response | None:
        """An error, or the answer to a browser's question whether it may ask; none: the request may go on."""
        if wrong := _wrong(scope, headers, self.access):
            return wrong.response()
        asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if asks and headers.get("origin") in self.access.origins:
            wanted = headers.get("access-control-request-headers", "")
            allowed = {"access-control-allow-methods": "GET, POST", "access-control-max-age": "600"}
            return Response(status_code=204, headers={**allowed, "access-control-allow-headers": wanted})
        return None

    def _count(self, scope: Scope, visit: _Visit) -> None:
        path = scope["path"] if scope["path"] in PATHS else "other"  # a stranger's path must not become a label
        self.metrics.requests.labels(path, str(visit.status or 499)).inc()  # 499: the client hung up
        if scope["method"] == "POST":
            log.info("%s: %s %s %.2f s", visit.id, path, visit.status or "hung up", time.monotonic() - visit.started)


class _Visit:
    """One request: its number, and the status of its answer once that has begun."""

    def __init__(self, scope: Scope, send: Send, cors: dict[str, str]) -> None:
        self.id = f"req-{uuid.uuid4().hex[:16]}"
        self.started = time.monotonic()
        self.status = 0
        self._scope, self._send = scope, send
        self._headers = {**HEADERS, **cors, "x-request-id": self.id}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            known = {name.lower() for name, _ in message.get("headers", ())}
            extra = [(name.encode(), value.encode("latin-1")) for name, value in self._headers.items()]
            more = [pair for pair in extra if pair[0] not in known]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)

    async def fail(self, error: ApiError, receive: Receive) -> None:
        await error.response()(self._scope, receive, self.send)


class Keyed:
    """An ASGI app that wants a key: `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["type"] == "http":
            kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            given = key.strip().encode("utf-8", "surrogateescape") if kind.lower() == "bearer" else b""
            fits = [hmac.compare_digest(given, known) for known in self._keys]  # all of them, whichever fits
            if not any(fits):
                told = "wrong API key" if given else "an API key is needed: Authorization: Bearer KEY"
                raise ApiError(401, told, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        await self.app(scope, receive, send)


def _wrong(scope: MutableMapping[str, Any], headers: Headers, access: Access) -> ApiError | None:
    """Why a request is refused; none if it is not."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if len(headers.getlist("host")) > 1 or not _host_fits(host, access):
        return ApiError(403, "wrong Host header: start the server with --allow-host NAME", code="wrong_host")
    foreign = ApiError(403, "asked for by another site: --allow-origin allows one", code="wrong_origin")
    if origin is not None:
        ours = origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        return None if ours or origin in access.origins else foreign
    followed = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"  # a link to the page
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not followed:
        return foreign
    return None


def _host_fits(host: str, access: Access) -> bool:
    """On this machine only, a foreign name is one that points here by a trick; to the outside, the key is the guard."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return not is_loopback(access.bound) or host_allowed(host, access.bound) or name.lower() in access.hosts


def _cors(origin: str | None, access: Access) -> dict[str, str]:
    if not access.origins:
        return {}
    if origin not in access.origins:
        return {"vary": "origin"}
    exposed = {
        "access-control-expose-headers": "retry-after, x-request-id",
        "cross-origin-resource-policy": "cross-origin",
    }
    return {"access-control-allow-origin": str(origin), "vary": "origin", **exposed}
