from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.curate.codes import Quantiser, fastest_kernel, products
from tests.curate.engine_pools import unit, with_duplicates


@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 40, 64), (40, 17, 1040), (33, 20, 1152), (300, 5, 2500)])
@pytest.mark.parametrize("kernel", ["int8", "float32", None])
def test_products_are_exact_integers_whichever_kernel(shape: tuple[int, int, int], kernel: str | None) -> None:
    """Rows of ±127 throughout are the worst case: their sums pass 2**24 from 1041 columns on."""
    rows, others, columns = shape
    rng = np.random.default_rng(columns)
    left = rng.choice([-127, 127, 126, 3], (rows, columns)).astype(np.int8)
    left[0], right = 127, rng.choice([-127, 127, 125, 1], (others, columns)).astype(np.int8)
    right[0] = 127
    np.testing.assert_array_equal(products(left, right, kernel), left.astype(np.int64) @ right.astype(np.int64).T)


def test_the_kernel_is_one_of_those_that_are_right() -> None:
    assert fastest_kernel(64) in ("int8", "float32")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(2, 70), st.integers(0, 1000), st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 10.0]))
def test_a_likeness_is_within_its_bounds(size: int, columns: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(1, columns)) + rng.normal(size=(size, columns)) * spread)
    rows[-1] = unit(rng.normal(size=(1, columns)))[0]  # one that the scale was not made for
    quantiser = Quantiser.fit(rows[: max(1, size - 1)])
    coded = quantiser.encode(rows)
    shift, slack = (part.astype(np.int64) for part in quantiser.bounds(coded.error, coded.length, coded.along))
    found = products(coded.codes, coded.codes).astype(np.int64) + shift[:, None] + shift[None, :]
    true = rows.astype(np.float64) @ rows.astype(np.float64).T * quantiser.unit
    assert (np.abs(found - true) <= slack[:, None] + slack[None, :]).all()
    assert np.abs(found).max() < 2**31


def test_most_pairs_are_decided_by_their_codes() -> None:
    rows = with_duplicates(400, 256, 0)
    quantiser = Quantiser.fit(rows)
    coded = quantiser.encode(rows)
    _, slack = quantiser.bounds(coded.error, coded.length, coded.along)
    assert 2 * slack.mean() / quantiser.unit < 0.04
