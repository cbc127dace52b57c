"""Points by ranking: the area under the ROC curve of each word, and nothing but the order counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bunny.study.measures import points

RNG = np.random.default_rng(5)


def yes_no(word: str, gold: str, yes: float) -> dict[str, Any]:
    return {"points": 1.0, "word": word, "gold": [gold], "absent": [], "chances": {"yes": yes, "no": 1 - yes}}


def named(gold: list[str], absent: list[str], chances: dict[str, float]) -> dict[str, Any]:
    return {"points": 0.0, "word": "", "gold": gold, "absent": absent, "chances": chances}


def test_ranking_is_the_area_under_the_curve_of_each_word() -> None:
    rows = [yes_no("dog", gold, float(RNG.random())) for gold in ("yes", "no") * 20]
    found = points(rows, "ranking")
    assert found is not None
    yes, no = ([row["chances"]["yes"] for row in rows if row["gold"] == [side]] for side in ("yes", "no"))
    slow = sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
    assert found.mean() == pytest.approx(slow)


def test_saying_yes_more_often_gains_nothing() -> None:
    rows = [yes_no("dog", gold, float(RNG.random())) for gold in ("yes", "no") * 20]
    keener = [yes_no("dog", row["gold"][0], row["chances"]["yes"] ** 0.2) for row in rows]
    assert np.array_equal(points(rows, "ranking"), points(keener, "ranking"))


def test_pictures_are_ranked_for_each_word_that_they_show() -> None:
    rows = [
        named(["bird"], ["car"], {"bird": 0.9, "car": 0.1}),
        named(["car"], ["bird"], {"bird": 0.2, "car": 0.8}),
        named(["car"], ["bird"], {"bird": 0.95, "car": 0.05}),  # taken for a bird
    ]
    found = points(rows, "ranking")
    assert found is not None
    assert found.tolist() == [0.5, 1.0, 0.0]


def test_a_picture_that_may_show_the_word_does_not_count_against_it() -> None:
    rows = [
        named(["bird"], [], {"bird": 0.3, "car": 0.1}),
        named(["car"], [], {"bird": 0.9, "car": 0.8}),  # nobody knows whether there is a bird
        named(["car"], ["bird"], {"bird": 0.1, "car": 0.8}),
        named(["bird"], ["car"], {"bird": 0.3, "car": 0.1}),
    ]
    found = points(rows, "ranking")
    assert found is not None and found[0] == 1.0


def test_without_chances_there_is_no_ranking() -> None:
    assert points([named(["bird"], ["car"], {})], "ranking") is None
    assert points([yes_no("", "yes", 0.5)], "ranking") is None
    assert points([yes_no("dog", "yes", 0.5)], "accuracy") is not None
