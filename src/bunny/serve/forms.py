"""An engine's events in the protocol's form: a whole completion, or its pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bunny.core.chat import Finished, Piece, TokenChance
from bunny.serve.failures import ApiError
from bunny.serve.replies import (
    AnswerMessage,
    Chance,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    PromptDetails,
    TokenLogprob,
    Usage,
)

IMPOSSIBLE = -9999.0  # in place of minus infinity, which JSON lacks


@dataclass(frozen=True, slots=True)
class Head:
    """What every record of one completion begins with. created: seconds since 1970."""

    id: str
    created: int
    model: str


@dataclass(slots=True)
class Collected:
    """One answer as it grows."""

    pieces: list[Piece] = field(default_factory=list)
    end: Finished | None = None


def whole(head: Head, answers: Sequence[Collected], logprobs: bool) -> ChatCompletion:
    """A completion of answers that have all ended."""
    choices = []
    for index, answer in enumerate(answers):
        text = "".join(piece.text for piece in answer.pieces)
        chances = [chance for piece in answer.pieces for chance in piece.chances]
        choices.append(
            Choice(
                index=index,
                message=AnswerMessage(role="assistant", content=text, refusal=None),
                logprobs=_logprobs(chances) if logprobs else None,
                finish_reason=_reason(answer.end),
            )
        )
    ends = [answer.end for answer in answers if answer.end is not None]
    return ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        choices=choices,
        usage=usage(ends),
    )


def opening(head: Head, count: int, with_usage: bool) -> Iterator[ChatCompletionChunk]:
    """A first piece for each answer: who speaks."""
    for index in range(count):
        yield _chunk(head, [ChunkChoice(index=index, delta=Delta(role="assistant", content=""))], with_usage)


def more(head: Head, index: int, piece: Piece, logprobs: bool, with_usage: bool) -> ChatCompletionChunk:
    """A piece of an answer."""
    choice = ChunkChoice(index=index, delta=Delta(content=piece.text), finish_reason=None)
    if logprobs:
        choice.logprobs = _logprobs(piece.chances)
    return _chunk(head, [choice], with_usage)


def ending(head: Head, index: int, end: Finished, with_usage: bool) -> ChatCompletionChunk:
    """The last piece of an answer: why it ended."""
    return _chunk(head, [ChunkChoice(index=index, delta=Delta(), finish_reason=_reason(end))], with_usage)


def counted(head: Head, ends: Sequence[Finished]) -> ChatCompletionChunk:
    """The piece behind all others: tokens."""
    chunk = _chunk(head, [], True)
    chunk.usage = usage(ends)
    return chunk


def usage(ends: Sequence[Finished]) -> Usage:
    """The tokens of all answers to one prompt. It is found again whole by the second answer; what counts is what the
    first one found."""
    prompt = ends[0].prompt_tokens
    completion = sum(end.completion_tokens for end in ends)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=min(end.cached_tokens for end in ends)),
    )


def check(end: Finished) -> Finished:
    """The end of an answer, if it is a good one. Raises ApiError 500, 503, 504."""
    if end.reason == "timeout":
        raise ApiError(504, "the answer took longer than the server allows", code="timeout")
    if end.reason == "cancelled":
        raise ApiError(503, "the server stopped the answer", code="cancelled", retry_after_seconds=5)
    if end.reason == "error":
        raise ApiError(500, end.error or "the model failed", code="model_error")
    return end


def _reason(end: Finished | None) -> Literal["stop", "length"]:
    return "length" if end is not None and end.reason == "length" else "stop"


def _chunk(head: Head, choices: list[ChunkChoice], with_usage: bool) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk(
        id=head.id, object="chat.completion.chunk", created=head.created, model=head.model, choices=choices
    )
    if with_usage:
        chunk.usage = None  # set, so that it is written: OpenAI's pieces have it as null
    return chunk


def _logprobs(chances: Sequence[tuple[TokenChance, tuple[TokenChance, ...]]]) -> ChoiceLogprobs:
    tokens = [
        TokenLogprob(**_chance(own).model_dump(), top_logprobs=[_chance(other) for other in others])
        for own, others in chances
    ]
    return ChoiceLogprobs(content=tokens, refusal=None)


def _chance(one: TokenChance) -> Chance:
    logprob = one.logprob if math.isfinite(one.logprob) else IMPOSSIBLE
    return Chance(token=one.text, logprob=logprob, bytes=list(one.raw))
