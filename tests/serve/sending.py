"""A client that sends anything: one request on a connection of its own, down to the bytes."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from tests.serve.hostile import CHAT, Case

SECONDS = 30.0


def send(address: str, case: Case) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body); status 0 if the server only closed the connection."""
    place = urlsplit(address)
    assert place.hostname in ("127.0.0.1", "localhost"), "strangers are sent to this machine only"
    with socket.create_connection((place.hostname, place.port or 80), SECONDS) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before its end
            connection.sendall(case.raw or _written(case, place.netloc))
        return received(connection)


def ask(address: str, tree: Any, **headers: str) -> tuple[int, Any]:
    """(status, JSON) of a question."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    case = Case("", "", json.dumps(tree).encode(), headers={"content-type": "application/json", **given})
    status, _, body = send(address, case)
    return status, json.loads(body)


def get(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of an address."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(address, Case("", "", method="GET", path=path, headers=given))


def received(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """An answer, read until the server closes."""
    data = bytearray()
    with suppress(ConnectionResetError):  # it may be closed with something of ours unread
        while piece := connection.recv(1 << 16):
            data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return int(line.split()[1]) if line else 0, headers, body


def _written(case: Case, host: str) -> bytes:
    headers = {"host": host, "connection": "close", **(case.headers or {})}
    if case.method == "POST":
        headers = {"content-type": "application/json", "content-length": str(len(case.body)), **headers}
    lines = [f"{case.method} {case.path or CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + case.body


def _joined(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size or b"0", 16)
        found, body = found + body[:count], body[count + 2 :]
    return found
