"""Against a small OpenAI-compatible server on this machine, which fails as real ones do."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.infer.endpoint import EndpointAnswerer

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(request, how often this question has been asked before) -> (status, JSON)."""


class Server:
    """Counts what is asked, and how much at once."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.seen, self.keys = reply, list[dict[str, Any]](), set[str]()
        self.now = self.most = 0
        self.lock = threading.Lock()

    def respond(self, request: dict[str, Any], key: str) -> tuple[int, Any]:
        with self.lock:
            before = sum(one["messages"] == request["messages"] for one in self.seen)
            self.seen.append(request)
            self.keys.add(key)
            self.now += 1
            self.most = max(self.most, self.now)
        made = self.reply(request, before)
        with self.lock:
            self.now -= 1
        return made


@contextmanager
def serving(reply: Reply) -> Iterator[tuple[Server, str]]:
    server = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, content = (
                server.respond(body, self.headers["authorization"])
                if self.path == "/v1/chat/completions"
                else (404, {"error": {"message": f"no {self.path}"}})
            )
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{http.server_address[1]}/v1"
        finally:
            http.shutdown()
            thread.join()


def says(text: str | None) -> tuple[int, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def echo(request: dict[str, Any], before: int) -> tuple[int, Any]:
    return says(f" {request['messages'][0]['content'][-1]['text']}!\n")


def open_picture(ref: ImageRef) -> Image.Image:
    if ref.path == "bad":
        raise UserError("bad: not a picture")
    return Image.new("RGB", (3, 2), (int(ref.path), 20, 30))


def answerer(url: str, settings: GenerationSettings | None = None, **more: Any) -> EndpointAnswerer:
    return EndpointAnswerer(url, "m", "secret", open_picture, settings or GenerationSettings(), **more)


def ask(count: int) -> list[Question]:
    return [Question(f"q{n}", f"what {n}?", (ImageRef(str(n)),), ()) for n in range(count)]


def test_sends_pictures_before_words_and_every_setting() -> None:
    settings = GenerationSettings(7, temperature=0.5, top_p=0.9, repetition_penalty=1.2, stop=("END",))
    with serving(echo) as (server, url):
        (answer,) = answerer(url, settings).answer(ask(1))
    assert (answer.id, answer.text, answer.error) == ("q0", "what 0?!", "")
    (request,) = server.seen
    sent = {key: value for key, value in request.items() if key != "messages"}
    assert sent == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "stop": ["END"],
    }
    shown, words = request["messages"][0]["content"]
    assert words == {"type": "text", "text": "what 0?"}
    kind, data = shown["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (0, 20, 30)
    assert server.keys == {"Bearer secret"}


def test_asks_several_at_once_but_not_too_many() -> None:
    both = threading.Barrier(3, timeout=20)

    def together(request: dict[str, Any], before: int) -> tuple[int, Any]:
        both.wait()
        return echo(request, before)

    with serving(together) as (server, url):
        answers = {answer.id: answer.text for answer in answerer(url, at_once=3).answer(ask(12))}
    assert answers == {f"q{n}": f"what {n}?!" for n in range(12)}
    assert server.most == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_tries_again_when_the_server_is_busy_or_broken(status: int) -> None:
    def busy(request: dict[str, Any], before: int) -> tuple[int, Any]:
        return (status, {"error": {"message": "later"}}) if before < 2 else echo(request, before)

    with serving(busy) as (server, url):
        answers = list(answerer(url).answer(ask(2)))
    assert [answer.error for answer in answers] == ["", ""]
    assert len(server.seen) == 6


def test_gives_up_on_one_question_and_goes_on_with_the_others() -> None:
    def one_fails(request: dict[str, Any], before: int) -> tuple[int, Any]:
        text = request["messages"][0]["content"][-1]["text"]
        if text == "what 1?":
            return 500, {"error": {"message": "out of memory"}}
        if text == "what 2?":
            return 400, {"error": {"message": "picture too large"}}
        return says(None) if text == "what 3?" else echo(request, before)

    with serving(one_fails) as (server, url):
        answers = {answer.id: answer for answer in answerer(url, tries=2).answer(ask(5))}
    assert "out of memory" in answers["q1"].error
    assert "picture too large" in answers["q2"].error
    assert "without text" in answers["q3"].error
    assert (answers["q0"].text, answers["q4"].text) == ("what 0?!", "what 4?!")
    assert len(server.seen) == 6


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_ends_it_with_one_line(status: int) -> None:
    def refuses(request: dict[str, Any], before: int) -> tuple[int, Any]:
        return status, {"error": {"message": "no such thing"}}

    with serving(refuses) as (_, url), pytest.raises(UserError, match="no such thing"):
        list(answerer(url).answer(ask(3)))


def test_a_server_that_is_not_there_is_an_error_of_each_question() -> None:
    with serving(echo) as (_, url):
        pass
    (answer,) = answerer(url, tries=1).answer(ask(1))
    assert url in answer.error


def test_an_unreadable_picture_is_not_sent() -> None:
    with serving(echo) as (server, url):
        (answer,) = answerer(url).answer([Question("q", "?", (ImageRef("bad"),), ())])
    assert answer.error == "bad: not a picture"
    assert server.seen == []


def test_beams_are_refused() -> None:
    with pytest.raises(UserError, match="beams"):
        answerer("http://127.0.0.1:1/v1", GenerationSettings(num_beams=3))
