"""Talk to a trained model: one question, or a conversation that remembers.

In: a model folder, picture paths, words. Out: the answer, whole or piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import IMAGE_MARK, GenerationSettings, ImageRef, Turn


class Chat:
    """A loaded model. `bunny.load(PATH)` returns one.

    >>> bunny.load("runs/demo/model").chat(["cat.png"], "What is this?")  # doctest: +SKIP
    'a cat'
    """

    def __init__(self, path: str | Path) -> None:
        from bunny.infer.generate import Generator
        from bunny.model.build import load

        self.model, self.processor = load(path)
        self._generator = Generator(self.model, self.processor)

    def chat(self, images: Sequence[Any], question: str, settings: GenerationSettings | None = None) -> str:
        """The answer to one question about pictures (paths or PIL pictures). Raises UserError for a bad picture."""
        conversation = Conversation(self, settings or GenerationSettings())
        return "".join(conversation.ask(question, images)).strip()


class Conversation:
    """Turns that remember the ones before. model: a `Chat` or a model folder."""

    def __init__(self, model: Chat | str | Path, settings: GenerationSettings) -> None:
        self._chat = model if isinstance(model, Chat) else Chat(model)
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget all turns and pictures."""
        self._turns: list[Turn] = []
        self._pictures: list[Any] = []

    def ask(self, text: str, images: Sequence[Any] = ()) -> Iterator[str]:
        """The answer piece by piece; it is remembered when it is complete."""
        from bunny.infer.generate import Request

        if not text.strip() and not images:
            raise UserError("an empty question", fix="write what you want to know")
        if IMAGE_MARK in text:
            raise UserError(f"the question holds {IMAGE_MARK}", fix="give pictures as files, not as marks")
        pictures = [*self._pictures, *(_opened(image) for image in images)]
        turns = [*self._turns, Turn("user", f"{IMAGE_MARK}\n" * len(images) + text)]
        answer = ""
        for piece in self._chat._generator.stream(Request(tuple(turns), tuple(pictures)), self.settings):
            answer += piece
            yield piece
        self._turns, self._pictures = [*turns, Turn("assistant", answer.strip())], pictures


def chat(model_path: str, images: list[str], question: str, settings: GenerationSettings) -> str:
    """One answer from a model folder."""
    return Chat(model_path).chat(images, question, settings)


def _opened(image: Any) -> Any:
    if not isinstance(image, (str, Path)):
        return image
    from bunny.data.images import open_image

    return open_image(ImageRef(str(image)))
