"""Instruction data by its texts: refusals, answers of the wrong length and repeated conversations go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from bunny.core.types import BoolArray, Decision, Pool
from bunny.curate.characters import count
from bunny.curate.minhash import repeats
from bunny.curate.patterns import first_kind, read_kinds
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import blocks

REFUSALS = Path(__file__).parents[1] / "refusals.yaml"


class Instructions(OrderedStep):
    """Looks at a conversation's user side (`question`) and assistant side (`answer`); the first fault is the reason.

    Refusals go as in the "unfiltered" sets that followed Vicuna and WizardLM; answer lengths as Alpaca's cleaning and
    "Long Is More for Alignment" (Zhao et al. 2024) weigh them; near repetitions as in Self-Instruct (Wang et al. 2023:
    nothing too like what is kept already), with MinHash as in Lee et al. 2022 in place of ROUGE-L. For likeness of
    meaning use {use: dedup, vectors: text}; to cap a question that many rows share, {use: balance, per: question}.
    """

    question: str = "question"  # the column of what is asked
    answer: str = "caption"  # the column of what is answered
    need_question: bool = True  # rows that ask nothing go
    refusals: bool = True  # answers of a kind in `curate/refusals.yaml` go
    min_answer_words: int = Field(1, ge=0)
    max_answer_words: int | None = Field(None, gt=0)
    max_likeness: float | None = Field(
        None, ge=0.5, le=1, description="shared runs of three words (Jaccard) from which a conversation is a repetition"
    )

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        answers = column(pool, self.answer, "instructions")
        asks = self.need_question or self.max_likeness is not None
        questions = column(pool, self.question, "instructions") if asks else answers
        reasons = np.full(len(pool), "", dtype=object)
        for (start, asked), (_, answered) in zip(blocks(questions), blocks(answers), strict=True):
            block = reasons[start : start + len(asked)]  # a view
            for fault, reason in self._faults(asked, answered):
                block[fault & (block == "")] = reason
            if self.refusals:
                kinds = first_kind(answered, read_kinds(REFUSALS), "answer is: ")
                block[block == ""] = kinds[block == ""]
        twin = np.full(len(pool), -1, np.int64)
        if self.max_likeness is not None:
            left = np.flatnonzero(reasons == "")
            kept = left[repeats(lambda: _talks(questions[left], answers[left]), len(left), self.max_likeness)]
            again = kept != left
            twin[left[again]] = kept[again]
            reasons[left[again]] = f"a conversation that stays has {self.max_likeness:.0%} of its words' runs"
        return decision(reasons, twin)

    def _faults(self, asked: list[str], answered: list[str]) -> Iterator[tuple[BoolArray, str]]:
        if self.need_question:
            yield count(asked).letters == 0, "no question"
        words = count(answered).words
        yield words < self.min_answer_words, f"answer of fewer than {self.min_answer_words} words"
        if self.max_answer_words is not None:
            yield words > self.max_answer_words, f"answer of more than {self.max_answer_words} words"


def _talks(questions: Any, answers: Any) -> Iterator[str]:
    """Question and answer of every row as one text."""
    for (_, asked), (_, answered) in zip(blocks(questions), blocks(answers), strict=True):
        yield from (f"{question}\n{answer}" for question, answer in zip(asked, answered, strict=True))


USE = Instructions
