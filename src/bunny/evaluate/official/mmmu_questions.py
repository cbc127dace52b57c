"""MMMU's questions from its rows, and the table of its parsing script.

In: a row of the official Parquet files (or of an answers file that carries the gold). Out: the question as the original
asks it; and, once answers are read, how much of the score was drawn at random.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Question
from bunny.evaluate.files import need
from bunny.evaluate.official import mmmu_text
from bunny.evaluate.official.benchmark import LETTER, WORD, Read, ask
from bunny.evaluate.official.mmmu_tables import by_subject

HOME = "https://huggingface.co/datasets/MMMU/MMMU"
CHOICE = "multiple-choice"


def question_of(row: Mapping[str, Any], image: ImageRef | None = None) -> Question:
    """The question of a row of the Parquet files, or of an answers file that carries gold and choices."""
    where = f"mmmu: question {row.get('id')}"
    id, answer, kind = need(row, ("id", "answer", "question_type"), where)
    options, text = row.get("options") or {}, row.get("question", "")
    if isinstance(options, str):
        options = _list(options, where)
    if isinstance(options, list):
        options = {chr(ord("A") + n): str(option) for n, option in enumerate(options)}
    listed = "".join(f"({letter}) {option}\n" for letter, option in options.items())
    prompt = f"{text}\n{listed}{LETTER}" if kind == CHOICE else text + WORD
    gold = answer if isinstance(answer, list) else [answer] if answer not in (None, "", "?") else []
    if (
        kind != CHOICE and isinstance(answer, str) and answer.startswith("['")
    ):  # several answers, as the tables hold them
        gold = _list(answer, where)
    asked = ask(id, prompt, None, gold, kind=kind, options=options if kind == CHOICE else {})
    return replace(asked, images=(image,) if image else ())


def parse_table(read: Read, rows: Sequence[int], points: Sequence[float]) -> dict[str, Any]:
    """What the parsing script says: accuracy by subject, what was drawn, and how much of the score is luck."""
    ids = [read.questions[row].id for row in rows]
    guessed = [read.parsed[row].status == "guessed" for row in rows]
    sure = sum(point for point, guess in zip(points, guessed, strict=True) if not guess)
    n = max(len(points), 1)
    groups = by_subject(ids, points)
    return {
        "per_subject": {
            name: {"acc": sum(each) / len(each), "num_example": len(each)} for name, each in groups.items()
        },
        "per_kind": _per_kind([read.questions[row] for row in rows], points),
        "overall": sum(points) / n,
        "n_random_fallback": sum(guessed),
        "fallback_ids": [id for id, guess in zip(ids, guessed, strict=True) if guess],
        "acc_if_fallback_counted_wrong": sure / n,
        "acc_if_fallback_counted_right": (sure + sum(guessed)) / n,
        "parsed": {read.questions[row].id: _shown(read.questions[row], read.parsed[row].value) for row in rows},
        "judge_correct": [id for id, point in zip(ids, points, strict=True) if point],
    }


def _per_kind(questions: Sequence[Question], points: Sequence[float]) -> dict[str, Any]:
    groups: dict[str, list[float]] = {}
    for question, point in zip(questions, points, strict=True):
        groups.setdefault(question.meta["kind"], []).append(point)
    return {kind: {"acc": sum(each) / len(each), "n": len(each)} for kind, each in groups.items()}


def _list(text: str, where: str) -> list[str]:
    """A list that is written as Python has it; the original would run whatever stands there."""
    try:
        return [str(each) for each in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError):
        raise UserError(f"{where}: no list of options or answers: {text[:80]}", fix=f"get it from {HOME}") from None


def _shown(question: Question, value: str) -> str | list[mmmu_text.Value]:
    """The letter; of an open question all that the script takes for its answer."""
    return value if question.meta["kind"] == CHOICE else list(dict.fromkeys(mmmu_text.results_in(value)))


def example_table(folder: Path) -> None:
    """A small made-up subject, for the contract suite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bunny.evaluate.official.made_up import picture

    rows = []
    for n, (kind, options, gold) in enumerate([(CHOICE, "['cat', 'None']", "B"), ("open", "[]", "42")] * 2, 1):
        image = {"bytes": picture(folder / "p.png", n).read_bytes(), "path": None}
        about = {"question": "<image 1> Which?", "options": options, "answer": gold, "question_type": kind}
        rows.append({"id": f"validation_Art_{n}", **about, "image_1": image})
    (folder / "Art").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "Art/validation-00000-of-00001.parquet")
