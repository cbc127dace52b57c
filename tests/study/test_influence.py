"""Which words gain, and which training pictures are nearest to what flipped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bunny.core.types import ImageRef, Question
from bunny.study.cells import Cell
from bunny.study.findings import Result
from bunny.study.influence import Nearness, flips, gains
from bunny.study.shared import Shared

IDS = ["a", "b", "b again", "c", "d"]
VISUAL = np.array([[1, 0, 0], [0.9, 0.435, 0], [0.9, 0.4359, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)


@pytest.fixture
def near() -> Nearness:
    """A pool of five pictures, two of them the same drawing; one held-out picture like the first."""
    pool = {
        "id": SimpleNamespace(arrow=lambda: SimpleNamespace(to_pylist=lambda: IDS)),
        "visual": SimpleNamespace(read=lambda: VISUAL / np.linalg.norm(VISUAL, axis=1, keepdims=True)),
    }
    shared = SimpleNamespace(pool=SimpleNamespace(pool=lambda: pool))
    found = Nearness(cast(Shared, shared), [Question("q", "?", (ImageRef("h.png"),), ("yes",), "held")])
    vars(found)["_held_out"] = np.array([[0.96, 0.28, 0]], dtype=np.float32)
    return found


def test_the_nearest_pictures_come_first_and_no_drawing_twice(near: Nearness) -> None:
    found = near.nearest("held", np.arange(5))
    assert [id for _, id in found] == ["b", "a", "c"]
    assert [cosine for cosine, _ in found] == sorted((cosine for cosine, _ in found), reverse=True)


def test_only_pictures_that_were_learnt_from_are_near(near: Nearness) -> None:
    assert [id for _, id in near.nearest("held", np.array([3, 4]))] == ["c", "d"]
    assert near.nearest("held", np.array([], dtype=int)) == []
    assert near.nearest("unknown", np.arange(5)) == []


def test_a_held_out_picture_that_the_pool_has_is_told(near: Nearness) -> None:
    assert near.leaks() == [("held", "b", pytest.approx(0.9862, abs=1e-3))]
    vars(near)["_held_out"] = np.array([[0.7, 0.7, 0.14]], dtype=np.float32)
    assert near.leaks() == []


def result(selection: str, seed: int, right: dict[str, float]) -> Result:
    """Four questions about each word; `right`: the points of each."""
    rows: list[dict[str, Any]] = [
        {
            "id": f"{word}{n}",
            "group": "held",
            "prompt": "?",
            "word": word,
            "gold": ["yes"],
            "absent": [],
            "category": "",
        }
        | {"points": points, "chances": {}}
        for word, points in right.items()
        for n in range(4)
    ]
    return Result(Cell(selection, 0.25, seed, "base"), {}, {"task": rows})


def test_words_are_listed_from_the_largest_gain_to_the_largest_loss() -> None:
    arm = [result("curated", seed, {"dog": 1.0, "cat": 0.0, "cow": 1.0}) for seed in (0, 1)]
    reference = [result("random", seed, {"dog": 0.0, "cat": 1.0, "cow": 1.0}) for seed in (0, 1)]
    found = gains(arm, reference, "task", "accuracy")
    assert [(one["word"], one["difference"], one["questions"]) for one in found] == [
        ("dog", 100, 4),
        ("cow", 0, 4),
        ("cat", -100, 4),
    ]


def test_flips_are_questions_that_changed_with_their_neighbours_of_both_sides(near: Nearness) -> None:
    arm, reference = [result("curated", 0, {"dog": 1.0, "cow": 1.0})], [result("random", 0, {"dog": 0.0, "cow": 1.0})]
    found = flips(arm, reference, "task", near, {"mine": np.array([0]), "theirs": np.array([3])})
    assert {one.question for one in found} == {"dog0", "dog1", "dog2", "dog3"}
    assert all(one.difference == 100 for one in found)
    assert [id for _, id in found[0].mine] == ["a"] and [id for _, id in found[0].theirs] == ["c"]
