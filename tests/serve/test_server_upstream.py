"""Our server in front of another one, which is here a second one of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from bunny.core.errors import UserError
from bunny.serve.access import Access
from bunny.serve.app import Rules
from bunny.serve.limits import Limits
from bunny.serve.upstream import Upstream, listed
from tests.serve.hostile import as_bytes, data_url, png, question
from tests.serve.sending import ask
from tests.serve.stub import Stub, running, served
from tests.serve.test_server_running import posted, until

KEY = "the-key-of-the-one-behind"


@pytest.fixture
def stub() -> Stub:
    return Stub("behind")


@pytest.fixture
def front(stub: Stub) -> Iterator[str]:
    with served(stub, rules=Rules(Access(keys=(KEY,)))) as behind:
        engine = Upstream(f"{behind}/v1", "behind", KEY)
        with served(engine) as address:
            yield address
        engine.close(1)


def asked(front: str, content: object, **more: Any) -> Any:
    with openai.OpenAI(base_url=f"{front}/v1", api_key="none", max_retries=0) as client:
        return client.chat.completions.create(model="behind", messages=[{"role": "user", "content": content}], **more)  # type: ignore[call-overload]


def test_an_answer_comes_through_with_everything(front: str, stub: Stub) -> None:
    picture = {"type": "image_url", "image_url": {"url": data_url(png(21, 9))}}
    content = [{"type": "text", "text": "look: "}, picture, {"type": "text", "text": "what?"}]
    settings = {"temperature": 0.5, "top_p": 0.8, "max_tokens": 20, "stop": ["##"], "seed": 3}
    said = asked(front, content, **settings, logprobs=True, top_logprobs=2, extra_body={"repetition_penalty": 1.1})
    (choice,) = said.choices
    assert choice.message.content == "1 turns, 21x9: look: <image>\nwhat?"
    assert choice.logprobs.content[1].token == " turns," and len(choice.logprobs.content[1].top_logprobs) == 2
    assert (said.usage.prompt_tokens, said.usage.prompt_tokens_details.cached_tokens) == (5, 3)
    request = stub.asked[-1]
    assert (request.settings.temperature, request.settings.top_p, request.settings.max_new_tokens) == (0.5, 0.8, 20)
    assert (tuple(request.settings.stop), request.settings.repetition_penalty, request.seed) == (("##",), 1.1, 3)
    assert request.logprobs == 2


def test_a_stream_comes_through_piece_by_piece(front: str) -> None:
    with openai.OpenAI(base_url=f"{front}/v1", api_key="none", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": "hello there"}]
        stream = client.chat.completions.create(model="behind", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in stream]
    assert [piece for piece in pieces if piece] == ["1", " turns,", " :", " hello", " there"]


def test_a_cut_answer_says_so(front: str) -> None:
    assert asked(front, "x", max_tokens=2).choices[0].finish_reason == "length"


@pytest.mark.parametrize(("words", "status"), [("be busy", 429), ("too long", 400), ("fall over", 500)])
def test_what_the_one_behind_refuses_is_told(front: str, words: str, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as failed:
        asked(front, words)
    assert failed.value.status_code == status
    assert words != "be busy" or failed.value.response.headers["retry-after"] == "8"
    assert words != "too long" or "9000 tokens" in failed.value.message


def test_a_client_who_hangs_up_cancels_the_answer_behind(front: str, stub: Stub) -> None:
    body = as_bytes({**question("wait for me", stream=True), "model": "behind"})
    with posted(front, body):
        assert stub.started.wait(10)
    assert stub.cancelled.wait(10)


def test_one_that_is_gone_is_busy() -> None:
    engine = Upstream("http://127.0.0.1:9/v1", "behind", "")
    with served(engine) as address:
        status, said = ask(address, {**question(), "model": "behind"})
    engine.close(0)
    assert (status, said["error"]["code"]) == (429, "busy")


def test_one_that_dies_in_the_middle_is_a_failed_answer(stub: Stub) -> None:
    with running(stub, drain_seconds=0.1) as (behind, server):
        engine = Upstream(f"{behind}/v1", "behind", "")
        with served(engine, rules=Rules(limits=Limits())) as address:
            found: list[tuple[int, object]] = []
            body = {**question("wait for me"), "model": "behind"}
            asking = threading.Thread(target=lambda: found.append(ask(address, body)))
            asking.start()
            assert stub.started.wait(10)
            stub.close = lambda timeout_seconds: stub.cut()  # type: ignore[method-assign]
            server.handle_exit(15, None)
            asking.join(20)
        until(lambda: bool(found))
        engine.close(0)
    status, said = found[0]
    assert (status, said["error"]["code"]) == (500, "model_error")  # type: ignore[index]


def test_the_models_behind_are_listed() -> None:
    with served(Stub("a"), Stub("b"), rules=Rules(Access(keys=(KEY,)))) as behind:
        assert listed(f"{behind}/v1/", KEY) == ("a", "b")
        with pytest.raises(UserError, match="401"):
            listed(f"{behind}/v1", "wrong")
    with pytest.raises(UserError, match="check --url"):
        listed("http://127.0.0.1:9/v1", "")
