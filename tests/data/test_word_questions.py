"""Questions about words alone: balanced, true, without pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from bunny.core.errors import UserError
from bunny.data.makers.word_questions import WordQuestions

RULES = {
    "animal": {},
    "bird": {"implies": ["animal"]},
    "cat": {"implies": ["animal"]},
    "car": {},
    "tree": {},
    "toy": {"confusable": ["animal"]},
}


def made(folder: Path, rules: object) -> list[tuple[str, str]]:
    (folder / "words.yaml").write_text(yaml.safe_dump({"words": rules}), encoding="utf-8")
    maker = WordQuestions(words="words.yaml", folder=folder)
    rows = list(maker.make([], np.random.default_rng(0)))
    assert all(not row.images for row in rows) and len({row.id for row in rows}) == len(rows)
    return [(row.turns[0].text, row.turns[1].text) for row in rows]


def test_every_kind_is_asked_as_often_with_yes_as_with_no(tmp_path: Path) -> None:
    rows = made(tmp_path, RULES)
    assert Counter(answer for _, answer in rows) == {"yes": 8, "no": 8}
    assert ("Is a bird a kind of animal?", "yes") in rows
    assert all("toy" not in question for question, _ in rows)  # a toy may be one of an animal


def test_without_kinds_there_is_nothing_to_ask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no word implies another"):
        made(tmp_path, {"car": {}, "tree": {}})
