"""The step that asks like pictures what a caption should say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bunny.core.types import FloatArray, Pool
from bunny.curate.steps.agreement import Agreement

RNG = np.random.default_rng(2)


def unit(rows: FloatArray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def kinds(count: int, each: int, wrong: int) -> tuple[Pool, Any]:
    """`count` kinds of pictures, `each` of every kind; the first `wrong` have the text of another kind."""
    kind = np.arange(count * each) % count
    said = kind.copy()
    said[:wrong] = (kind[:wrong] + 1) % count
    visual, words = unit(RNG.standard_normal((count, 16))), unit(RNG.standard_normal((count, 12)))
    noise = 0.05
    pool = Pool(
        {
            "id": np.array([f"r{n:03d}" for n in range(len(kind))]),
            "visual": unit(visual[kind] + noise * RNG.standard_normal((len(kind), 16))),
            "text": unit(words[said] + noise * RNG.standard_normal((len(kind), 12))),
            "cluster": np.zeros(len(kind), np.int64),
        }
    )
    return pool, np.arange(len(kind)) < wrong


def agreement(pool: Pool, **settings: Any) -> FloatArray:
    decided = Agreement(**settings).decide(pool, np.random.default_rng(0))
    assert decided.keep.all()
    return np.asarray(decided.columns["agreement"])


@pytest.mark.parametrize("within", ["cluster", "pool"])
def test_texts_of_other_pictures_agree_least(within: str) -> None:
    pool, wrong = kinds(6, 12, wrong=5)
    found = agreement(pool, within=within)
    assert found[wrong].max() < found[~wrong].min()


def test_it_is_the_weighted_mean_of_the_nearest_worked_out_one_by_one() -> None:
    pool, _ = kinds(4, 6, wrong=3)
    found = agreement(pool, neighbours=3)
    visual, text = pool["visual"].astype(np.float64), pool["text"].astype(np.float64)
    for row in range(len(pool)):
        likeness = visual @ visual[row]
        likeness[row] = -np.inf
        near = np.argsort(-likeness)[:3]
        weight = likeness[near] ** 8
        assert found[row] == pytest.approx((weight * (text[near] @ text[row])).sum() / weight.sum(), abs=1e-4)


def test_neighbours_in_other_clusters_have_no_vote() -> None:
    pool, _ = kinds(2, 4, wrong=0)
    apart = pool.with_columns({"cluster": np.arange(8)})
    assert np.allclose(agreement(apart), 0)  # all alone: nothing is known
    assert agreement(apart, within="pool").min() > 0.9


def test_a_row_without_a_text_gets_no_value_and_has_no_vote() -> None:
    pool, _ = kinds(2, 4, wrong=0)
    text = pool["text"].copy()
    text[3] = np.nan
    found = agreement(pool.with_columns({"text": text}))
    assert np.isnan(found[3]) and np.isfinite(np.delete(found, 3)).all()
