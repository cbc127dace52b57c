"""Every curation step passes this suite unedited: a new file in `curate/steps` is found and tested by its name.

A step that cannot work with its defaults states settings here; nothing else about a step is known to the suite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bunny.core.errors import UserError
from bunny.core.protocols import Step
from bunny.core.recipe import make, names
from bunny.core.types import Decision, Pool
from bunny.curate.columns import Rows, Texts
from bunny.curate.step import ROW_NUMBERS

PACKAGE = "bunny.curate.steps"
BENCHMARK = Path(__file__).parent / "benchmark.parquet"
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "agreement": [{"texts": "image"}, {"texts": "image", "within": "pool", "neighbours": 3}],
    "exact": [{}, {"by": "caption"}, {"by": "caption", "normalise": True}],
    "perceptual": [{}, {"bits": 2, "keep": "best", "by": "width"}],
    "rules": [
        {"min_letter_share": 0.6, "max_digit_share": 0.3, "max_mark_share": 0.1, "max_repeated_words": 0.2},
        {"max_repeated_pairs": 0.1, "min_characters": 3},
        {"min_words": 2, "max_words": 4, "junk": ["^img"], "min_side": 20, "max_aspect": 3, "max_repeats": 3},
    ],
    "alt_text": [{}, {"only": ["camera number"]}],
    "language": [{"scripts": ["latin"]}],
    "cluster": [{"groups": 5}, {"rows_per_group": 9, "start": "random"}],
    "dedup": [
        *({"above": 0.9, "keep": keep} for keep in ("median", "nearest", "farthest")),
        {"above": 0.9, "keep": "best", "by": "pair_cosine"},
        {"above": 0.9, "within": "pool"},
        {"above": 0.9, "probes": 1},
    ],
    "band": [{"by": "pair_cosine", "low": 0.2, "high": 0.6}, {"by": "width", "high": 0.5}],
    "balance": [{"most": 4}, {"per": "source", "total": 11, "keep": "best", "by": "pair_cosine"}],
    "diverse": [
        {"share": 0.3},
        {"count": 9, "within": "pool"},
        {"method": "cover", "above": 0.8},
        {"method": "cover", "above": 0.9, "count": 5, "within": "pool"},
    ],
    "decontaminate": [{"against": [str(BENCHMARK)], "words": 4}],
    "instructions": [{"question": "source", "max_likeness": 0.8}, {"need_question": False, "min_answer_words": 2}],
    "semdedup": [{"eps": 0.1}, {"eps": 0.3, "keep": "easy"}, {"eps": 0.02, "keep": "random"}],
    "sample": [
        {"count": 7},
        {"share": 0.5},
        {"count": 2, "per": "source"},
        {"share": 0.4, "per": "cluster", "allot": "square_root"},
    ],
}
CASES = [(name, settings) for name in names(PACKAGE) for settings in SETTINGS.get(name, [{}])]
each_step = pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)]
)


def some_pool(size: int = 60) -> Pool:
    """Rows with near and exact duplicates, empty and repeated captions, small and long pictures, NaN scores, ties."""
    rng = np.random.default_rng(size)
    visual = rng.normal(size=(size, 16)).astype(np.float32)
    copies = rng.integers(0, max(1, size), size // 2)
    visual[: size // 2] = visual[copies] + rng.normal(size=(size // 2, 16)) * rng.choice([0, 0.1, 0.3], (size // 2, 1))
    visual /= np.linalg.norm(visual, axis=1, keepdims=True)
    captions = np.array(["", "a cat", "img 12 34", "A  Cat", "one two three four one two", "кот", "dog!"], dtype=object)
    hashes = rng.integers(1, 2**63, max(1, size // 3), dtype=np.uint64)[rng.integers(0, max(1, size // 3), size)]
    hashes ^= np.uint64(1) << rng.integers(0, 6, size).astype(np.uint64)
    hashes[::9] = 0
    cosine = rng.normal(size=size).round(1).astype(np.float32)
    cosine[::7] = np.nan
    cluster = rng.integers(0, 3, size).astype(np.int32)
    return Pool(
        {
            "id": np.array([f"id-{number:03d}" for number in rng.permutation(size)], dtype=str),
            "caption": captions[rng.integers(0, len(captions), size)],
            "sha256": np.array([f"{number:x}" for number in rng.integers(0, max(1, size // 2), size)], dtype=str),
            "phash": hashes,
            "source": np.array(["web", "books", ""], dtype=object)[rng.integers(0, 3, size)],
            "width": rng.integers(10, 100, size).astype(np.int32),
            "height": rng.integers(10, 100, size).astype(np.int32),
            "image": visual[:, :8] / np.linalg.norm(visual[:, :8], axis=1, keepdims=True),
            "visual": visual,
            "pair_cosine": cosine,
            "cluster": cluster,
            "second_cluster": ((cluster + 1) % 3).astype(np.int32),
            "border": rng.random(size).astype(np.float32),
            "centre_cosine": rng.normal(size=size).round(1).astype(np.float32),
        }
    )


def decide(name: str, settings: dict[str, Any], pool: Pool, seed: int = 0) -> Decision:
    step = make({"use": name, **settings}, PACKAGE)
    assert isinstance(step, Step)
    found: Decision = step.decide(pool, np.random.default_rng(seed))
    return found


def from_disk(pool: Pool) -> Pool:
    """The same pool as a large one is held: texts and vectors in pieces, rows of the pieces in another order."""
    size = len(pool)
    mixed = np.random.default_rng(9).permutation(size)  # row of the pool at each place of the files
    place = np.argsort(mixed)
    columns: dict[str, Any] = {}
    for name, values in pool.columns.items():
        stored, cut = values[mixed], size // 3
        if values.dtype.kind in "UO":
            pieces = [pa.array(some.tolist(), pa.string()) for some in (stored[:cut], stored[cut:])]
            columns[name] = Texts(pieces, place)
        else:
            columns[name] = Rows([stored[:cut], stored[cut:]], place) if values.ndim == 2 else values
    return Pool(columns)


def by_id(pool: Pool, found: Decision) -> dict[str, tuple[Any, ...]]:
    """Everything a decision says, by id instead of row."""
    ids = np.asarray(pool["id"])
    twins = [str(ids[twin]) if twin >= 0 else "" for twin in found.twin]
    columns = [
        [str(ids[row]) if row >= 0 else "" for row in found.columns[name]]
        if name in ROW_NUMBERS
        else [repr(value) for value in found.columns[name]]
        for name in sorted(found.columns)
    ]
    rows = zip(ids.tolist(), found.keep.tolist(), found.reason.tolist(), twins, *columns, strict=True)
    return {row[0]: row[1:] for row in rows}


@each_step
def test_same_seed_gives_the_same_result(name: str, settings: dict[str, Any]) -> None:
    pool = some_pool()
    assert by_id(pool, decide(name, settings, pool)) == by_id(pool, decide(name, settings, pool))


@each_step
def test_row_order_does_not_matter(name: str, settings: dict[str, Any]) -> None:
    pool = some_pool()
    shuffled = pool.take(np.random.default_rng(5).permutation(len(pool)))
    assert by_id(pool, decide(name, settings, pool)) == by_id(shuffled, decide(name, settings, shuffled))


@each_step
def test_a_pool_read_from_disk_gives_the_same(name: str, settings: dict[str, Any]) -> None:
    pool = some_pool()
    assert by_id(pool, decide(name, settings, pool)) == by_id(pool, decide(name, settings, from_disk(pool)))


@each_step
@pytest.mark.parametrize("size", [0, 1, 2])
def test_tiny_pools_work(name: str, settings: dict[str, Any], size: int) -> None:
    some = some_pool(60).take(np.arange(size))
    found = decide(name, settings, some)
    assert by_id(some, decide(name, settings, from_disk(some))) == by_id(some, found)
    assert len(found.keep) == len(found.reason) == len(found.twin) == size
    assert all(len(column) == size for column in found.columns.values())


@each_step
def test_every_drop_has_a_reason_and_no_kept_row_has_one(name: str, settings: dict[str, Any]) -> None:
    found = decide(name, settings, some_pool())
    assert [bool(reason) for reason in found.reason] == (~found.keep).tolist()
    assert found.keep.dtype == bool


@each_step
def test_a_twin_is_a_kept_row_and_only_dropped_rows_have_one(name: str, settings: dict[str, Any]) -> None:
    found = decide(name, settings, some_pool())
    has = found.twin >= 0
    assert found.keep[found.twin[has]].all()
    assert not (has & found.keep).any()


@each_step
def test_the_pool_is_left_as_it_was(name: str, settings: dict[str, Any]) -> None:
    pool = some_pool()
    before = {key: column.copy() for key, column in pool.columns.items()}
    decide(name, settings, pool)
    for key, column in pool.columns.items():
        np.testing.assert_array_equal(column, before[key])


@each_step
def test_unknown_settings_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="unknown key `nonsense`"):
        make({"use": name, **settings, "nonsense": 1}, PACKAGE)


def test_every_step_is_under_test() -> None:
    assert set(SETTINGS) <= set(names(PACKAGE))
    assert {"exact", "rules", "cluster", "dedup", "band", "sample"} <= {name for name, _ in CASES}
