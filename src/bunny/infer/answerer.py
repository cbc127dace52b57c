"""A Bunny as an `Answerer`: what evaluation asks.

In: questions. Out: answers. Questions about the same pictures are answered together behind one picture prefix; an
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
        """One answer per question, grouped by pictures, text-only questions sorted by length."""
        groups: dict[tuple[ImageRef, ...], list[Question]] = {}
        for question in questions:
            groups.setdefault(question.images, []).append(question)
        for refs, group in groups.items():
            group.sort(key=lambda question: len(question.prompt))
            try:
                pictures = tuple(self.open_image(ref) for ref in refs)
            except UserError as error:
                yield from (Answer(question.id, "", error=str(error)) for question in group)
                continue
            for start in range(0, len(group), self.batch_rows):
                yield from self._batch(group[start : start + self.batch_rows], pictures)

    def _batch(self, questions: list[Question], pictures: tuple[Any, ...]) -> Iterator[Answer]:
        marks = f"{IMAGE_MARK}\n" * len(pictures)
        requests = [Request((Turn("user", marks + question.prompt),), pictures) for question in questions]
        texts = self.generator.answer(requests, self.settings)
        for question, text in zip(questions, texts, strict=True):
            yield Answer(question.id, text)
