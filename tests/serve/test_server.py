"""The protocol, asked with the real `openai` client and by hand: answers, streams, errors, figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from bunny.serve.app import Rules
from bunny.serve.limits import Limits
from tests.serve.hostile import data_url, encoded, png, question
from tests.serve.sending import ask, get
from tests.serve.stub import Stub, served


@pytest.fixture(scope="module")
def stub() -> Stub:
    return Stub()


@pytest.fixture(scope="module")
def address(stub: Stub) -> Iterator[str]:
    with served(stub, Stub("other")) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
        yield found


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def picture(width: int, height: int = 8) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(png(width, height))}}


BROKEN = {"type": "image_url", "image_url": {"url": data_url(b"no picture")}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_an_answer_comes_with_its_reason_and_tokens(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="stub", messages=user("hello there"))
    (choice,) = said.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (
        "1 turns, : hello there",
        "assistant",
        "stop",
    )
    assert said.usage is not None and said.usage.prompt_tokens_details is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (5, 5, 10)
    assert said.usage.prompt_tokens_details.cached_tokens == 3
    assert said.model == "stub" and said.object == "chat.completion" and said.id.startswith("chatcmpl-")


def test_a_stream_gives_the_same_words_and_ends_with_the_tokens(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="stub", messages=user("hello there"), stream=True, stream_options={"include_usage": True}
        )
    )
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == "1 turns, : hello there"
    assert [one.choices[0].finish_reason for one in pieces if one.choices[0].finish_reason] == ["stop"]
    assert (last.choices, last.usage and last.usage.total_tokens) == ([], 10)
    assert all(one.usage is None for one in pieces) and len({one.id for one in chunks}) == 1


def test_a_stream_is_written_as_openai_writes_it(address: str) -> None:
    import httpx

    body = question(stream=True, stream_options={"include_usage": True})
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    first = json.loads(lines[0][6:])
    assert first["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}}]
    assert first["object"] == "chat.completion.chunk" and first["usage"] is None


def test_the_async_client_streams_several_answers_at_once(address: str) -> None:
    async def one(asking: openai.AsyncOpenAI, word: str) -> str:
        stream = await asking.chat.completions.create(model="stub", messages=user(word), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as asking:
            return await asyncio.gather(*(one(asking, f"word{number}") for number in range(20)))

    assert asyncio.run(all_of_them()) == [f"1 turns, : word{number}" for number in range(20)]


def test_pictures_stand_in_any_turn_in_their_order(client: openai.OpenAI, stub: Stub) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [text("Very.")]},
        *user([text("first: "), picture(11), picture(12), text("alike?")]),
        {"role": "assistant", "content": "no <image> is", "refusal": None, "tool_calls": None},
        *user([picture(13), text("and this?")]),
    ]
    said = client.chat.completions.create(model="stub", messages=messages)
    assert said.choices[0].message.content == "4 turns, 11x8 12x8 13x8: <image>\nand this?"
    asked = stub.asked[-1]
    assert [(turn.role, turn.text) for turn in asked.turns] == [
        ("system", "Be brief.\n\nVery."),
        ("user", "first: <image><image>\nalike?"),
        ("assistant", "no <image> is"),
        ("user", "<image>\nand this?"),
    ]
    assert len(set(asked.image_keys)) == 3 and asked.images[0].mode == "RGB"


def test_every_format_is_shown_upright(client: openai.OpenAI) -> None:
    sideways = Image.new("RGB", (20, 10))
    exif = sideways.getexif()
    exif[0x0112] = 6
    files = [encoded(sideways, kind) for kind in ("PNG", "WEBP", "GIF", "BMP")]
    files.append(encoded(sideways, "JPEG", exif=exif))
    parts = [{"type": "image_url", "image_url": {"url": data_url(file), "detail": "high"}} for file in files]
    said = client.chat.completions.create(model="stub", messages=user([*parts, text("?")]))  # type: ignore[list-item]
    assert (said.choices[0].message.content or "").startswith("1 turns, 20x10 20x10 20x10 20x10 10x20:")


def test_settings_reach_the_model(client: openai.OpenAI, stub: Stub) -> None:
    client.chat.completions.create(
        model="stub",
        messages=user("x"),
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=7,
        max_tokens=9,
        seed=11,
        stop=["a", "b"],
        presence_penalty=0,
        user="somebody",
        metadata={"a": "b"},
        extra_body={"repetition_penalty": 1.2},
    )
    settings = stub.asked[-1].settings
    assert (settings.temperature, settings.top_p, settings.max_new_tokens) == (0.5, 0.9, 7)
    assert (tuple(settings.stop), settings.repetition_penalty, stub.asked[-1].seed) == (("a", "b"), 1.2, 11)


def test_without_settings_the_likeliest_words_are_given(client: openai.OpenAI, stub: Stub) -> None:
    client.chat.completions.create(model="stub", messages=user("x"), stop="one")
    settings = stub.asked[-1].settings
    assert (settings.temperature, settings.top_p, settings.max_new_tokens, tuple(settings.stop)) == (
        0,
        1,
        512,
        ("one",),
    )
    assert stub.asked[-1].seed is None and stub.asked[-1].logprobs is None


def test_several_answers_have_seeds_of_their_own(client: openai.OpenAI, stub: Stub) -> None:
    said = client.chat.completions.create(model="stub", messages=user("x"), n=3, seed=5)
    assert [choice.index for choice in said.choices] == [0, 1, 2]
    assert [request.seed for request in stub.asked[-3:]] == [5, 6, 7]
    assert said.usage is not None and (said.usage.prompt_tokens, said.usage.completion_tokens) == (5, 12)


def test_several_answers_are_streamed_side_by_side(client: openai.OpenAI) -> None:
    said = ["", ""]
    ends = []
    for chunk in client.chat.completions.create(model="stub", messages=user("x"), n=2, stream=True):
        (choice,) = chunk.choices
        said[choice.index] += choice.delta.content or ""
        ends += [choice.finish_reason] if choice.finish_reason else []
    assert (said, ends) == (["1 turns, : x"] * 2, ["stop", "stop"])


def test_probabilities_come_in_openais_form(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="stub", messages=user("x"), logprobs=True, top_logprobs=2)
    chances = said.choices[0].logprobs
    assert chances is not None and chances.content is not None
    second = chances.content[1]
    assert (second.token, second.bytes, second.logprob) == (" turns,", list(b" turns,"), -0.5)
    assert [(top.token, top.logprob) for top in second.top_logprobs] == [(" turns,", -0.5), ("?", -9999.0)]


def test_probabilities_are_streamed_with_their_words(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="stub", messages=user("x"), logprobs=True, stream=True)
    found = [chunk.choices[0].logprobs for chunk in stream]
    tokens = [token.token for one in found if one and one.content for token in one.content]
    assert "".join(tokens) == "1 turns, : x"


def test_an_answer_that_is_cut_says_so(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="stub", messages=user("x"), max_tokens=2)
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("1 turns,", "length")


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"max_tokens": 10**9}, "max_tokens", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": user("an <image> of")}, "messages[0].content", "invalid_value"),
        ({"messages": user([picture(1)] * 17)}, "messages", "too_many_images"),
        ({"messages": user([text("a"), BROKEN])}, "messages[0].content[1].image_url", "invalid_image"),
        ({"messages": user("too long")}, "messages", "invalid_value"),
    ],
)
def test_a_wrong_parameter_is_named(address: str, more: dict[str, Any], param: str, code: str) -> None:
    status, said = ask(address, {**question(), **more})
    assert (status, said["error"]["param"], said["error"]["code"]) == (400, param, code)
    assert said["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_named_with_those_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model `gpt-5` here; there is stub, other") as failed:
        client.chat.completions.create(model="gpt-5", messages=user("x"))
    assert failed.value.code == "model_not_found"


def test_a_full_queue_says_when_to_come_again(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as failed:
        client.chat.completions.create(model="stub", messages=user("be busy"))
    assert failed.value.response.headers["retry-after"] == "8"


@pytest.mark.parametrize(("words", "status"), [("time out", 504), ("fall over", 500)])
def test_a_failed_answer_has_a_status_of_its_own(address: str, words: str, status: int) -> None:
    found, said = ask(address, question(words))
    assert (found, said["error"]["type"]) == (status, "server_error")


def test_a_failure_in_the_middle_of_a_stream_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="the model fell over"):
        list(client.chat.completions.create(model="stub", messages=user("fall over"), stream=True))


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["stub", "other"]
    assert client.models.retrieve("other").owned_by == "bunny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("third")


def test_two_models_answer_on_one_server(client: openai.OpenAI) -> None:
    for name in ("stub", "other"):
        assert client.chat.completions.create(model=name, messages=user("x")).model == name


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing/at/all", "/nothing.js"])
def test_an_unknown_address_is_told_in_the_same_form(address: str, path: str) -> None:
    status, _, body = get(address, path)
    assert (status, json.loads(body)["error"]["type"]) == (404, "invalid_request_error")


def test_a_wrong_method_names_the_right_one(address: str) -> None:
    status, headers, body = get(address, "/v1/chat/completions")
    assert (status, headers["allow"], json.loads(body)["error"]["message"]) == (405, "POST", "Method Not Allowed")


def test_figures_are_prometheus_text(address: str) -> None:
    ask(address, question("count me"))
    _, headers, body = get(address, "/metrics")
    lines = body.decode().splitlines()
    assert headers["content-type"].startswith("text/plain")
    figures = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert figures['bunny_http_requests_total{path="/v1/chat/completions",status="200"}'] >= 1
    assert figures['bunny_tokens_total{kind="prompt",model="stub"}'] >= 5
    assert figures['bunny_first_token_seconds_count{model="stub"}'] >= 1
    assert figures['bunny_engine_steps_total{model="stub"}'] >= 1
    assert figures["bunny_in_flight"] == 0 and figures["bunny_ready"] == 1


def test_the_page_is_told_what_it_needs(address: str) -> None:
    status, _, body = get(address, "/page/config.json")
    config = json.loads(body)
    assert (status, config["models"], config["links"], config["key_needed"]) == (200, ["stub", "other"], [], False)
    assert config["limits"]["pictures"] == 16


def test_the_page_and_its_files_are_served_with_a_strict_policy(address: str) -> None:
    for path, kind in (("/", "text/html"), ("/main.js", "text/javascript"), ("/look.css", "text/css")):
        status, headers, _ = get(address, path)
        assert status == 200 and headers["content-type"].startswith(kind)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "http" not in policy


def test_too_many_requests_at_once_are_sent_away() -> None:
    stub = Stub()
    with served(stub, rules=Rules(limits=Limits(requests=0))) as address:
        status, said = ask(address, question())
    assert (status, said["error"]["code"]) == (429, "busy")


def test_memory_for_pictures_is_shared_by_all() -> None:
    stub = Stub()
    with served(stub, rules=Rules(limits=Limits(held_bytes=50_000))) as address:
        assert ask(address, question([picture(100, 100), text("?")]))[0] == 200
        status, said = ask(address, question([picture(100, 100), picture(100, 100), text("?")]))
        assert (status, said["error"]["code"]) == (429, "memory")
        assert ask(address, question([picture(100, 100), text("?")]))[0] == 200
