"""Packing loses nothing: every row can be read back, pictures never mix, limits hold, order stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.text.pack import Batch, deal, pack

IMAGE, TOKENS = 99, 3


def row(name: str, pictures: str, text: list[int], learnt: list[bool]) -> TokenRow:
    """A row of a start token, its pictures, then text; some of the text is learnt, at least the last token."""
    ids = np.array([1, *[IMAGE] * (TOKENS * len(pictures)), *text])
    labels = np.full(len(ids), IGNORE)
    own = np.array([*learnt[: len(text) - 1], *[False] * (len(text) - 1 - len(learnt)), True])
    labels[len(ids) - len(text) :] = np.where(own, text, IGNORE)
    return TokenRow(name, ids, labels, tuple(ImageRef(picture) for picture in pictures))


@st.composite
def row_lists(draw: st.DrawFn) -> list[TokenRow]:
    count = draw(st.integers(1, 7))
    return [
        row(
            f"r{number}",
            draw(st.sampled_from(["", "a", "b", "ab", "ba", "aa"])),
            draw(st.lists(st.integers(2, 4), min_size=1, max_size=6)),
            draw(st.lists(st.booleans(), max_size=5)),
        )
        for number in range(count)
    ]


def seen_by(batch: Batch, segment: int) -> list[int]:
    """Positions a segment's last token sees, in the order of its text."""
    start, end, first, last = batch.segments[segment].tolist()
    return [*range(first, last), *range(start, end)]


def rows_in(batch: Batch) -> list[tuple[list[int], list[int], list[str]]]:
    """(ids, targets, pictures in order) of every row, read back through segments as attention sees them."""
    out = []
    shared = {tuple(s[2:]) for s in batch.segments.tolist() if s[3] > s[2]}
    for number, segment in enumerate(batch.segments.tolist()):
        if tuple(segment[:2]) in shared:
            continue  # a prefix belongs to the rows behind it
        places = seen_by(batch, number)
        assert batch.positions[places].tolist() == list(range(len(places)))
        at = batch.features_at[places]
        pictures = [batch.images[index // TOKENS].path for index in at[at >= 0][::TOKENS].tolist()]
        assert (at[at >= 0] % TOKENS == np.tile(np.arange(TOKENS), len(pictures))).all()
        out.append((batch.ids[places].tolist(), batch.targets[places].tolist(), pictures))
    return out


def wanted(item: TokenRow) -> tuple[list[int], list[int], list[str]]:
    last = int(np.flatnonzero(item.labels != IGNORE)[-1])
    return item.ids[:last].tolist(), item.labels[1 : last + 1].tolist(), [ref.path for ref in item.images]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=row_lists(), limit=st.integers(1, 60), share=st.booleans())
def test_every_row_can_be_read_back(rows: list[TokenRow], limit: int, share: bool) -> None:
    batches = pack(rows, IMAGE, TOKENS, limit, share=share)
    by_name = {item.id: item for item in rows}
    for batch in batches:
        found = rows_in(batch)
        assert len(found) == len(batch.rows)
        for name, got in zip(batch.rows, found, strict=True):
            ids, targets, pictures = wanted(by_name[name])
            assert (got[0], got[2]) == (ids, pictures)
            assert got[1] == targets
    assert sorted(name for batch in batches for name in batch.rows) == sorted(by_name)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=row_lists(), limit=st.integers(1, 60))
def test_the_weights_add_up_however_rows_are_packed(rows: list[TokenRow], limit: int) -> None:
    weights = [1.0 / (place + 1) for place in range(len(rows))]
    whole = sum(item.learns * weight for item, weight in zip(rows, weights, strict=True))
    for share in (True, False):
        batches = pack(rows, IMAGE, TOKENS, limit, weights, share)
        assert sum(batch.weight for batch in batches) == pytest.approx(whole, rel=1e-12)
        for batch in batches:
            assert ((batch.weights > 0) == (batch.targets != IGNORE)).all()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=row_lists(), limit=st.integers(1, 60), ranks=st.integers(1, 5), picture=st.sampled_from([0.0, 7.0]))
def test_ranks_have_as_many_passes_and_every_row_once(
    rows: list[TokenRow], limit: int, ranks: int, picture: float
) -> None:
    shares = deal(rows, IMAGE, TOKENS, limit, ranks=ranks, picture_tokens=picture)
    assert len(shares) == ranks
    assert len({len(passes) for passes in shares}) == 1
    assert sorted(name for passes in shares for batch in passes for name in batch.rows) == sorted(r.id for r in rows)
    whole = sum(batch.weight for passes in shares for batch in passes)
    assert whole == pytest.approx(sum(item.learns for item in rows))
    for batch in (batch for passes in shares for batch in passes):
        assert (batch.targets != IGNORE).any()  # a weightless pass is computed like any other
        assert len(batch.ids) <= limit or len(batch.rows) <= 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=row_lists(), limit=st.integers(1, 60))
def test_a_pass_keeps_its_limit_unless_one_row_alone_exceeds_it(rows: list[TokenRow], limit: int) -> None:
    for batch in pack(rows, IMAGE, TOKENS, limit):
        assert len(batch.ids) <= limit or len(batch.rows) == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=row_lists(), limit=st.integers(1, 60))
def test_a_prefix_is_shared_only_by_rows_of_the_same_pictures(rows: list[TokenRow], limit: int) -> None:
    for batch in pack(rows, IMAGE, TOKENS, limit):
        by_name = {item.id: item for item in rows}
        owners: dict[tuple[int, int], set[tuple[ImageRef, ...]]] = {}
        prefixes = {tuple(s[2:]) for s in batch.segments.tolist() if s[3] > s[2]}
        own = [s for s in batch.segments.tolist() if tuple(s[:2]) not in prefixes]
        for name, segment in zip(batch.rows, own, strict=True):
            if segment[3] > segment[2]:
                owners.setdefault((segment[2], segment[3]), set()).add(by_name[name].images)
                assert (batch.targets[segment[2] : segment[3]] == IGNORE).all()
        assert all(len(pictures) == 1 for pictures in owners.values())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=row_lists())
def test_segments_cover_the_batch_in_order_and_each_picture_is_there_once(rows: list[TokenRow]) -> None:
    (batch,) = pack(rows, IMAGE, TOKENS, 10_000)
    ends = [0, *batch.segments[:, 1].tolist()]
    assert batch.segments[:, 0].tolist() == ends[:-1]
    assert ends[-1] == len(batch.ids)
    assert len(set(batch.images)) == len(batch.images)
    assert ((batch.features_at >= 0) == (batch.ids == IMAGE)).all()


def test_groups_keep_the_order_of_their_first_rows() -> None:
    rows = [row(name, name[0], [2, 3], []) for name in ("b1", "a1", "b2", "a2")]
    (batch,) = pack(rows, IMAGE, TOKENS, 10_000)
    assert batch.rows == ("b1", "b2", "a1", "a2")


def test_the_same_rows_are_packed_the_same_way_twice() -> None:
    rows = [row(f"r{n}", "ab"[n % 2], [2, 3 + n % 2], []) for n in range(6)]
    for one, two in zip(pack(rows, IMAGE, TOKENS, 12), pack(rows, IMAGE, TOKENS, 12), strict=True):
        assert one.rows == two.rows
        np.testing.assert_array_equal(one.ids, two.ids)


def test_a_row_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="r: a row without labels"):
        pack([TokenRow("r", np.array([1, 2]), np.full(2, IGNORE))], IMAGE, TOKENS, 10)


def test_a_row_with_too_few_picture_tokens_is_refused() -> None:
    item = TokenRow("r", np.array([1, IMAGE, 2]), np.array([IGNORE, IGNORE, 2]), (ImageRef("a"),))
    with pytest.raises(ValueError, match="r: 1 picture tokens for 1 pictures of 3"):
        pack([item], IMAGE, TOKENS, 10)


def test_the_tail_that_teaches_nothing_is_not_computed() -> None:
    item = TokenRow("r", np.array([1, 2, 3, 4, 5]), np.array([IGNORE, IGNORE, 3, IGNORE, IGNORE]))
    (batch,) = pack([item], IMAGE, TOKENS, 10)
    assert batch.ids.tolist() == [1, 2]
    assert batch.targets.tolist() == [IGNORE, 3]
