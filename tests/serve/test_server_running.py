"""The process: loading, ending, clients who hang up, clients who are slow."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from bunny.core.errors import UserError
from bunny.serve.app import Rules, make_app
from bunny.serve.curation import listen
from bunny.serve.limits import Limits
from bunny.serve.running import Running
from bunny.serve.service import Service
from tests.serve.hostile import CHAT, as_bytes, question
from tests.serve.sending import ask, get, received
from tests.serve.stub import Stub, running, served

SHORT = Rules(limits=Limits(head_seconds=0.3, idle_seconds=0, body_seconds=0.6, body_pause_seconds=0.3))
JSON = "Content-Type: application/json\r\n"


def connected(address: str) -> socket.socket:
    place = urlsplit(address)
    return socket.create_connection((str(place.hostname), int(place.port or 0)), 20)


def posted(address: str, body: bytes, length: int | None = None) -> socket.socket:
    """A connection on which a question has been sent."""
    connection = connected(address)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}Content-Length: {length or len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        threading.Event().wait(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_who_hangs_up_cancels_the_answer(stream: bool) -> None:
    stub = Stub()
    with served(stub) as address:
        with posted(address, as_bytes(question("wait for me", stream=stream))):
            assert stub.started.wait(10)
        assert stub.cancelled.wait(10)
        until(lambda: b"bunny_in_flight 0.0" in get(address, "/metrics")[2])


def test_a_client_who_hangs_up_in_the_middle_of_the_body_leaves_nothing() -> None:
    stub = Stub()
    with served(stub) as address:
        posted(address, b'{"model": "stub"', 5000).close()
        until(lambda: b"bunny_in_flight 0.0" in get(address, "/metrics")[2])
        assert ask(address, question())[0] == 200 and len(stub.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_finishes_the_answers_under_way_and_takes_no_more(stream: bool) -> None:
    stub = Stub()
    with running(stub) as (address, server):
        with posted(address, as_bytes(question("wait for me", stream=stream))) as connection:
            assert stub.started.wait(10)
            server.handle_exit(15, None)
            until(lambda: server.service.state == "stopping")
            status, said = ask(address, question())
            assert (status, said["error"]["code"]) == (503, "stopping")
            assert get(address, "/ready")[0] == 503 and get(address, "/health")[0] == 200
            stub.go.set()
            status, _, body = received(connection)
        assert status == 200 and (b"wait for me" in body or b" wait" in body)
        assert stub.cancelled.is_set() is False
        until(lambda: server.should_exit)
        assert stub.closed


def test_an_answer_that_takes_longer_than_the_end_allows_is_cut_short_with_an_error() -> None:
    stub = Stub()
    with running(stub, drain_seconds=0.1) as (address, server):
        with posted(address, as_bytes(question("wait for me"))) as connection:
            assert stub.started.wait(10)
            stub.close = lambda timeout_seconds: stub.cut()  # type: ignore[method-assign]
            server.handle_exit(15, None)
            status, headers, body = received(connection)
        assert (status, json.loads(body)["error"]["code"]) == (503, "cancelled") and "retry-after" in headers


def test_a_second_signal_ends_at_once() -> None:
    stub = Stub()
    with running(stub, drain_seconds=1000) as (address, server), posted(address, as_bytes(question("wait for me"))):
        assert stub.started.wait(10)
        server.handle_exit(2, None)
        until(lambda: server.service.state == "stopping")
        server.handle_exit(2, None)
        assert server.should_exit and server.force_exit


def test_until_the_models_are_loaded_the_server_says_so() -> None:
    loaded = threading.Event()
    stub = Stub()

    def load(service: Service) -> None:
        loaded.wait(20)
        service.opened(stub)

    with running(stub, load=load) as (address, _):
        status, headers, _ = get(address, "/ready")
        assert (status, headers["retry-after"]) == (503, "5") and get(address, "/health")[0] == 200
        status, said = ask(address, question())
        assert (status, said["error"]["code"]) == (503, "loading")
        assert get(address, "/v1/models/stub")[0] == 200
        loaded.set()
        until(lambda: get(address, "/ready")[0] == 200)
        assert ask(address, question())[0] == 200


def test_models_that_cannot_be_loaded_end_the_server_with_their_error() -> None:
    def load(service: Service) -> None:
        raise UserError("the folder is damaged")

    service = Service(["stub"], 4)
    server = Running(make_app(service), service, load, Limits(), 1)
    with pytest.raises(UserError, match="the folder is damaged"):
        server.serve_until_told(listen("127.0.0.1", 0))


def test_an_unexpected_failure_is_an_answer_with_a_number_that_the_log_has(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    stub.submit = lambda request, listen: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with served(stub) as address:
        status, said = ask(address, question())
    number = said["error"]["message"].rpartition(" ")[2]
    assert status == 500 and number.startswith("req-") and f"{number}: POST" in caplog.text
    assert "division" in caplog.text and "division" not in json.dumps(said)


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    limits = Limits(timeout_seconds=-9.8)  # and ten for a slow reader
    stub = Stub()
    with served(stub, rules=Rules(limits=limits)) as address:
        status, said = ask(address, question("wait for me"))
        assert (status, said["error"]["code"]) == (504, "timeout")
        assert stub.cancelled.wait(10)


@pytest.mark.parametrize("sent", [b"", b"POST", f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ".encode()])
def test_headers_that_never_end_are_hung_up_on(sent: bytes) -> None:
    with served(Stub(), rules=SHORT) as address, connected(address) as connection:
        connection.sendall(sent)
        assert received(connection)[0] == 0


def test_a_second_request_whose_headers_never_end_is_hung_up_on() -> None:
    with served(Stub(), rules=SHORT) as address, connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea")
        assert received(connection)[0] == 200


def test_a_body_that_stops_is_told_so() -> None:
    with served(Stub(), rules=SHORT) as address, posted(address, b'{"model"', 5000) as connection:
        status, headers, body = received(connection)
    assert (status, json.loads(body)["error"]["code"]) == (408, "body_timeout") and headers["connection"] == "close"


def test_a_body_that_trickles_is_told_so() -> None:
    with served(Stub(), rules=SHORT) as address, posted(address, b"{", 5000) as connection:
        connection.settimeout(0.05)
        data = b""
        for _ in range(100):
            try:
                data += connection.recv(4096)
                break
            except TimeoutError:
                connection.sendall(b" ")
    assert data.startswith(b"HTTP/1.1 408")


def test_idle_connections_do_not_keep_others_out() -> None:
    rules = Rules(limits=Limits(connections=50, head_seconds=1))
    with served(Stub(), rules=rules) as address:
        idle = [connected(address) for _ in range(80)]
        until(lambda: bool(get_or_nothing(address)))
        for connection in idle:
            connection.close()


def get_or_nothing(address: str) -> int:
    try:
        return get(address, "/health")[0]
    except OSError:
        return 0


def test_a_reader_who_does_not_read_is_let_go() -> None:
    stub = Stub()
    rules = Rules(limits=Limits(body_seconds=0.2))
    with served(stub, rules=rules) as address:
        long = "word " * 19_000
        connection = connected(address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        body = as_bytes(question(long, stream=True, max_tokens=8192, logprobs=True))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: b"bunny_in_flight 1.0" in get(address, "/metrics")[2])
        until(lambda: b"bunny_in_flight 0.0" in get(address, "/metrics")[2])
        connection.close()
        assert ask(address, question())[0] == 200
