"""Messages of the protocol become the turns and pictures of a `ChatRequest`.

A user's words never become pictures or control tokens: the mark that stands for a picture is refused in them, and every
other special token is read as plain text (see `bunny.text.template`). Parts are joined as the model's own chat template
joins them: a picture's mark, a line break, the words.
"""

from __future__ import annotations

from collections.abc import Sequence

from bunny.core.types import IMAGE_MARK, Turn
from bunny.serve.budget import Share
from bunny.serve.failures import ApiError
from bunny.serve.limits import Limits
from bunny.serve.pictures import Pictures, Shown
from bunny.serve.schema import AnyMessage, AssistantMessage, ImagePart, PartOf, SystemMessage


def turns_of(messages: Sequence[AnyMessage], limits: Limits) -> tuple[list[Turn], list[tuple[str, str]]]:
    """The turns, and (address, place in the request) of every picture, in order. Raises ApiError 400, 413.

    System messages that follow one another are one turn.
    """
    if len(messages) > limits.messages:
        raise ApiError(400, f"more than {limits.messages} messages", param="messages", code="invalid_value")
    turns: list[Turn] = []
    pictures: list[tuple[str, str]] = []
    letters = 0
    for number, message in enumerate(messages):
        where = f"messages[{number}].content"
        parts = message.content if isinstance(message.content, list) else []
        text = _joined(parts, where, pictures) if parts else str(message.content)
        letters += len(text)
        _check_marks(message, where)
        role = "system" if isinstance(message, SystemMessage) else message.role
        if role == "system" and turns and turns[-1].role == "system":
            text = f"{turns.pop().text}\n\n{text}"
        turns.append(Turn(role, text))
    if letters > limits.prompt_characters:
        told = f"the messages have {letters} characters, the limit is {limits.prompt_characters}"
        raise ApiError(400, told, param="messages", code="context_length_exceeded")
    if len(pictures) > limits.pictures:
        told = f"{len(pictures)} pictures, the limit is {limits.pictures}"
        raise ApiError(400, told, param="messages", code="too_many_images")
    return turns, pictures


async def open_pictures(named: Sequence[tuple[str, str]], pictures: Pictures, share: Share) -> list[Shown]:
    """The pictures of a request, in order. Raises ApiError 400 that names the part, 429."""
    found: list[Shown] = []
    pixels_left = pictures.limits.request_pixels
    for url, where in named:
        try:
            shown, pixels = await pictures.open(url, share, pixels_left)
        except ApiError as error:
            error.param = error.param or where
            raise
        found.append(shown)
        pixels_left -= pixels
    return found


def _joined(parts: Sequence[PartOf], where: str, pictures: list[tuple[str, str]]) -> str:
    text = ""
    after_picture = False
    for number, part in enumerate(parts):
        if isinstance(part, ImagePart):
            pictures.append((part.image_url.url, f"{where}[{number}].image_url"))
            text += IMAGE_MARK
        else:
            text += f"\n{part.text}" if after_picture and not part.text.startswith("\n") else part.text
        after_picture = isinstance(part, ImagePart)
    return text


def _check_marks(message: AnyMessage, where: str) -> None:
    """Words with the mark would stand for a picture; in an answer that was given, it is plain text."""
    if isinstance(message, AssistantMessage):
        return
    words = message.content if isinstance(message.content, str) else ""
    if isinstance(message.content, list):  # joined without pictures: a mark can be spread over two parts
        words = "".join("\n" if isinstance(part, ImagePart) else part.text for part in message.content)
    if IMAGE_MARK in words:
        told = f"the text holds {IMAGE_MARK}, which stands for a picture; send pictures as image_url parts"
        raise ApiError(400, told, param=where, code="invalid_value")
