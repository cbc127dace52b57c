"""A Bunny as an `Answerer`: what evaluation asks.

In: questions. Out: answers. Questions about the same pictures are answered behind one copy of what they share; an
unreadable picture gives an answer with `error` set, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import IMAGE_MARK, Answer, GenerationSettings, ImageRef, Question, Turn
from bunny.infer.generate import Generator, Request


class ModelAnswerer:
    """Answers with a loaded model.

    name: identifies the weights (part of the answer cache's key). open_image: ImageRef -> PIL picture.
    """

    def __init__(
        self,
        generator: Generator,
        name: str,
        open_image: Callable[[ImageRef], Any],
        settings: GenerationSettings,
        batch_rows: int = 32,
    ) -> None:
        self.generator, self.open_image, self.settings, self.batch_rows = generator, open_image, settings, batch_rows
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One answer per question: whole pictures together, `batch_rows` questions at a time, short ones first."""
        groups: dict[tuple[ImageRef, ...], list[Question]] = {}
        for question in sorted(questions, key=lambda question: len(question.prompt)):
            groups.setdefault(question.images, []).append(question)
        batch: list[tuple[Question, tuple[Any, ...]]] = []
        for refs in sorted(groups, key=len):  # text-only questions are not padded into a picture's batch
            try:
                pictures = tuple(self.open_image(ref) for ref in refs)
            except UserError as error:
                yield from (Answer(question.id, "", error=str(error)) for question in groups[refs])
                continue
            for question in groups[refs]:
                if len(batch) == self.batch_rows or (batch and len(batch[0][1]) != len(pictures)):
                    yield from self._batch(batch)
                    batch = []
                batch.append((question, pictures))
        if batch:
            yield from self._batch(batch)

    def _batch(self, batch: list[tuple[Question, tuple[Any, ...]]]) -> Iterator[Answer]:
        requests = [
            Request((Turn("user", f"{IMAGE_MARK}\n" * len(pictures) + question.prompt),), pictures)
            for question, pictures in batch
        ]
        for (question, _), text in zip(batch, self.generator.answer(requests, self.settings), strict=True):
            yield Answer(question.id, text)
