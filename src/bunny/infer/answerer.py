"""A Bunny as an `Answerer`: what evaluation asks.

In: questions. Out: answers. Questions about the same pictures are answered behind one copy of what they share; an
unreadable picture gives an answer with `error` set, never a guess. Pictures are decoded by other threads meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bunny.core.types import IMAGE_MARK, Answer, GenerationSettings, ImageRef, Question, Turn
from bunny.infer.generate import Generator, Request
from bunny.infer.opening import Opened, opened


class ModelAnswerer:
    """Answers with a loaded model.

    name: identifies the weights (part of the answer cache's key). open_image: ImageRef -> PIL picture.
    batch_rows: questions computed together at most. workers: threads that decode pictures ahead.
    """

    def __init__(
        self,
        generator: Generator,
        name: str,
        open_image: Callable[[ImageRef], Any],
        settings: GenerationSettings,
        batch_rows: int = 32,
        workers: int = 2,
    ) -> None:
        self.generator, self.open_image, self.settings, self.batch_rows = generator, open_image, settings, batch_rows
        self.workers = workers
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One answer per question, batch by batch; the pictures of a batch are in memory, and those of the next."""
        batch: list[tuple[Opened, Question]] = []
        for pictures in opened(_portions(questions, self.batch_rows), self.open_image, self.workers):
            if pictures.error:
                yield from (Answer(question.id, "", error=pictures.error) for question in pictures.questions)
                continue
            others = batch and len(batch[0][0].images) != len(pictures.images)  # they would be padded
            if others or len(batch) + len(pictures.questions) > self.batch_rows:
                yield from self._batch(batch)
                batch = []
            batch += [(pictures, question) for question in pictures.questions]
        yield from self._batch(batch)

    def _batch(self, batch: list[tuple[Opened, Question]]) -> Iterator[Answer]:
        if not batch:
            return
        requests = [
            Request((Turn("user", f"{IMAGE_MARK}\n" * len(pictures.images) + question.prompt),), pictures.images)
            for pictures, question in batch
        ]
        for (_, question), text in zip(batch, self.generator.answer(requests, self.settings), strict=True):
            yield Answer(question.id, text)


def _portions(questions: Sequence[Question], most: int) -> Iterable[list[Question]]:
    """Questions about the same pictures, at most so many together: none before pictures, few pictures before many,
    short questions before long ones, so that a batch has little padding."""
    groups: dict[tuple[ImageRef, ...], list[Question]] = {}
    for question in sorted(questions, key=lambda question: len(question.prompt)):
        groups.setdefault(question.images, []).append(question)
    for group in sorted(groups.values(), key=lambda group: (len(group[0].images), len(group[-1].prompt))):
        portions = -(-len(group) // most)
        size = -(-len(group) // portions)  # equal portions: a last one of two questions would read everything again
        yield from (group[start : start + size] for start in range(0, len(group), size))
