"""Benchmarks whose gold is ten people's short answers: VQAv2, TextVQA and VizWiz share how answers are compared.

In: the answer, ten answers as they stand in the official file. Out: soft accuracy under each profile's normal form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar

from bunny.core.types import Parsed, Question
from bunny.evaluate.official.benchmark import OfficialBenchmark, Profile
from bunny.evaluate.official.vqa_text import evalai, soft_accuracy, vlmevalkit, vqa_eval, vqa_eval_accuracy
from bunny.evaluate.parse import normalise

Form = Callable[[str], str]


class PeoplesAnswers(OfficialBenchmark):
    """Soft accuracy against ten people. The answer itself is kept as it stands; only comparing normalises it."""

    FORMS: ClassVar[dict[Profile, Form]] = {
        "bunny": evalai,
        "official": evalai,
        "strict": normalise,
        "lmms_eval": evalai,
        "vlmevalkit": vlmevalkit,
    }
    RULES: ClassVar = {
        "bunny": "EvalAI's normal form, as M4C uses it",
        "official": "EvalAI's normal form, as M4C uses it",
        "strict": "lower case, without punctuation; number words and articles stay",
        "lmms_eval": "EvalAI's normal form, as M4C uses it",
        "vlmevalkit": "VQAEval's normal form with the period rule mended; 's is not set off",
    }

    def credit(self, question: Question, parsed: Parsed) -> float:
        """The share of people that agree, a third of a point each. An answer that is not there agrees with nobody."""
        form = self.FORMS[self.profile]
        return soft_accuracy([_formed(form, answer) for answer in question.gold], form(parsed.value))


class Vqa2Answers(PeoplesAnswers):
    """The same by VQAv2's own evaluation code."""

    FORMS: ClassVar[dict[Profile, Form]] = {**PeoplesAnswers.FORMS, "official": vqa_eval, "lmms_eval": vqa_eval}
    RULES: ClassVar = {
        **PeoplesAnswers.RULES,
        "bunny": "EvalAI's normal form, then VQAEval's unless all ten people agree",
        "official": "VQAEval: normalised unless all ten people gave the same answer",
        "lmms_eval": "VQAEval's normal form, always",
    }

    def credit(self, question: Question, parsed: Parsed) -> float:
        if self.profile in ("bunny", "official"):
            said = evalai(parsed.value) if self.profile == "bunny" else parsed.value
            return vqa_eval_accuracy(question.gold, said)
        return super().credit(question, parsed)


@lru_cache(maxsize=1 << 16)
def _formed(form: Form, text: str) -> str:
    return form(text)
