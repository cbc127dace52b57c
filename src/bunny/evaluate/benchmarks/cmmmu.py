"""CMMMU: Chinese college questions: choices 选择, judgements 判断, blanks 填空 (Zhang et al. 2024, 2401.11944; val).

In: `cmmmu-data-val-answer.jsonl` (questions and gold), `images/` (the files of `img_list`). Headline: accuracy. The
script draws at random what it cannot read, category after category, from one seed; the draws are repeated here (the
profile `bunny` in the order of the answers file, `lmms_eval` in that kit's). Rows with `answer` instead of `response`
are taken as read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bunny.core.types import Parsed, Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.files import jsonl_of, need, write_jsonl
from bunny.evaluate.official import cmmmu_text
from bunny.evaluate.official.benchmark import DataFile, OfficialBenchmark, Read, ask
from bunny.evaluate.official.cmmmu_asking import BLANK, CATEGORIES, CHOICE, JUDGE, among, draw_order, prompt, strictly
from bunny.evaluate.official.cmmmu_tables import tables
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.mmmu_tables import drawn
from bunny.evaluate.official.mmmu_text import number_in

GOLD = "cmmmu-data-val-answer.jsonl"
BUNNY = "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/cmmmu"
HOME = "https://huggingface.co/datasets/m-a-p/CMMMU"
READING = "the letters named most often; 对 if more parts say so; the blank's words; else random"


class Cmmmu(OfficialBenchmark):
    """900 questions (val)."""

    name: str = "cmmmu"
    FILES: ClassVar = (
        DataFile(GOLD, BUNNY, 900, "e2b61480555a6440e1b9530ddeb5fde4fb935582ff7a6e33b0f4d40d4f4aac87"),
        DataFile("images", HOME, pictures=True),
    )
    RULES: ClassVar = {
        **dict.fromkeys(("bunny", "official", "vlmevalkit"), f"CMMMU's script: {READING}"),
        "lmms_eval": f"{READING}, choices drawn first, then judgements, subject by subject",
        "strict": "letters alone; 对 or 错 alone; equal words or number; nothing random",
    }

    def load(self) -> list[Question]:
        questions = []
        for number, row in enumerate(jsonl_of(self.file(GOLD)), 1):
            where = f"{self.name}: question {number}"
            id, kind, text, category = need(row, ("id", "type", "question", "category"), where)
            options = {letter: row.get(f"option{n}") for n, letter in enumerate("ABCD", 1)} if kind == CHOICE else {}
            known = {letter: str(words) for letter, words in options.items() if words is not None}
            pictures = row.get("img_list") or [f"{id}.jpg"]
            image = self.folder() / "images" / str(pictures[0])
            gold = [row["answer"]] if row.get("answer") else []
            meta = {"kind": kind, "category": category, "choices": known, "as_is": False, "place": number}
            meta["subject"] = row.get("subcategory", "")
            questions.append(ask(id, prompt(kind, text, known), image, gold, str(id), **meta))
        return questions

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        questions = self.questions()
        if all("response" not in given.row and "answer" in given.row and not given.prompt for given in answers.given):
            questions = [replace(q, meta=MappingProxyType({**q.meta, "as_is": True})) for q in questions]
        return questions, answers

    def read(self, question: Question, text: str) -> str:
        kind = question.meta["kind"]
        if question.meta["as_is"] or kind == BLANK:
            return text if question.meta["as_is"] else text.strip()
        if self.profile == "strict":
            return strictly(kind, text)
        if kind == JUDGE:
            return cmmmu_text.judgement(text)
        return cmmmu_text.letters(text, {**dict.fromkeys("ABCD", ""), **question.meta["choices"]}) if text else ""

    def as_asked(self, question: Question, text: str) -> bool:
        return bool(strictly(question.meta["kind"], text))

    def guess(
        self, questions: Sequence[Question], said: Sequence[str], parsed: Sequence[Parsed], order: Sequence[int]
    ) -> list[Parsed]:
        if self.profile == "strict":
            return list(parsed)
        rows = draw_order(questions, order, self.profile)
        return drawn(parsed, rows, lambda row: among(questions[row], said[row], self.profile))

    def credit(self, question: Question, parsed: Parsed) -> float:
        if question.meta["kind"] != BLANK or not question.gold:
            return float(parsed.value in question.gold)
        gold = question.gold[0]
        if self.profile == "strict":
            number = number_in(parsed.value)
            return float(parsed.value == gold or (number is not None and number == number_in(gold)))
        return float(cmmmu_text.fills(gold, parsed.value, whole=question.meta["as_is"]))

    def parts(self, question: Question) -> Iterable[str]:
        return (CATEGORIES.get(question.meta["category"], question.meta["category"]), question.meta["kind"])

    def numbers(self, read: Read) -> dict[str, Any]:
        rows = read.order if self.profile == "bunny" else range(len(read.questions))  # the original stops at a gap
        points = {row: self.credit(read.questions[row], read.parsed[row]) for row in rows}
        parts = {row: list(self.parts(read.questions[row])) for row in rows}
        return tables(read, points, parts, digits=3 if self.profile == "lmms_eval" else 6)

    def submission(self, read: Read, path: Path) -> None:
        said = [given.text if given else "" for given in read.given]
        rows = zip(read.questions, said, strict=True)
        write_jsonl(path, [{"id": int(q.id), "type": q.meta["kind"], "response": text} for q, text in rows])

    @classmethod
    def example(cls, folder: Path) -> Cmmmu:
        rows = []
        for n, (kind, gold) in enumerate([(CHOICE, "B"), (CHOICE, "AC"), (JUDGE, "错"), (BLANK, "16000")], 1):
            options = {f"option{k}": word for k, word in enumerate(["猫", "狗", "鸟", "鱼"], 1)}
            about = {
                "question": f'<img="{n}.png">是什么？',
                "category": "科学",
                "img_list": [f"{n}.png"],
                "answer": gold,
            }
            rows.append({"id": n, "type": kind, **about, **(options if kind == CHOICE else {})})
            picture(folder / f"images/{n}.png", n)
        write_jsonl(folder / GOLD, rows)
        return cls(data=folder, profile="strict")


USE = Cmmmu
