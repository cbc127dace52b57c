"""The records that flow between the stages."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bunny.core.types import IGNORE, Decision, ImageRef, Pool, Sample, TokenRow, Turn, Vectors


def test_a_dropped_row_has_a_reason_and_a_kept_one_has_none() -> None:
    dropped = np.array([True, False, True])
    decision = Decision.drop(dropped, "too dark", twin=np.array([1, 1, 1]), light=np.array([0.1, 0.9, 0.2]))
    assert decision.keep.tolist() == [False, True, False]
    assert decision.reason.tolist() == ["too dark", "", "too dark"]
    assert decision.twin.tolist() == [1, -1, 1]
    assert decision.columns["light"].tolist() == [0.1, 0.9, 0.2]


def test_a_drop_without_twins_points_at_nobody() -> None:
    decision = Decision.drop(np.array([True, False]), "junk")
    assert decision.twin.tolist() == [-1, -1]
    assert decision.twin.dtype == np.int64
    assert decision.reason.dtype == object


def test_an_empty_pool_can_be_decided_on() -> None:
    decision = Decision.drop(np.zeros(0, dtype=bool), "none")
    assert len(decision.keep) == len(decision.reason) == len(decision.twin) == 0


def pool() -> Pool:
    return Pool({"id": np.array(["a", "b", "c"]), "image": np.eye(3, dtype=np.float32)})


def test_a_pool_is_taken_by_mask_or_by_rows_in_order() -> None:
    assert pool().take(np.array([True, False, True]))["id"].tolist() == ["a", "c"]
    assert pool().take(np.array([2, 0]))["id"].tolist() == ["c", "a"]
    assert len(pool().take(np.array([], dtype=np.int64))) == 0


def test_new_columns_leave_the_old_pool_alone() -> None:
    old = pool()
    new = old.with_columns({"cluster": np.array([0, 0, 1])})
    assert "cluster" in new
    assert "cluster" not in old
    assert len(new) == 3


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="columns differ in length"):
        pool().with_columns({"cluster": np.array([0])})


def test_vectors_must_be_row_aligned() -> None:
    with pytest.raises(ValueError, match="row-aligned"):
        Vectors(np.array(["a"]), np.zeros((2, 3)), None, "model")
    with pytest.raises(ValueError, match="row-aligned"):
        Vectors(np.array(["a"]), np.zeros((1, 3)), np.zeros((2, 3)), "model")


def test_a_pair_is_a_conversation_of_one_answer() -> None:
    sample = Sample.pair("1", ImageRef("a.png"), "a red ball", "made up", words=("ball",))
    assert sample.turns == (Turn("assistant", "a red ball"),)
    assert sample.text == "a red ball"
    assert sample.meta["words"] == ("ball",)


def test_the_text_of_a_sample_is_what_the_assistant_says() -> None:
    turns = (Turn("user", "<image> what?"), Turn("assistant", "a dog"), Turn("user", "sure?"), Turn("assistant", "yes"))
    assert Sample("1", (), turns).text == "a dog yes"


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Turn("user", "hello").text = "bye"  # type: ignore[misc]  # the point of the test


def test_a_picture_says_where_it_is() -> None:
    assert str(ImageRef("pool.parquet", "12")) == "pool.parquet#12"
    assert str(ImageRef("a.png")) == "a.png"


def test_the_first_token_teaches_nothing_since_nothing_precedes_it() -> None:
    ids = np.array([5, 6, 7])
    assert TokenRow("1", ids, ids).learns == 2
    assert TokenRow("1", ids, np.full(3, IGNORE)).learns == 0
