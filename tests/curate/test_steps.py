"""What each step is for, on pools small enough to reckon by hand (the shared contract is in tests/contracts)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool


def decide(block: dict[str, Any], pool: Pool, seed: int = 0) -> Decision:
    found: Decision = make(block, "bunny.curate.steps").decide(pool, np.random.default_rng(seed))
    return found


def pool_of(**columns: Any) -> Pool:
    size = len(next(iter(columns.values())))
    ids = np.array([f"{number:03d}" for number in range(size)], dtype=str)
    return Pool({"id": ids, **{name: np.asarray(values) for name, values in columns.items()}})


def circle(degrees: list[float]) -> np.ndarray:
    turn = np.radians(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)


# exact


def test_exact_keeps_the_first_by_id_and_names_it() -> None:
    found = decide({"use": "exact"}, pool_of(sha256=["x", "y", "x", "x", "y"]))
    assert found.keep.tolist() == [True, True, False, False, False]
    assert found.twin.tolist() == [-1, -1, 0, 0, 1]


def test_exact_takes_empty_values_for_different() -> None:
    assert decide({"use": "exact", "by": "caption"}, pool_of(caption=["", "", "a", "a"])).keep.sum() == 3


def test_one_huge_caption_costs_no_memory_for_the_others() -> None:
    """A fixed-width string array would hold 2,000 times 4 MB."""
    captions = np.array([f"caption {number}" for number in range(2000)], dtype=object)
    captions[7] = "x" * 1_000_000
    assert decide({"use": "exact", "by": "caption"}, pool_of(caption=captions)).keep.all()
    assert decide({"use": "rules", "max_repeats": 1}, pool_of(caption=captions)).keep.all()


# rules


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"min_words": 2}, ["two words", "img 0012", "ä ö ü and so on and on"]),
        ({"max_words": 4}, ["", "word", "two words", "img 0012", "12 34567"]),
        ({"min_letters": 4}, ["word", "two words", "ä ö ü and so on and on"]),
        ({"max_characters": 9}, ["", "word", "two words", "img 0012", "12 34567"]),
        ({"junk": [r"^IMG\b", r"^\d"]}, ["", "word", "two words", "ä ö ü and so on and on"]),
    ],
)
def test_rules_on_captions(rule: dict[str, Any], kept: list[str]) -> None:
    captions = np.array(["", "word", "two words", "img 0012", "ä ö ü and so on and on", "12 34567"], dtype=object)
    found = decide({"use": "rules", **rule}, pool_of(caption=captions))
    expected = [words for words in captions if words in kept]
    if "min_words" in rule:
        expected = [words for words in captions if len(words.split()) >= 2]
    assert captions[found.keep].tolist() == expected


def test_rules_name_the_first_rule_broken() -> None:
    pool = pool_of(caption=["a", "fine words", "fine words"], width=[5, 5, 50], height=[50, 50, 60])
    found = decide({"use": "rules", "min_words": 2, "min_side": 10}, pool)
    assert found.reason.tolist() == ["caption of fewer than 2 words", "shorter side below 10 pixels", ""]


def test_rules_on_shape() -> None:
    pool = pool_of(caption=["x"] * 3, width=[10, 31, 100], height=[30, 10, 100])
    assert decide({"use": "rules", "max_aspect": 3}, pool).keep.tolist() == [True, False, True]


def test_captions_that_too_many_pictures_share_go() -> None:
    found = decide({"use": "rules", "max_repeats": 2}, pool_of(caption=["Card", "card ", "CARD", "b", "b", ""]))
    assert found.keep.tolist() == [False, False, False, True, True, True]


def test_a_wrong_pattern_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="is not a regular expression"):
        make({"use": "rules", "junk": ["("]}, "bunny.curate.steps")


# cluster


def test_cluster_puts_neighbours_together_and_drops_nothing() -> None:
    found = decide({"use": "cluster", "groups": 2}, pool_of(visual=circle([0, 5, 90, 95])))
    cluster = found.columns["cluster"]
    assert found.keep.all()
    assert cluster[0] == cluster[1] != cluster[2] == cluster[3]
    np.testing.assert_allclose(found.columns["centre_cosine"], np.cos(np.radians(2.5)), atol=1e-5)


def test_cluster_wants_one_of_groups_and_rows_per_group() -> None:
    for wrong in ({}, {"groups": 2, "rows_per_group": 3}):
        with pytest.raises(UserError, match="either `groups` or `rows_per_group`"):
            make({"use": "cluster", **wrong}, "bunny.curate.steps")


# dedup


@pytest.mark.parametrize(("keep", "stays"), [("nearest", 1), ("median", 0), ("farthest", 2)])
def test_dedup_keeps_the_member_the_rule_names(keep: str, stays: int) -> None:
    """Members by distance to the centroid: 1, 3, 0, 2; number len // 2 = 2 is row 0."""
    pool = pool_of(visual=circle([0, 1, 2, 3]), cluster=[0] * 4, centre_cosine=[0.8, 0.99, 0.7, 0.9])
    found = decide({"use": "dedup", "above": 0.99, "keep": keep, "probes": 1}, pool)
    assert np.flatnonzero(found.keep).tolist() == [stays]
    assert set(found.twin[~found.keep].tolist()) == {stays}
    np.testing.assert_allclose(
        found.columns["twin_cosine"][~found.keep],
        [np.cos(np.radians(abs(row - stays))) for row in range(4) if row != stays],
        atol=1e-6,
    )


def test_dedup_keeps_the_best_by_a_column_and_a_number_beats_none() -> None:
    pool = pool_of(visual=circle([0, 1, 2]), cluster=[0] * 3, score=[np.nan, 0.2, 0.1])
    found = decide({"use": "dedup", "above": 0.99, "keep": "best", "by": "score", "probes": 1}, pool)
    assert np.flatnonzero(found.keep).tolist() == [1]


def test_dedup_follows_chains() -> None:
    """0 to 20 degrees in steps of 4: every step is linked, the ends are not; 60 stands alone."""
    pool = pool_of(visual=circle([0, 4, 8, 12, 16, 20, 60]))
    found = decide({"use": "dedup", "above": float(np.cos(np.radians(5))), "within": "pool"}, pool)
    assert found.keep.sum() == 2
    assert found.keep[6]


def border_pool() -> Pool:
    """Two clusters with a duplicate pair on either side of the border between them."""
    rows = circle([0, 10, 44, 46, 80, 90])
    for seed in range(20):  # not every start ends there
        clustered = decide({"use": "cluster", "groups": 2, "reach": 0.05}, pool_of(visual=rows), seed)
        if clustered.columns["cluster"][2] != clustered.columns["cluster"][3]:
            return pool_of(visual=rows).with_columns(clustered.columns)
    raise AssertionError("no start puts the border between the pair")


def test_two_probes_find_duplicates_across_a_border_and_one_does_not() -> None:
    """The paper's way (one probe) never compares them."""
    assert decide({"use": "dedup", "above": 0.999, "probes": 1}, border_pool()).keep.all()
    found = decide({"use": "dedup", "above": 0.999, "probes": 2}, border_pool())
    assert found.keep.tolist().count(False) == 1
    assert not found.keep[[2, 3]].all()


def test_more_probes_leave_fewer_of_the_duplicates_that_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    base = np.repeat(rng.normal(size=(300, 8)), 2, axis=0) + rng.normal(size=(600, 8)) * 0.16
    rows = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float32)
    pool = pool_of(visual=rows)
    pool = pool.with_columns(decide({"use": "cluster", "groups": 20}, pool).columns)
    gone = {
        key: int((~decide({"use": "dedup", "above": 0.95, **how}, pool).keep).sum())
        for key, how in (("all", {"within": "pool"}), (1, {"probes": 1}), (2, {"probes": 2}), (3, {}))
    }
    assert gone[1] < gone[2] < gone[3] <= gone["all"]
    assert gone[3] >= 0.98 * gone["all"]


def test_a_pool_that_knows_second_clusters_only_is_compared_in_these() -> None:
    columns = {name: values for name, values in border_pool().columns.items() if name != "third_cluster"}
    found = decide({"use": "dedup", "above": 0.999}, Pool(columns))
    assert found.keep.tolist().count(False) == 1


def test_rows_without_a_vector_are_a_clear_error() -> None:
    rows = circle([0, 1, 2])
    rows[1] = np.nan
    for block in ({"use": "cluster", "groups": 1}, {"use": "dedup", "above": 0.9, "within": "pool"}):
        with pytest.raises(UserError, match="1 rows have no `visual` vector"):
            decide(block, pool_of(visual=rows))


def test_two_probes_want_the_columns_of_the_cluster_step() -> None:
    with pytest.raises(UserError, match="no column `second_cluster`"):
        decide({"use": "dedup", "above": 0.9}, pool_of(visual=circle([0, 1]), cluster=[0, 0]))


def test_dedup_without_clusters_says_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"no column `cluster`; put \{use: cluster\} before it"):
        decide({"use": "dedup", "above": 0.9}, pool_of(visual=circle([0, 1])))


def test_the_threshold_curve_agrees_with_running_the_step_there() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(80, 3))
    pool = pool_of(visual=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    links = decide({"use": "dedup", "above": 0.95, "within": "pool", "curve_from": 0.8}, pool).columns["link_cosine"]
    for above in (0.82, 0.9, 0.95, 0.99):
        gone = (~decide({"use": "dedup", "above": above, "within": "pool"}, pool).keep).sum()
        assert (links >= above).sum() == gone


# band


def test_band_counts_ranks_from_the_highest() -> None:
    found = decide({"use": "band", "by": "score", "low": 0.4, "high": 0.6}, pool_of(score=np.arange(10.0)))
    assert np.flatnonzero(found.keep).tolist() == [4, 5]
    assert found.reason[9] == "score among the highest 40%"
    assert found.reason[0] == "score among the lowest 40%"
    np.testing.assert_allclose(found.columns["score_rank"][[9, 5, 0]], [0.0, 0.4, 0.9])


def test_band_breaks_ties_by_id_and_drops_rows_without_a_value() -> None:
    found = decide({"use": "band", "by": "score", "high": 0.5}, pool_of(score=[1.0, 1.0, np.nan, 1.0, 1.0]))
    assert found.keep.tolist() == [True, True, False, False, False]
    assert found.reason[2] == "no score"


def test_two_bands_that_meet_share_no_row_and_miss_none() -> None:
    pool = pool_of(score=np.random.default_rng(0).normal(size=101))
    kept = [
        decide({"use": "band", "by": "score", "low": low, "high": high}, pool).keep
        for low, high in ((0.0, 0.33), (0.33, 0.7), (0.7, 1.0))
    ]
    assert (np.sum(kept, axis=0) == 1).all()


def test_band_of_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean `pair_cosine`"):
        decide({"use": "band", "by": "pair_cosin"}, pool_of(pair_cosine=[1.0]))


# sample


def test_sample_draws_so_many_and_every_row_can_be_drawn() -> None:
    pool = pool_of(score=np.arange(10.0))
    drawn = [decide({"use": "sample", "count": 4}, pool, seed).keep for seed in range(40)]
    assert {int(keep.sum()) for keep in drawn} == {4}
    assert np.sum(drawn, axis=0).min() > 0


def test_sample_of_more_than_there_is_keeps_all() -> None:
    assert decide({"use": "sample", "count": 99}, pool_of(score=[1.0, 2.0])).keep.all()
