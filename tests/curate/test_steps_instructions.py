"""Instruction data: faults and repetitions; MinHash against Jaccard likeness of all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, ImageRef, Pool, Sample, Turn
from bunny.curate.index import FactColumns
from bunny.curate.minhash import repeats
from bunny.curate.texts import plain

SENTENCES = st.lists(
    st.one_of(st.lists(st.sampled_from("abc"), max_size=8).map(" ".join), st.text(max_size=12)), max_size=9
)


def decide(block: dict[str, Any], pool: Pool) -> Decision:
    found: Decision = make({"use": "instructions", **block}, "bunny.curate.steps").decide(
        pool, np.random.default_rng(0)
    )
    return found


def talks(*pairs: tuple[str, str]) -> Pool:
    columns = {"question": [one for one, _ in pairs], "caption": [other for _, other in pairs]}
    return Pool(
        {
            "id": np.array([f"{number:03d}" for number in range(len(pairs))], dtype=str),
            **{name: np.array(values, dtype=object) for name, values in columns.items()},
        }
    )


def runs(text: str) -> set[tuple[str, ...]]:
    words = plain(text).split()
    return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))} if words else set()


def slow_repeats(texts: list[str], above: float) -> list[int]:
    kept: list[int] = []
    found = []
    for row, text in enumerate(texts):
        mine = runs(text)
        likeness = [(len(mine & runs(texts[one])) / max(1, len(mine | runs(texts[one]))), -one) for one in kept]
        best = max((one for one in likeness if one[0] >= above), default=None)
        found.append(row if best is None else -best[1])
        if best is None:
            kept.append(row)
    return found


@settings(deadline=None)
@given(SENTENCES, st.sampled_from([0.8, 0.9, 1.0]))
def test_repetitions_are_those_that_all_pairs_give(texts: list[str], above: float) -> None:
    assert repeats(lambda: iter(texts), len(texts), above).tolist() == slow_repeats(texts, above)


def test_hardly_a_near_repetition_of_long_texts_is_missed() -> None:
    """Copies of 60 words with one word changed share 55 of 61 runs: 0.9."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(500)])
    originals = words[rng.integers(0, 500, (200, 60))]
    copies = originals.copy()
    copies[np.arange(200), rng.integers(5, 55, 200)] = "changed"
    texts = [" ".join(row) for row in np.concatenate([originals, copies])]
    assert repeats(lambda: iter(texts), 400, 0.8).tolist() == [*range(200), *range(200)]


def test_each_fault_has_its_reason() -> None:
    pool = talks(
        ("What is it?", "A red cat."),
        (" ?\n", "A red cat."),
        ("What is it?", "I'm sorry, but I can't see the image."),
        ("What is it?", "As an AI language model, I have no eyes."),
        ("What is it?", ""),
        ("What is it?", "one two three four five six"),
    )
    assert decide({"max_answer_words": 5, "min_answer_words": 1}, pool).reason.tolist() == [
        "",
        "no question",
        "answer of more than 5 words",
        "answer of more than 5 words",
        "answer of fewer than 1 words",
        "answer of more than 5 words",
    ]
    assert decide({}, pool).reason.tolist()[2:4] == ["answer is: refusal", "answer is: talk about being a model"]
    assert decide({"need_question": False, "refusals": False}, pool).keep.tolist() == [*[True] * 4, False, True]


def test_a_question_that_many_pictures_share_is_no_repetition() -> None:
    pool = talks(
        ("What is in the picture?", "A red cat sits on a mat by the door."),
        ("What is in the picture?", "Two boats lie in a harbour at night."),
        ("what is in  the picture?", "a red cat sits on a mat by the door."),
    )
    found = decide({"max_likeness": 0.8}, pool)
    assert found.keep.tolist() == [True, True, False]
    assert found.twin.tolist() == [-1, -1, 0]


def test_what_stands_for_a_repetition_is_without_fault_itself() -> None:
    pool = talks(
        ("", "the very same words here"), ("Which?", "the very same words here"), ("Which?", "the very same words here")
    )
    found = decide({"max_likeness": 0.8}, pool)
    assert found.keep.tolist() == [False, True, False]
    assert found.twin.tolist() == [-1, -1, 1]


def test_a_pool_without_questions_is_a_clear_error() -> None:
    pool = Pool({"id": np.array(["a"]), "caption": np.array(["x"], dtype=object)})
    with pytest.raises(UserError, match="no column `question`"):
        decide({}, pool)
    assert decide({"need_question": False}, pool).keep.all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=6))
def test_instructions_never_fail_on_a_text(pairs: list[tuple[str, str]]) -> None:
    assert len(decide({"max_likeness": 0.9}, talks(*pairs)).keep) == len(pairs)


def test_a_pool_of_conversations_has_their_questions() -> None:
    turns = (Turn("user", "<image>\nWhat is it?"), Turn("assistant", "A cat."), Turn("user", "Sure?"))
    facts = FactColumns()
    facts.add(Sample("talk", (ImageRef("a.png"),), (*turns, Turn("assistant", "Yes."))))
    facts.add(Sample.pair("pair", ImageRef("b.png"), "a dog"))
    table = facts.table()
    assert table.column("question").to_pylist() == ["What is it?\nSure?", ""]
    assert table.column("caption").to_pylist() == ["A cat. Yes.", "a dog"]


def test_a_pool_of_pairs_has_no_column_of_questions() -> None:
    facts = FactColumns()
    facts.add(Sample.pair("pair", ImageRef("b.png"), "a dog"))
    assert "question" not in facts.table().column_names
