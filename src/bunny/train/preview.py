"""What the model in training says to a few fixed questions, every so many steps: a page to look at, and JSON lines.

In: the model as it trains, a few rows of its set and of a set held out, how to answer (lent by the layer above). Out:
`previews/step-000100.html`, self-contained: picture, question, wanted answer, present answer, earlier answers; and
`previews.jsonl`. Training is not touched by it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bunny.core.errors import UserError
from bunny.core.log import Metrics, log
from bunny.core.store import write_atomic
from bunny.core.types import IMAGE_MARK, ImageRef, Question, Sample

Answer = Callable[[Any, Any, Sequence[Question]], list[str]]
"""(Bunny, processor, questions) -> one greedy answer each."""

Thumbnail = Callable[[ImageRef], str]
"""A small picture as a `data:` address."""

ROWS = 6
"""Rows of the training set that are asked."""

EARLIER = 8
"""Earlier answers that a page shows, at most."""

_TEMPLATE = Path(__file__).with_name("preview.html.j2")


def questions_of(samples: Iterable[Sample], count: int = ROWS) -> list[Question]:
    """The first question and answer of the first rows with pictures, each about other pictures."""
    found: dict[tuple[ImageRef, ...], Question] = {}
    for sample in samples:
        if len(found) == count:
            break
        if not sample.images or sample.images in found:
            continue
        asked = next((turn.text for turn in sample.turns if turn.role == "user"), "")
        wanted = next((turn.text for turn in sample.turns if turn.role == "assistant"), "")
        pictures = sample.images[: asked.count(IMAGE_MARK)] or sample.images
        prompt = re.sub(rf"\s*{re.escape(IMAGE_MARK)}\s*", "\n", asked).strip()
        found[sample.images] = Question(sample.id, prompt, pictures, (wanted,))
    return list(found.values())


class Preview:
    """Asks, and writes pages. trained, held_out: the questions, always the same."""

    def __init__(
        self,
        folder: Path,
        name: str,
        answer: Answer,
        thumbnail: Thumbnail,
        trained: Sequence[Question],
        held_out: Sequence[Question] = (),
    ) -> None:
        self.folder, self.name, self.answer = folder, name, answer
        self.questions = [*((one, False) for one in trained), *((one, True) for one in held_out)]
        self.record = Metrics(folder, "previews.jsonl")
        self._thumbnail, self._shown = thumbnail, dict[ImageRef, str]()

    def forget_after(self, step: int) -> None:
        """A run goes on from this step: later answers are given again."""
        self.record.forget_after(step)
        for page in (self.folder / "previews").glob("step-*.html"):
            if (number := page.stem.removeprefix("step-")).isdecimal() and int(number) > step:
                page.unlink()

    def write(self, model: Any, processor: Any, step: int) -> Path:
        """The page of this step."""
        texts = self.answer(model, processor, [question for question, _ in self.questions])
        before = self.record.read()
        rows = []
        for (question, held_out), text in zip(self.questions, texts, strict=True):
            earlier = [(row["step"], row["answer"]) for row in before if row["id"] == question.id]
            rows.append(
                {
                    "held_out": held_out,
                    "pictures": [self._picture(ref) for ref in question.images],
                    "question": question.prompt,
                    "wanted": question.gold[0] if question.gold else "",
                    "answer": text,
                    "earlier": list(reversed(earlier))[:EARLIER],
                }
            )
            self.record.write(
                step=step,
                id=question.id,
                held_out=held_out,
                question=question.prompt,
                wanted=rows[-1]["wanted"],
                answer=text,
            )
        page = self.folder / "previews" / f"step-{step:06d}.html"
        page.parent.mkdir(exist_ok=True)
        write_atomic(page, _page(name=self.name, step=step, rows=rows))
        log.info("%s: answers after step %d: %s", self.name, step, page)
        return page

    def _picture(self, ref: ImageRef) -> str:
        """The thumbnail, or nothing (with a warning, once) where the picture cannot be read."""
        if ref not in self._shown:
            try:
                self._shown[ref] = self._thumbnail(ref)
            except (UserError, OSError, ValueError) as error:
                log.warning("previews: no thumbnail of %s: %s", ref, error)
                self._shown[ref] = ""
        return self._shown[ref]


def first_of_each(questions: Iterable[Question], count: int = ROWS) -> list[Question]:
    """The first question about each of the first so many pictures."""
    by_picture: dict[tuple[ImageRef, ...], Question] = {}
    for question in questions:
        if question.images:
            by_picture.setdefault(question.images, question)
        if len(by_picture) == count:
            break
    return list(itertools.islice(by_picture.values(), count))


def _page(**values: Any) -> str:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(**values)
