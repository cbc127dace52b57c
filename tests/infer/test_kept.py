"""What is kept is bounded, the oldest goes first, and beginnings are equal only with their pictures."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bunny.infer.kept import Beginnings, Kept, Said, picture_places

ITEMS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12), st.booleans()), max_size=40)


@given(ITEMS, st.integers(0, 30))
def test_it_keeps_what_was_used_last_within_its_bytes(items: list[tuple[int, int, bool]], most: int) -> None:
    kept: Kept[int] = Kept(most)
    twin: OrderedDict[int, int] = OrderedDict()
    for key, size, put in items:
        if put:
            kept.put(key, key, size)
            twin.pop(key, None)
            if size <= most:
                twin[key] = size
            while sum(twin.values()) > most:
                twin.popitem(last=False)
        else:
            assert kept.get(key) == (key if key in twin else None)
            if key in twin:
                twin.move_to_end(key)
        assert list(kept) == list(twin)
        assert kept.bytes == sum(twin.values()) <= most


def said(ids: list[int], *pictures: tuple[int, str]) -> Said:
    return Said(np.asarray(ids, dtype=np.int64), pictures)


@given(st.lists(st.integers(0, 1), max_size=8), st.lists(st.integers(0, 1), max_size=8))
def test_words_have_their_equal_beginning_in_common(one: list[int], two: list[int]) -> None:
    same = 0
    while same < min(len(one), len(two)) and one[same] == two[same]:
        same += 1
    assert said(one).common(said(two)) == said(two).common(said(one)) == same


def test_a_beginning_ends_before_a_picture_that_is_another() -> None:
    ids = [1, 9, 9, 2, 9, 9, 3]
    one = said(ids, (1, "cat"), (4, "dog"))
    assert one.common(said(ids, (1, "cat"), (4, "dog"))) == 7
    assert one.common(said(ids, (1, "cat"), (4, "cow"))) == 4
    assert one.common(said(ids, (1, "cow"), (4, "dog"))) == 1
    assert one.common(said([1, 9, 9], (1, "cat"))) == 3
    assert said(ids, (1, object()), (4, "dog")).common(said(ids, (1, object()), (4, "dog"))) == 1


def test_the_longest_known_beginning_is_found() -> None:
    kept: Beginnings[str] = Beginnings(100)
    kept.put(said([1, 2, 3]), "short", 10)
    kept.put(said([1, 2, 4, 5]), "long", 10)
    assert kept.find(said([1, 2, 4, 6])) == (3, "long")
    assert kept.find(said([7])) == (0, None)


def test_what_another_goes_on_from_is_kept_once() -> None:
    kept: Beginnings[str] = Beginnings(100)
    kept.put(said([1, 2]), "first", 10)
    kept.put(said([1, 2, 3]), "second", 10)
    assert len(kept.kept) == 1
    assert kept.find(said([1, 2, 9])) == (2, "second")


def test_runs_of_picture_tokens_are_told_apart_by_their_length() -> None:
    assert picture_places([1, 9, 9, 9, 9, 2, 9, 9], image_token_id=9, tokens=2) == [1, 3, 6]
