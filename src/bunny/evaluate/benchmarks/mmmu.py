"""MMMU: college questions of 30 subjects, choices and open ones (Yue et al. 2023, arXiv:2311.16502; validation).

In: `SUBJECT/validation-*.parquet` (everything), or `answer_dict_val.json` (gold alone, enough to score), or nothing for
answer folders that carry the gold themselves. Headline: accuracy. The official script draws at random what it cannot
read, subject after subject, from one seed; the draws are repeated here. A mapping id -> answer is taken as read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bunny.core.types import ImageRef, Parsed, Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.files import json_of, need, parquet_of, write_json
from bunny.evaluate.official import letters, mmmu_text
from bunny.evaluate.official.benchmark import DataFile, OfficialBenchmark, Read
from bunny.evaluate.official.mmmu_questions import CHOICE, HOME, example_table, parse_table, question_of
from bunny.evaluate.official.mmmu_tables import SUBJECTS, by_subject, drawn, number_of, overall, printed, subject_of
from bunny.evaluate.parse import choice, normalise

GOLD = "answer_dict_val.json"
COLUMNS = ("id", "question", "options", "answer", "question_type")


class Mmmu(OfficialBenchmark):
    """900 questions (validation)."""

    name: str = "mmmu"
    FILES: ClassVar = (
        DataFile(
            GOLD,
            "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/mmmu",
            900,
            "76080f5597b8f4d29abba8551489c4b82e4a285b9d62b946fd67a1952e95502c",
        ),
        *(DataFile(f"{subject}/validation-*.parquet", HOME, 30, pictures=True) for subject in SUBJECTS),
    )
    RULES: ClassVar = {
        **dict.fromkeys(
            ("bunny", "official"), "MMMU's parser: (B), then B alone, then the choice's words; else a random letter"
        ),
        "strict": "the letter, or the only one that stands alone; open: equal words or number",
        "lmms_eval": "MMMU's parser, 'xB ' and 'B.' count too; open questions are never right",
        "vlmevalkit": "the only letter near the end, …; open questions are a choice of the answer or 'Other Answers'",
    }

    def load(self) -> list[Question]:
        tables = sorted(self.folder().glob("*/validation-*.parquet"))
        rows = [(path, n, row) for path in tables for n, row in enumerate(parquet_of(path, COLUMNS))]
        if rows:
            return [question_of(row, ImageRef(str(path), str(n), "image_1")) for path, n, row in rows]
        gold = json_of(self.file(GOLD))
        known = [(id, *need(row, ("ground_truth", "question_type"), f"{GOLD}: {id}")) for id, row in gold.items()]
        return [question_of({"id": id, "answer": answer, "question_type": kind}) for id, answer, kind in known]

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        """Choices (and, without any file, gold) come from the answers; those of a mapping need no choices."""
        rows = {given.id: given.row for given in answers.given}
        carried = any("question_type" in row and "answer" in row for row in rows.values())
        if carried and not (self.has(GOLD) or self.has("Accounting")):
            return [question_of({**row, "options": row.get("index2ans")}) for row in rows.values()], answers
        questions = []
        for question in self.questions():
            options = {} if answers.kind == "mapping" else rows.get(question.id, {}).get("index2ans")
            meta = question.meta if options is None else MappingProxyType({**question.meta, "options": options})
            questions.append(replace(question, meta=meta))
        return questions, answers

    def read(self, question: Question, text: str) -> str:
        options, is_choice = question.meta["options"], question.meta["kind"] == CHOICE
        if self.profile == "vlmevalkit":
            other = {"A": str(question.gold[0] if question.gold else ""), "B": "Other Answers"}
            return letters.vlmevalkit(text, options or {} if is_choice else other) if options or not is_choice else text
        if not is_choice or not options:
            return text.strip()
        if self.profile == "strict":
            return choice(text, "".join(options)).value
        return mmmu_text.letter(text, options, lenient=self.profile == "lmms_eval")

    def guess(
        self, questions: Sequence[Question], said: Sequence[str], parsed: Sequence[Parsed], order: Sequence[int]
    ) -> list[Parsed]:
        if self.profile not in ("bunny", "official", "lmms_eval"):
            return list(parsed)
        file_order = {row: place if self.profile == "bunny" else 0 for place, row in enumerate(order)}
        ids = [question.id for question in questions]
        rows = sorted(order, key=lambda row: (subject_of(ids[row]), file_order[row], number_of(ids[row])))
        return drawn(parsed, rows, lambda row: list(questions[row].meta["options"]))

    def credit(self, question: Question, parsed: Parsed) -> float:
        if question.meta["kind"] == CHOICE:
            return float(parsed.value in question.gold)
        if self.profile == "vlmevalkit":
            return float(parsed.value == "A")
        if self.profile == "strict":
            number = mmmu_text.number_in(parsed.value)
            same = (normalise(parsed.value) == normalise(gold) for gold in question.gold if parsed.value)
            return float(any(same) or (number is not None and number in map(mmmu_text.number_in, question.gold)))
        return float(self.profile != "lmms_eval" and mmmu_text.is_right(question.gold, parsed.value))

    def parts(self, question: Question) -> Iterable[str]:
        return (subject_of(question.id),)

    def numbers(self, read: Read) -> dict[str, Any]:
        points = [self.credit(*pair) for pair in zip(read.questions, read.parsed, strict=True)]
        rows = sorted(read.order) if self.profile == "bunny" else range(len(points))  # the original skips gaps
        ids, counted = [read.questions[row].id for row in rows], [points[row] for row in rows]
        table = printed(by_subject(ids, counted))
        parse = parse_table(read, list(rows), counted)
        return {"headline": overall(table, parse), "numbers": table, "parse_and_eval": parse}

    def submission(self, read: Read, path: Path) -> None:
        write_json(path, {q.id: item.value for q, item in zip(read.questions, read.parsed, strict=True)})

    @classmethod
    def example(cls, folder: Path) -> Mmmu:
        example_table(folder)
        return cls(data=folder, profile="strict")


USE = Mmmu
