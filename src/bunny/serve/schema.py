"""What a request for an answer may say: OpenAI's chat completion, the part of it that a vision-language model can do.

In: a JSON object. Out: a `ChatCompletionRequest`, or an `ApiError` that names the parameter. Nothing that would change
an answer is ignored in silence; what only labels a request is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from bunny.serve.failures import ApiError

LABELS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
"""Parameters that are taken and change nothing."""

UNSUPPORTED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "presence_penalty": ((None, 0), "use repetition_penalty"),
    "frequency_penalty": ((None, 0), "use repetition_penalty"),
    "logit_bias": ((None, {}), ""),
    "response_format": ((None, {"type": "text"}), "answers are text"),
    "tools": ((None, []), "the model calls no tools"),
    "tool_choice": ((None, "none", "auto"), "the model calls no tools"),
    "functions": ((None, []), "the model calls no functions"),
    "function_call": ((None, "none", "auto"), "the model calls no functions"),
    "modalities": ((None, ["text"]), "answers are text"),
    "audio": ((None,), "answers are text"),
    "prediction": ((None,), ""),
    "reasoning_effort": ((None, "none"), "the model does not reason apart from its answer"),
    "verbosity": ((None, "medium"), "say in the prompt how long an answer should be"),
    "web_search_options": ((None,), "nothing is looked up"),
    "moderation": ((None,), ""),
    "top_k": ((None, 0, -1), "use top_p"),
    "min_p": ((None, 0), "use top_p"),
}
"""Known parameters that are not implemented: values that ask for nothing, and what to do."""


class Part(BaseModel):
    """A record of the protocol: other fields are errors, and no type is guessed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Part):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(Part):
    """Where a picture is: a `data:` address; http(s) or a file name only where the server allows them."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="Without effect: a model has one picture size."
    )


class ImagePart(Part):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _form(content: Any) -> str:
    return "=text" if isinstance(content, str) else "=parts"


def _kind(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    return {"text": "=words", "image_url": "=picture"}.get(kind) if isinstance(kind, str) else None


PartOf = Annotated[
    Annotated[TextPart, Tag("=words")] | Annotated[ImagePart, Tag("=picture")],
    Discriminator(
        _kind, custom_error_type="part", custom_error_message="a part is an object of type `text` or `image_url`"
    ),
]
Words = Annotated[
    Annotated[str, Tag("=text")] | Annotated[list[TextPart], Tag("=parts"), Field(min_length=1, max_length=256)],
    Discriminator(_form),
]
WordsAndPictures = Annotated[
    Annotated[str, Tag("=text")] | Annotated[list[PartOf], Tag("=parts"), Field(min_length=1, max_length=256)],
    Discriminator(_form),
]


class Message(Part):
    """Fields that any message may have, to no effect."""

    name: str | None = None


class SystemMessage(Message):
    """How to answer."""

    role: Literal["system", "developer"]
    content: Words


class UserMessage(Message):
    """What is asked. Pictures stand where their parts do."""

    role: Literal["user"]
    content: WordsAndPictures


class AssistantMessage(Message):
    """What was answered. The fields without use are there so that an answer can be sent back as it came."""

    role: Literal["assistant"]
    content: Words
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


def _role(message: Any) -> str | None:
    role = message.get("role") if isinstance(message, dict) else None
    roles = {"system": "=system", "developer": "=system", "user": "=user", "assistant": "=assistant"}
    return roles.get(role) if isinstance(role, str) else None


AnyMessage = Annotated[
    Annotated[SystemMessage, Tag("=system")]
    | Annotated[UserMessage, Tag("=user")]
    | Annotated[AssistantMessage, Tag("=assistant")],
    Discriminator(
        _role,
        custom_error_type="role",
        custom_error_message="a message is an object with the role system, developer, user or assistant",
    ),
]


def _stop_form(stop: Any) -> str:
    return "=one" if isinstance(stop, str) else "=several"


StopText = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[
    Annotated[StopText, Tag("=one")] | Annotated[list[StopText], Tag("=several"), Field(max_length=4, min_length=1)],
    Discriminator(_stop_form),
]


class StreamOptions(Part):
    """include_usage: whether a last piece counts the tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Without effect.")


class ChatCompletionRequest(Part):
    """A conversation and how to answer it. Also accepted, to no effect: user, metadata, store, service_tier,
    safety_identifier, prompt_cache_key, prompt_cache_retention, parallel_tool_calls."""

    model_config = ConfigDict(title="ChatCompletionRequest")

    model: str = Field(min_length=1, max_length=256)
    messages: list[AnyMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="Goes before max_tokens.")
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default: the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1)
    stop: Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10, description="Not OpenAI's; 1, the default: none.")


def read_request(tree: dict[str, Any]) -> ChatCompletionRequest:
    """A request from its JSON object. Raises ApiError 400 that names the parameter."""
    wanted = {name: value for name, value in tree.items() if name not in LABELS and not _asks_nothing(name, value)}
    try:
        request = ChatCompletionRequest.model_validate(wanted)
    except ValidationError as error:
        raise _told(error) from None
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs", code="invalid_value")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options needs stream", param="stream_options", code="invalid_value")
    return request


def _asks_nothing(name: str, value: Any) -> bool:
    """Whether it is a known parameter with a value that asks for nothing. Raises ApiError for any other value."""
    if name not in UNSUPPORTED:
        return False
    harmless, instead = UNSUPPORTED[name]
    if not isinstance(value, bool) and value in harmless:
        return True
    message = f"{name} is not supported{f': {instead}' if instead else ''}"
    raise ApiError(400, message, param=name, code="unsupported_parameter")


def _told(error: ValidationError) -> ApiError:
    """The first mistake, with its place as OpenAI writes it: `messages[0].content`."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ""
    for step in first["loc"]:
        if isinstance(step, int):
            place += f"[{step}]"
        elif not step.startswith("="):  # a tag of ours
            place += f".{step}" if place else step
    place = place[:200]
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {place}", param=place, code="unknown_parameter")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{place}: {first['msg']}", param=place or None, code=code)
