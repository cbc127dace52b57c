"""What a page on this machine must be guarded from: other sites that a browser visits at the same time.

A foreign page can point its own name at 127.0.0.1 (DNS rebinding): so the Host header must be ours. It can also send a
form here: so whatever changes something must come from our own origin and be JSON.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guarded:
    """An ASGI app behind the guard. bound: the address that the server listens on."""

    def __init__(self, app: App, bound: str) -> None:
        self.app, self.bound = app, bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websockets here
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if wrong := _wrong(scope, headers, self.bound):
            await _refuse(send, wrong)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, sending)


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_allowed(header: str, bound: str) -> bool:
    """Whether a Host header names this server: localhost, the name it was started with, or a number: a loopback one,
    or any if it listens to the outside (numbers cannot be rebound)."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or name == bound.lower():
        return True
    if is_loopback(bound):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _wrong(scope: Scope, headers: dict[str, str], bound: str) -> str:
    """Why a request is refused; empty if it is not. Links from elsewhere may lead to the page only."""
    host, method = headers.get("host", ""), scope["method"]
    followed = scope["path"] == "/" and method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if not host_allowed(host, bound):
        return "wrong Host header"
    if not followed and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "asked for by another site"
    if method not in ("GET", "HEAD"):
        origin = headers.get("origin", "")
        if origin and urlsplit(origin).netloc != host:
            return "sent by another site"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return "only JSON changes anything"
    return ""


async def _refuse(send: Send, why: str) -> None:
    start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
    await send(start)
    await send({"type": "http.response.body", "body": why.encode()})
