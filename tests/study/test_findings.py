"""What is compared with what, and when a difference is called sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bunny.study.cells import Cell
from bunny.study.findings import Result, comparisons_of, scores_of

PICTURES = 80


def result(selection: str, share: float | None, seed: int, rate: float) -> Result:
    """A cell that is right on a share `rate` of its questions, the same ones for nearly equal rates."""
    hard = np.random.default_rng(0).random(PICTURES)
    luck = np.random.default_rng([seed, round(1000 * rate)]).normal(0, 0.03, PICTURES)
    rows: list[dict[str, Any]] = [
        {
            "id": str(n),
            "group": f"p{n}",
            "points": float(hard[n] + luck[n] < rate),
            "chances": {},
            "word": "",
            "gold": ["x"],
        }
        for n in range(PICTURES)
    ]
    return Result(Cell(selection, share, seed, "base"), {}, {"task": rows})


def study(curated: float) -> list[Result]:
    return [
        result(name, share, seed, rate)
        for seed in range(3)
        for name, share, rate in (("random", 0.25, 0.5), ("all", None, 0.5), ("curated", 0.25, curated))
    ]


def test_every_arm_is_compared_once_with_each_reference_at_its_share_or_whole() -> None:
    pairs = [(one.arm.title, one.reference.title) for one in comparisons_of(study(0.6), ["random", "all"], "accuracy")]
    assert sorted(pairs) == [("curated, 25 %", "all"), ("curated, 25 %", "random, 25 %"), ("random, 25 %", "all")]


def test_a_large_difference_is_sure_and_said_to_be() -> None:
    found = comparisons_of(study(0.8), ["random"], "accuracy")
    (curated,) = [one for one in found if one.arm.selection == "curated"]
    assert curated.mark == "better" and "can be trusted" in curated.words
    assert curated.estimate.low > 0
    (worse,) = [one for one in comparisons_of(study(0.2), ["random"], "accuracy") if one.arm.selection == "curated"]
    assert worse.mark == "worse" and "below" in worse.words


def test_no_difference_could_be_chance_and_the_reach_is_told() -> None:
    (curated,) = [one for one in comparisons_of(study(0.5), ["random"], "accuracy") if one.arm.selection == "curated"]
    assert curated.mark == "unsure" and "could be chance" in curated.words and "four of five" in curated.words


def test_chances_are_corrected_for_all_comparisons_by_the_tested_measure() -> None:
    found = comparisons_of(study(0.6), ["random", "all"], "accuracy")
    least = min(found, key=lambda one: one.estimate.p)
    assert least.corrected == pytest.approx(min(1, 3 * least.estimate.p))
    assert all(one.corrected is None for one in comparisons_of(study(0.6), ["random", "all"], "ranking"))


def test_only_seeds_that_both_have_are_compared_and_one_seed_is_never_sure() -> None:
    results = [one for one in study(0.9) if one.cell.selection != "curated" or one.cell.seed == 2]
    (curated,) = [one for one in comparisons_of(results, ["random"], "accuracy") if one.arm.selection == "curated"]
    assert curated.seeds == (2,) and curated.mark == "unsure" and "one training" in curated.words


def test_a_score_has_each_seed_beside_its_mean() -> None:
    (score,) = [one for one in scores_of(study(0.7)) if one.arm.selection == "curated"]
    assert score.estimate.mean == pytest.approx(np.mean(score.estimate.by_seed))
    assert len(score.estimate.by_seed) == 3
