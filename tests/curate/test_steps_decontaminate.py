"""What a benchmark has too is found: by pixels, hash, vector, words; each search against its obvious twin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate.columns import Rows
from bunny.curate.contamination import most_alike, same_text, shared_run
from bunny.curate.engine import select
from bunny.curate.steps.decontaminate import Decontaminate

SENTENCE = st.lists(st.sampled_from(["A", "a", "b", "c,", "d"]), max_size=9).map(" ".join)


def decide(block: dict[str, Any], pool: Pool) -> Decision:
    found: Decision = make({"use": "decontaminate", **block}, "bunny.curate.steps").decide(
        pool, np.random.default_rng(0)
    )
    return found


def objects(values: list[str]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@given(st.lists(SENTENCE, max_size=5), st.lists(SENTENCE, max_size=5), st.integers(1, 12))
def test_a_shared_run_of_words_is_found(texts: list[str], benchmark: list[str], size: int) -> None:
    found = shared_run(objects(texts), objects(benchmark), size)
    for text, row in zip(texts, found, strict=True):
        mine = f" {' '.join(words(text))} "
        sharing = set()
        for number, other in enumerate(benchmark):
            theirs = words(other)
            length = min(size, len(theirs))
            runs = [theirs[start : start + length] for start in range(len(theirs) - length + 1)]
            if len(theirs) >= min(8, size) and any(f" {' '.join(run)} " in mine for run in runs):
                sharing.add(number)
        assert (row in sharing) if sharing else row == -1


def test_thirteen_words_in_common_count_and_twelve_do_not() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    twelve = "x " + " ".join(text.split()[:12]) + " x"
    thirteen = "X, " + " ".join(text.split()[1:]).upper() + "!"
    assert shared_run(objects([twelve, thirteen]), objects([text]), 13).tolist() == [-1, 0]


@given(st.lists(st.sampled_from(["", "a", "b", "\ud800"]), max_size=6), st.lists(st.sampled_from(["", "b", "a"])))
def test_equal_strings_are_found_and_empty_ones_are_not(texts: list[str], benchmark: list[str]) -> None:
    expected = [benchmark.index(text) if text and text in benchmark else -1 for text in texts]
    assert same_text(objects(texts), objects(benchmark)).tolist() == expected


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.9, 0.999]))
def test_the_most_alike_of_a_benchmark_is_found(size: int, others: int, seed: int, above: float) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = (Rows.of(rng.integers(-1, 2, (n, 3)).astype(np.float32)) for n in (size, others))  # NaN rows too
    cosine = np.round(ours.read().astype(float) @ theirs.read().astype(float).T, 6)
    for row, found in enumerate(most_alike(ours, theirs, above)):
        near = np.flatnonzero(cosine[row] >= above)
        assert (cosine[row, found] == cosine[row, near].max()) if len(near) else found == -1


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (Rows.of(rng.normal(size=(n, 3)).astype(np.float32)) for n in (50, 40))
    whole = most_alike(ours, theirs, 0.9)
    monkeypatch.setattr("bunny.curate.contamination.TILE", 7)
    np.testing.assert_array_equal(most_alike(ours, theirs, 0.9), whole)
    assert (whole >= 0).any()


BASE = 0x123456789ABCDEF1


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Three rows: one known by its pixels, one by its hash, one by its words; vectors along the axes."""
    path = tmp_path / "quiz.parquet"
    table = {
        "id": ["q1", "q2", "q3"],
        "sha256": ["aa", "bb", None],
        "phash": pa.array([None, BASE, 0], pa.uint64()),
        "text": ["what is this", "which one", "the quick brown fox jumps over the lazy dog today"],
    }
    pq.write_table(pa.table(table), path)
    np.save(tmp_path / "quiz.visual.npy", np.eye(3, dtype=np.float16))
    return path


def some_pool() -> Pool:
    captions = ["what is this", "", "Look: the quick brown fox jumps over the lazy dog today!", "", ""]
    return Pool(
        {
            "id": np.array(["a", "b", "c", "d", "e"]),
            "sha256": objects(["aa", "", "cc", "dd", "ee"]),
            "phash": np.array([0, BASE ^ 5, 1 << 63, 77, 78], np.uint64),
            "caption": objects(captions),
            "visual": np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0.1, 0, 1], [1, 1, 0]], np.float32),
        }
    )


def test_the_reason_names_the_benchmark_and_its_row(benchmark: Path) -> None:
    assert decide({"against": [str(benchmark)], "above": 0.95}, some_pool()).reason.tolist() == [
        "the same pixels as in quiz (q1)",
        "nearly the same picture as in quiz (q2)",
        "a run of 13 words as in quiz (q3)",
        "a picture within a cosine of 0.95 in quiz (q3)",
        "",
    ]


def test_settings_turn_comparisons_off_and_paths_start_at_the_folder(benchmark: Path) -> None:
    block = {"against": [benchmark.name], "folder": str(benchmark.parent), "words": 0, "bits": 1}
    assert decide(block, some_pool()).keep.tolist() == [False, True, True, True, True]


def test_reasons_are_counted_and_shown_without_the_rows_of_the_benchmark(benchmark: Path) -> None:
    pool = Pool({**some_pool().columns, "sha256": objects(["aa", "bb", "aa", "dd", "ee"])})
    (run,) = select(pool, [{"use": "decontaminate", "against": [str(benchmark)], "words": 0}], 0).runs
    assert run.counts() == {"the same pixels as in quiz": 3}
    assert run.dropped_for("the same pixels as in quiz").tolist() == [0, 1, 2]
    assert not len(run.dropped_for("the same pixels"))


def test_relative_benchmarks_are_seen_from_the_given_folder_and_again_too(benchmark: Path) -> None:
    block = {"use": "decontaminate", "against": [benchmark.name]}
    found = select(some_pool(), [block], 0, folder=benchmark.parent)
    assert found.kept().tolist() == [False, False, False, True, True]
    again = found.again(decontaminate={"words": 0})
    assert again.kept().tolist() == [False, False, True, True, True]


def test_the_files_of_a_benchmark_are_its_table_and_vectors(benchmark: Path) -> None:
    found = Decontaminate(against=("quiz.parquet", "gone"), folder=benchmark.parent).inputs()
    assert found == [benchmark, benchmark.with_suffix(".visual.npy")]


def test_vectors_of_another_model_are_a_clear_error(benchmark: Path) -> None:
    pool = some_pool().with_columns({"visual": np.ones((5, 4), np.float32)})
    with pytest.raises(UserError, match="4 numbers a vector here, 3 in quiz"):
        decide({"against": [str(benchmark)], "above": 0.9}, pool)


def test_a_missing_or_empty_benchmark_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark there"):
        decide({"against": [str(tmp_path / "gone.parquet")]}, some_pool())
    pq.write_table(pa.table({"other": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="none of the columns"):
        decide({"against": [str(tmp_path / "other.parquet")]}, some_pool())
    np.save(tmp_path / "short.visual.npy", np.eye(3, dtype=np.float32)[:2])
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "short.parquet")
    with pytest.raises(UserError, match="the table has 3 rows"):
        decide({"against": [str(tmp_path / "short.parquet")]}, some_pool())
    (tmp_path / "broken.parquet").write_text("no table")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        decide({"against": [str(tmp_path / "broken.parquet")]}, some_pool())
    pq.write_table(pa.table({"text": ["a b c"]}), tmp_path / "texts.parquet")
    with pytest.raises(UserError, match="nothing to compare"):
        decide({"against": [str(tmp_path / "texts.parquet")], "words": 0}, some_pool())
