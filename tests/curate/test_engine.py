"""The selection: steps in order, twins to the end of their chain, and second thoughts without new work."""

from __future__ import annotations

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.types import Pool, Rejected
from bunny.curate.engine import select


def pool_of(angles: list[float], **columns: list[object]) -> Pool:
    """Rows a, b, c … whose pictures lie on a circle at the given degrees."""
    turn = np.radians(angles)
    rows = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    ids = np.array([chr(97 + row) for row in range(len(angles))], dtype=str)
    more = {name: np.array(values) for name, values in columns.items()}
    return Pool({"id": ids, "image": rows, "visual": rows, **more})


DEDUP = {"use": "dedup", "above": 0.99, "within": "pool"}


def test_steps_see_only_what_the_ones_before_left() -> None:
    pool = pool_of([0, 10, 20, 30], score=[4.0, 3.0, 2.0, 1.0])
    found = select(pool, [{"use": "band", "by": "score", "low": 0.5}, {"use": "band", "by": "score", "high": 0.5}], 0)
    assert found.ids() == ["c"]
    assert [len(run.rows) for run in found.runs] == [4, 2]
    assert found.dropped_by().tolist() == [0, 0, -1, 1]


def test_the_order_of_the_rows_does_not_matter() -> None:
    pool = pool_of([0, 1, 50, 90, 91], score=[1.0, 2.0, 3.0, 4.0, 5.0])
    steps = [DEDUP, {"use": "sample", "count": 2}]
    assert select(pool, steps, 3).ids() == select(pool.take(np.array([3, 0, 4, 2, 1])), steps, 3).ids()


def test_a_chain_of_twins_ends_at_a_row_that_means_something() -> None:
    """a has the pixels of b's group; its twin b then falls to c; c stays: c stands for a."""
    pool = pool_of([0, 0, 1], sha256=["x", "x", "y"])
    steps = [{"use": "exact"}, {**DEDUP, "keep": "best", "by": "score"}]
    found = select(pool.with_columns({"score": np.array([1.0, 1.0, 2.0])}), steps, 0)
    why = found.why("b")
    assert (why.step, why.twin, why.twin_fate) == ("exact", "c", "kept")
    assert why.twin_cosine == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert found.why("a").twin == "c"


def test_a_twin_that_went_later_is_said_so() -> None:
    pool = pool_of([0, 0, 90], sha256=["x", "x", "y"], score=[1.0, 1.0, 9.0])
    found = select(pool, [{"use": "exact"}, {"use": "band", "by": "score", "high": 0.5}], 0)
    why = found.why("b")
    assert (why.twin, why.twin_fate) == ("a", "dropped later by band: score among the lowest 50%")
    assert str(why).startswith(
        "b is dropped by exact: the same pixels as a picture that stays; a (cosine 1.000, dropped"
    )


def test_why_of_kept_rejected_and_unknown_ids() -> None:
    found = select(pool_of([0, 90]), [DEDUP], 0, [Rejected("z", "z.png", "damaged", "cut short")])
    assert str(found.why("a")) == "a is kept"
    assert str(found.why("z")) == "z is dropped by reading: damaged: cut short"
    with pytest.raises(UserError, match="no sample is called `q`"):
        found.why("q")


def test_why_of_an_id_given_twice_is_about_the_sample_that_stayed_in_the_pool() -> None:
    assert select(pool_of([0]), [], 0, [Rejected("a", "a.png", "duplicate_id")]).why("a").kept


def test_again_changes_one_setting_and_keeps_the_work_before_it() -> None:
    pool = pool_of([0, 5, 30, 36, 90, 91], score=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    strict = {**DEDUP, "above": 0.999}
    steps = [{"use": "band", "by": "score", "low": 0.1}, strict, {"use": "sample", "share": 1.0}]
    first = select(pool, steps, 0)
    wider = first.again(dedup={"above": 0.96})
    assert len(wider.ids()) < len(first.ids())
    assert wider.runs[0] is first.runs[0]
    assert wider.runs[1] is not first.runs[1]
    assert wider.ids() == select(pool, [steps[0], {**DEDUP, "above": 0.96}, steps[2]], 0).ids()
    assert first.again().runs == first.runs


def test_again_takes_nothing_over_behind_a_changed_step() -> None:
    pool = pool_of([0, 30, 60, 90], score=[1.0, 2.0, 3.0, 4.0])
    first = select(pool, [{"use": "band", "by": "score"}, {"use": "band", "by": "score", "high": 0.5}], 0)
    assert first.ids() == ["c", "d"]
    assert first.again(band={"low": 0.5}).ids() == ["b"]
    assert first.again(band_2={"high": 0.25}).ids() == ["d"]


def test_again_names_the_nearest_step() -> None:
    with pytest.raises(UserError, match="did you mean `dedup`"):
        select(pool_of([0]), [DEDUP], 0).again(dedupe={"above": 0.9})


def test_a_column_is_known_only_where_its_step_saw_the_row() -> None:
    found = select(pool_of([0, 0, 90], sha256=["x", "x", "y"]), [{"use": "exact"}, {"use": "cluster", "groups": 1}], 0)
    values, known = found.column("centre_cosine")
    assert known.tolist() == [True, False, True]
    assert values.shape == (3,)


def test_an_empty_pool_and_no_steps_are_fine() -> None:
    assert select(pool_of([]), [DEDUP], 0).ids() == []
    assert select(pool_of([0, 1]), [], 0).ids() == ["a", "b"]
