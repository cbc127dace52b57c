"""Hashes that differ in few bits: the banded search against all pairs, and the step that uses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate import hamming
from bunny.curate.hamming import groups, nearest
from bunny.curate.phash import FLAT

HASH = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 255), st.sampled_from([0, 2**64 - 1, 0xFF00FF]))


def bits(first: int, second: int) -> int:
    return (int(first) ^ int(second)).bit_count()


def slow_groups(hashes: list[int], distance: int) -> list[int]:
    """Every pair, then the lowest number spreads until nothing changes."""
    leader = list(range(len(hashes)))
    changed = True
    while changed:
        changed = False
        for first in range(len(hashes)):
            for second in range(len(hashes)):
                if bits(hashes[first], hashes[second]) <= distance and leader[second] < leader[first]:
                    leader[first] = leader[second]
                    changed = True
    return leader


def decide(block: dict[str, Any], pool: Pool) -> Decision:
    found: Decision = make(block, "bunny.curate.steps").decide(pool, np.random.default_rng(0))
    return found


def pool_of(hashes: list[int], **columns: Any) -> Pool:
    ids = np.array([f"{number:03d}" for number in range(len(hashes))], dtype=str)
    return Pool({"id": ids, "phash": np.array(hashes, np.uint64), **{k: np.asarray(v) for k, v in columns.items()}})


@settings(deadline=None)
@given(st.lists(HASH, max_size=12), st.integers(0, 8))
def test_groups_are_those_that_all_pairs_give(hashes: list[int], distance: int) -> None:
    assert groups(np.array(hashes, np.uint64), distance).tolist() == slow_groups(hashes, distance)


@settings(deadline=None)
@given(st.lists(HASH, max_size=8), st.lists(HASH, max_size=8), st.integers(0, 8))
def test_the_nearest_of_others_is_the_one_that_all_pairs_give(ours: list[int], others: list[int], most: int) -> None:
    row, apart = nearest(np.array(ours, np.uint64), np.array(others, np.uint64), most)
    for place, one in enumerate(ours):
        found = sorted((bits(one, other), number) for number, other in enumerate(others) if bits(one, other) <= most)
        assert (apart[place], row[place]) == (found[0] if found else (-1, -1))


@pytest.mark.parametrize(("size", "distance"), [(3000, 1), (3000, 8), (6000, 3), (6000, 8), (300_000, 4)])
def test_planted_neighbours_are_found_at_every_number_of_bands(size: int, distance: int) -> None:
    rng = np.random.default_rng(size + distance)
    hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
    planted = rng.permutation(size)[:400].reshape(2, 200)
    turned = [sum(1 << int(bit) for bit in rng.permutation(64)[:distance]) for _ in range(200)]
    hashes[planted[1]] = hashes[planted[0]] ^ np.array(turned, np.uint64)
    found = groups(hashes, distance)
    assert (found[planted[0]] == found[planted[1]]).all()
    assert len(hamming._Index.of(hashes, distance).shift) == {3000: 8, 6000: 4, 300_000: 3}[size]


def test_perceptual_keeps_the_first_and_says_how_many_bits() -> None:
    base = 0x123456789ABCDEF1
    found = decide({"use": "perceptual", "bits": 2}, pool_of([base, 7 << 40, base ^ 3, base ^ 15]))
    assert found.keep.tolist() == [True, True, False, False]
    assert found.twin.tolist() == [-1, -1, 0, 0]
    np.testing.assert_array_equal(found.columns["phash_bits"], np.array([np.nan, np.nan, 2, 4], np.float32))
    assert found.reason[3] == "near-identical picture: perceptual hashes linked by at most 2 of 64 bits"


def test_perceptual_keeps_the_best_by_a_column() -> None:
    base = 0x123456789ABCDEF1
    pool = pool_of([base, base, base ^ 1, 7 << 40], width=[10.0, np.nan, 30, 1])
    found = decide({"use": "perceptual", "keep": "best", "by": "width"}, pool)
    assert found.keep.tolist() == [False, False, True, True]
    assert found.twin.tolist() == [2, 2, -1, -1]


def test_pictures_without_a_telling_hash_stay() -> None:
    found = decide({"use": "perceptual"}, pool_of([0, 0, *FLAT, *FLAT, 1]))
    assert found.keep.all()
    assert found.notes["without_a_hash"] == 2 + 2 * len(FLAT)


def test_perceptual_without_hashes_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no column `phash`"):
        decide({"use": "perceptual"}, Pool({"id": np.array(["a"])}))
