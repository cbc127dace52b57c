"""Pictures from the network: only from allowed hosts, only from public addresses, checked at every step."""

from __future__ import annotations

import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import httpx
import pytest

from bunny.serve.addresses import is_public
from bunny.serve.failures import ApiError
from bunny.serve.fetch import Fetcher
from bunny.serve.limits import Limits
from tests.serve.hostile import png

PUBLIC = "93.184.216.34"
ALLOWED = ("pictures.test", ".cdn.test", "ports.test:8080")


Answers = Mapping[str, httpx.Response | Exception]


class Web:
    """A network of made-up hosts. answers: (host, path) -> response. asked: (address, host) of every connection."""

    def __init__(self, answers: Answers, names: Mapping[str, list[list[str]]] | None = None) -> None:
        self.answers, self.names = answers, {name: list(turns) for name, turns in (names or {}).items()}
        self.asked: list[tuple[str, str]] = []
        self.resolved: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        turns = self.names.get(host)
        return (turns.pop(0) if len(turns) > 1 else turns[0]) if turns else [PUBLIC]

    def transport(self) -> httpx.AsyncBaseTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append((request.url.host, request.headers["host"]))
            assert request.extensions["sni_hostname"] == request.headers["host"].partition(":")[0]
            found = self.answers[f"{request.headers['host']}{request.url.path}"]
            if isinstance(found, Exception):
                raise found
            return found

        return httpx.MockTransport(answer)

    def fetch(self, url: str, limits: Limits | None = None) -> bytes:
        fetcher = Fetcher(ALLOWED, limits or Limits(), resolver=self.resolve, transport=self.transport)
        return anyio.run(fetcher.fetch, url)

    def refusal(self, url: str, limits: Limits | None = None) -> str:
        with pytest.raises(ApiError) as failed:
            self.fetch(url, limits)
        assert (failed.value.status, failed.value.code) == (400, "invalid_image_url")
        return failed.value.message


def found(data: bytes = b"a picture", **headers: str) -> httpx.Response:
    """A body in two pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]

    return httpx.Response(200, content=pieces(), headers=headers)


def moved(to: str, status: int = 302) -> httpx.Response:
    return httpx.Response(status, headers={"location": to})


def test_a_picture_of_an_allowed_host_comes_from_the_address_that_was_checked() -> None:
    web = Web({"pictures.test/a.png": found()})
    assert web.fetch("http://pictures.test/a.png") == b"a picture"
    assert web.asked == [(PUBLIC, "pictures.test")]


@pytest.mark.parametrize(
    "url", ["https://a.cdn.test/x", "http://a.b.cdn.test/x", "http://ports.test:8080/x", "http://PICTURES.test./x"]
)
def test_allowed_names_are_understood(url: str) -> None:
    names = ("a.cdn.test", "a.b.cdn.test", "ports.test:8080", "pictures.test.")
    assert Web({f"{name}/x": found() for name in names}).fetch(url) == b"a picture"


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test/x",
        "http://cdn.test/x",
        "http://evilcdn.test/x",
        "http://pictures.test.evil.test/x",
        "http://ports.test:8081/x",
        "http://pictures.test:8080/x",
        "http://pictures.test@evil.test/x",
        f"http://{PUBLIC}/x",
    ],
)
def test_a_host_that_is_not_allowed_is_not_even_resolved(url: str) -> None:
    web = Web({})
    assert web.refusal(url)
    assert (web.resolved, web.asked) == ([], [])


@pytest.mark.parametrize("number", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%a"])
def test_an_allowed_name_that_leads_into_a_private_network_is_refused(number: str) -> None:
    web = Web({"pictures.test/x": found()}, {"pictures.test": [[number]]})
    assert "public" in web.refusal("http://pictures.test/x") and web.asked == []


def test_one_private_address_among_public_ones_is_enough() -> None:
    web = Web({}, {"pictures.test": [[PUBLIC, "192.168.0.1"]]})
    assert web.refusal("http://pictures.test/x") and web.asked == []


def test_a_name_that_changes_its_address_is_asked_once_and_pinned() -> None:
    web = Web({"pictures.test/x": found()}, {"pictures.test": [[PUBLIC], ["127.0.0.1"]]})
    assert web.fetch("http://pictures.test/x") == b"a picture"
    assert web.resolved == ["pictures.test"] and web.asked == [(PUBLIC, "pictures.test")]


def test_a_name_that_changes_its_address_before_a_redirect_is_checked_again() -> None:
    names = {"pictures.test": [[PUBLIC], ["127.0.0.1"]]}
    web = Web({"pictures.test/x": moved("/y"), "pictures.test/y": found()}, names)
    assert "public" in web.refusal("http://pictures.test/x")
    assert web.asked == [(PUBLIC, "pictures.test")]


def test_redirects_within_the_allowed_hosts_are_followed() -> None:
    answers = {
        "pictures.test/x": moved("https://a.cdn.test/y", 307),
        "a.cdn.test/y": moved("z"),
        "a.cdn.test/z": found(),
    }
    assert Web(answers).fetch("http://pictures.test/x") == b"a picture"


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "//evil.test/",
        "http://evil.test/",
        "http://pictures.test:22/",
        "file:///etc/passwd",
        "gopher://pictures.test/",
        "data:image/png;base64,AAAA",
        "http://[::1]/",
        "http://user@pictures.test/",
    ],
)
def test_a_redirect_to_where_nobody_may_go_is_refused(to: str) -> None:
    web = Web({"pictures.test/x": moved(to)})
    assert web.refusal("http://pictures.test/x")
    assert web.asked == [(PUBLIC, "pictures.test")]


def test_redirects_that_go_round_end() -> None:
    web = Web({"pictures.test/x": moved("/x")})
    assert "more than 3 redirects" in web.refusal("http://pictures.test/x") and len(web.asked) == 4


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(404), "answers 404"),
        (httpx.Response(206, content=b"x"), "answers 206"),
        (found(b"x" * 1_000_001), "larger"),
        (found(b"x", **{"content-length": "9" * 30}), "larger"),
        (found(zlib.compress(b" " * 10**7), **{"content-encoding": "deflate"}), "compressed"),
    ],
)
def test_an_answer_that_is_no_plain_file_of_bounded_size_is_refused(answer: httpx.Response, why: str) -> None:
    web = Web({"pictures.test/x": answer})
    assert why in web.refusal("http://pictures.test/x", Limits(picture_bytes=1_000_000))


def test_a_second_address_is_tried_where_the_first_does_not_answer() -> None:
    web = Web({"pictures.test/x": httpx.ConnectError("no")}, {"pictures.test": [[PUBLIC, "1.1.1.1", "8.8.8.8"]]})
    assert "cannot be had" in web.refusal("http://pictures.test/x")
    assert [number for number, _ in web.asked] == [PUBLIC, "1.1.1.1"]


PRIVATE = """
0.0.0.0 127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
100.100.100.200 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
168.63.129.16 192.88.99.1 :: ::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 fe80::1 fe80::1%eth0 fc00::1
fd00:ec2::254 fec0::1 ff02::1 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1
localhost 127.1 0x7f000001
"""


@pytest.mark.parametrize("number", PRIVATE.split())
def test_addresses_that_are_not_for_everybody(number: str) -> None:
    assert not is_public(number)


@pytest.mark.parametrize("number", ["1.1.1.1", "8.8.8.8", PUBLIC, "2606:4700:4700::1111", "2a00:1450:4001::200e"])
def test_addresses_that_are(number: str) -> None:
    assert is_public(number)


@contextmanager
def real_host(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A web server on this machine. Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def fetched(port: int, limits: Limits | None = None) -> bytes:
    """What a real socket gives, its address taken for a public one."""

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher([f"pictures.test:{port}"], limits or Limits(), resolver=here, acceptable=lambda number: True)
    return anyio.run(fetcher.fetch, f"http://pictures.test:{port}/a.png")


def test_a_picture_comes_over_a_real_socket_with_nothing_of_ours() -> None:
    seen: list[dict[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png(3, 3))

    with real_host(answer) as port:
        assert fetched(port) == png(3, 3)
    assert seen[0]["host"] == f"pictures.test:{port}" and seen[0]["accept-encoding"] == "identity"
    assert set(seen[0]) <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_a_host_that_answers_for_ever_is_left() -> None:
    ended = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not ended.wait(0.02):
                handler.wfile.write(b"x")
        except OSError:
            ended.set()

    with real_host(answer) as port:
        with pytest.raises(ApiError, match="it takes too long"):
            fetched(port, Limits(fetch_seconds=0.3))
        assert ended.wait(10)
