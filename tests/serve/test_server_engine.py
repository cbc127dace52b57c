"""The real engine behind the real server, asked with clients that others wrote: a tiny random model's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from huggingface_hub import InferenceClient

from bunny.core.types import GenerationSettings, Turn
from bunny.infer.engine import Engine
from bunny.infer.generate import Generator, Request
from tests.infer.test_generate import generator, parts  # noqa: F401  # a fixture
from tests.infer.test_generate import picture as noise
from tests.serve.hostile import data_url, encoded
from tests.serve.sending import get
from tests.serve.stub import served

WORDS = "is there a red circle in the picture?"


@pytest.fixture(scope="module")
def maker(parts: Path) -> Generator:  # noqa: F811
    return generator(parts)


@pytest.fixture(scope="module")
def address(maker: Generator) -> Iterator[str]:
    engine = Engine(maker.model, maker.processor, "tiny", running=4, queue=8)
    with served(engine) as found:
        yield found
    engine.close(0)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
        yield found


def messages(seed: int, words: str = WORDS) -> list[Any]:
    url = data_url(encoded(noise(seed), "PNG"))
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": words}]
    return [{"role": "user", "content": content}]


def alone(maker: Generator, seed: int) -> str:
    request = Request((Turn("user", f"<image>\n{WORDS}"),), (noise(seed),))
    return maker.answer([request], GenerationSettings(max_new_tokens=10))[0]


def test_an_answer_is_what_the_generator_says(client: openai.OpenAI, maker: Generator) -> None:
    said = client.chat.completions.create(model="tiny", messages=messages(1), max_tokens=10)
    assert (said.choices[0].message.content or "").strip() == alone(maker, 1) != ""
    assert said.usage is not None and 0 < said.usage.completion_tokens <= 10


def test_a_picture_asked_again_is_found_again(client: openai.OpenAI, address: str) -> None:
    first, second = (client.chat.completions.create(model="tiny", messages=messages(7), max_tokens=3) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content
    assert second.usage is not None and second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens == second.usage.prompt_tokens - 1
    assert b"bunny_engine_cached_tokens_total" in get(address, "/metrics")[2]


def test_many_clients_at_once_get_their_own_answers(address: str, maker: Generator) -> None:
    async def one(asking: openai.AsyncOpenAI, seed: int) -> str:
        stream = await asking.chat.completions.create(model="tiny", messages=messages(seed), max_tokens=10, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as asking:
            return await asyncio.gather(*(one(asking, seed) for seed in range(1, 9)))

    assert [said.strip() for said in asyncio.run(all_of_them())] == [alone(maker, seed) for seed in range(1, 9)]


def test_a_seed_gives_the_same_answer_again(client: openai.OpenAI) -> None:
    def said(**more: Any) -> list[str | None]:
        answer = client.chat.completions.create(
            model="tiny", messages=messages(2), max_tokens=8, temperature=1.0, **more
        )
        return [choice.message.content for choice in answer.choices]

    assert said(seed=5) == said(seed=5) != said(seed=6)
    assert said(seed=5, n=2)[0] == said(seed=5)[0]


def test_probabilities_are_of_the_tokens_given(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="tiny", messages=messages(3), max_tokens=5, logprobs=True, top_logprobs=3
    ).choices[0]
    assert said.logprobs is not None and said.logprobs.content is not None
    for token in said.logprobs.content:  # greedy: the token given is the likeliest
        assert token.logprob == max(other.logprob for other in token.top_logprobs) <= 0
        assert len(token.top_logprobs) == 3
    given = b"".join(bytes(token.bytes or ()) for token in said.logprobs.content).decode("utf-8", "replace")
    assert given.replace("<|endoftext|>", "") == said.message.content  # words leave control tokens out


def test_words_that_look_like_control_tokens_stay_words(client: openai.OpenAI) -> None:
    def tokens(words: str) -> int:
        said = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": words}], max_tokens=1)
        assert said.usage is not None
        return said.usage.prompt_tokens

    assert tokens("a<|im_end|>b") - tokens("ab") > 1  # one token would have ended the turn


def test_a_prompt_that_is_too_long_is_the_askers_mistake(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the model reads 512"):
        client.chat.completions.create(model="tiny", messages=messages(1, "x " * 2000), max_tokens=4)


def test_hugging_faces_client_is_answered(address: str, maker: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it would not even ask this machine
    client = InferenceClient(base_url=f"{address}/v1", api_key="none")
    said = client.chat_completion(messages(4), model="tiny", max_tokens=10)
    assert (said.choices[0].message.content or "").strip() == alone(maker, 4)
    stream = client.chat_completion(messages(4), model="tiny", max_tokens=10, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream).strip() == alone(maker, 4)
