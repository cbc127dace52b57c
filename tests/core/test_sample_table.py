"""Samples survive a trip to disk, whole and exact."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core import sample_table
from bunny.core.errors import UserError
from bunny.core.sample_table import iterate_samples, read_samples, write_samples
from bunny.core.types import ImageRef, Sample, Turn

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
sample = st.builds(
    Sample,
    text,
    st.lists(st.builds(ImageRef, text, text, text), max_size=3).map(tuple),
    st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), text), max_size=4).map(tuple),
    text,
    st.dictionaries(text, json_value, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(sample, max_size=5))
def test_the_round_trip_is_exact(samples: list[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.parquet"
        assert write_samples(path, samples) == len(samples)
        assert read_samples(path) == samples


def pair(id: str, **meta: object) -> Sample:
    return Sample.pair(id, ImageRef("a.png"), "words", "set", **meta)


def test_many_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_table, "ROWS_PER_GROUP", 7)
    samples = [pair(str(number)) for number in range(30)]
    write_samples(tmp_path / "new" / "set.parquet", iter(samples))
    assert list(iterate_samples(tmp_path / "new" / "set.parquet")) == samples
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set.parquet"]


def test_numpy_values_are_stored_as_plain_ones(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.parquet", [pair("a", score=np.float64(0.5), hits=np.array([1, 2]))])
    assert read_samples(tmp_path / "a.parquet")[0].meta == {"score": 0.5, "hits": [1, 2]}


@pytest.mark.parametrize("bad", [pair("b", what=object()), Sample("b", (), (Turn("user", "\ud800"),))])
def test_a_sample_that_cannot_be_stored_is_named_and_leaves_the_old_file(tmp_path: Path, bad: Sample) -> None:
    path = tmp_path / "a.parquet"
    write_samples(path, [pair("old")])
    with pytest.raises(UserError, match="sample 'b' cannot be stored"):
        write_samples(path, [pair("a"), bad])
    assert [row.id for row in read_samples(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_sample_tables_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such sample table"):
        read_samples(tmp_path / "no.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no column images, meta, source, turns"):
        read_samples(tmp_path / "other.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UserError, match="damaged"):
        read_samples(tmp_path / "cut.parquet")
