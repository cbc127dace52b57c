from __future__ import annotations

import numpy as np
import pytest

from bunny.curate.columns import Rows
from bunny.curate.stars import Preference, split_into_stars
from tests.curate.engine_pools import Array


def circle(degrees: list[float]) -> Array:
    turns = np.radians(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], 1).astype(np.float32)


CHAIN = [0.0, 4, 8, 12, 16, 20]  # each is linked to the next at cos(5°), the ends are far apart


def stars(degrees: list[float], prefer: Preference, least: float | None = None) -> list[int]:
    score = np.arange(len(degrees), 0, -1, dtype=float)
    component = np.zeros(len(degrees), np.int32)
    return split_into_stars(Rows.of(circle(degrees)), component, score, prefer, np.cos(np.radians(5)), least).tolist()


def test_a_chain_becomes_stars_whose_members_are_linked_to_their_centre() -> None:
    assert stars(CHAIN, "first") == [0, 0, 2, 2, 4, 4]
    assert stars(CHAIN, "last") == [1, 1, 3, 3, 5, 5]
    assert stars(CHAIN, "middle") == [0, 1, 3, 3, 3, 5] or stars(CHAIN, "middle")[3] == 3


@pytest.mark.parametrize("prefer", ["first", "middle", "last"])
def test_every_row_that_goes_is_linked_to_one_that_stays(prefer: Preference) -> None:
    rng = np.random.default_rng(0)
    degrees = rng.uniform(0, 60, 80).tolist()
    twin = stars(degrees, prefer)
    assert all(twin[row] == row for row in twin)
    assert all(abs(degrees[row] - degrees[other]) <= 5.0001 for row, other in enumerate(twin))


def test_no_two_members_are_further_apart_than_the_least_cosine_allows() -> None:
    twin = stars([0.0, 4, -4, 1, -1], "first", least=float(np.cos(np.radians(6))))
    members = [degree for degree, other in zip([0.0, 4, -4, 1, -1], twin, strict=True) if other == 0]
    assert max(members) - min(members) <= 6 and len(members) == 4


def test_components_stay_apart_and_single_rows_stay() -> None:
    rows, component = circle([0, 1, 0, 1, 50]), np.array([0, 0, 1, 1, 2], np.int32)
    assert split_into_stars(Rows.of(rows), component, np.zeros(5), "first", 0.99, None).tolist() == [0, 0, 2, 2, 4]
