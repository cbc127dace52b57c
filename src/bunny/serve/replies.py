"""What is answered: OpenAI's records of a completion, a piece of one, a model and an error."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Chance(BaseModel):
    """A token, its natural logarithm of probability, and its bytes (a token may be part of a letter)."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Chance):
    """A token of the answer and the likeliest in its place."""

    top_logprobs: list[Chance]


class ChoiceLogprobs(BaseModel):
    """Every token of an answer, or of a piece of it."""

    content: list[TokenLogprob] | None
    refusal: None = None


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    """cached_tokens: of the prompt, that did not have to be read."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens; those of the prompt are counted once, whatever `n`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(BaseModel):
    """An answer as a whole. created: seconds since 1970."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What came to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """What came to one of the answers; at its end, why it ended."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Model(BaseModel):
    """A model that answers here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class ErrorDetail(BaseModel):
    """What is wrong, with which parameter, and a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok", "loading", "stopping"]
