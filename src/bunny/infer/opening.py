"""Pictures decoded ahead: while a model computes, threads open what it needs next.

In: portions of questions, each about the same pictures. Out: the portions in their order, with decoded pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Question


@dataclass(frozen=True, slots=True)
class Opened:
    """Questions and their decoded pictures, or why these cannot be had."""

    questions: list[Question]
    images: tuple[Any, ...] = ()
    error: str = ""


def opened(
    portions: Iterable[list[Question]], open_image: Callable[[ImageRef], Any], workers: int, ahead: int = 64
) -> Iterator[Opened]:
    """Every portion with its pictures, in order; at most `ahead` portions wait decoded."""

    def read(questions: list[Question]) -> Opened:
        try:
            return Opened(questions, tuple(open_image(ref) for ref in questions[0].images))
        except UserError as error:
            return Opened(questions, error=str(error))

    with ThreadPoolExecutor(max(workers, 1), "pictures") as pool:
        waiting: deque[Future[Opened]] = deque()
        try:
            for portion in portions:
                waiting.append(pool.submit(read, portion))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
