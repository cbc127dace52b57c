"""What would have to change for a sample to stay, against a slow twin that tries every threshold."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bunny.pipeline.curated import find_run
from bunny.pipeline.staying import would_stay

KEEP = {"median": lambda size: size // 2, "nearest": lambda size: 0, "farthest": lambda size: size - 1}


def groups(cosine: Any, threshold: float) -> list[int]:
    """Of each row the first row that it is linked to, directly or in a chain; slow."""
    label = list(range(len(cosine)))
    for one in range(len(cosine)):
        for other in range(one):
            if cosine[one, other] >= threshold and label[one] != label[other]:
                old, new = max(label[one], label[other]), min(label[one], label[other])
                label = [new if value == old else value for value in label]
    return label


def kept(cosine: Any, centre: Any, threshold: float, keep: str) -> list[bool]:
    label = groups(cosine, threshold)
    stays = [False] * len(label)
    for group in set(label):
        rows = sorted((row for row in range(len(label)) if label[row] == group), key=lambda row: (-centre[row], row))
        stays[rows[KEEP[keep](len(rows))]] = True
    return stays


def links(cosine: Any) -> tuple[list[int], list[float]]:
    """Of each row an earlier one, and the highest threshold at which both are in one group."""
    count = len(cosine)
    to, at = [-1] * count, [float("nan")] * count
    label = list(range(count))
    pairs = sorted(((cosine[a, b], a, b) for a in range(count) for b in range(a)), reverse=True)
    for value, one, other in pairs:
        if label[one] != label[other]:
            later, earlier = max(label[one], label[other]), min(label[one], label[other])
            to[later], at[later] = earlier, float(value)
            label = [earlier if name == later else name for name in label]
    return to, at


def write_run(
    folder: Path, columns: dict[str, Any], step: str, block: dict[str, Any], count: int, reasons: Any
) -> None:
    pq.write_table(pa.table(columns), folder / "decisions.parquet")
    steps = [{"step": step, "settings": block, "in": count, "out": 0, "reasons": reasons}]
    (folder / "summary.json").write_text(json.dumps({"steps": steps}))


@pytest.mark.parametrize("keep", KEEP)
@settings(max_examples=30, deadline=None)
@given(seed=some.integers(0, 10**6), count=some.integers(2, 9))
def test_the_named_threshold_is_the_lowest_at_which_the_sample_stays(keep: str, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    cosine = np.round(rng.uniform(0.5, 1, (count, count)), 2)
    cosine = np.minimum(cosine, cosine.T)
    centre = rng.permutation(count) / count
    above = 0.7
    stays, label, (to, at) = kept(cosine, centre, above, keep), groups(cosine, above), links(cosine)
    ids = [f"row{number}" for number in range(count)]
    columns = {
        "id": ids,
        "kept": stays,
        "step": ["" if one else "dedup" for one in stays],
        "reason": ["" if one else "near duplicate" for one in stays],
        "component": pa.array(label, pa.int32()),
        "centre_cosine": pa.array(centre, pa.float64()),
        "link_to": pa.array([ids[row] if row >= 0 else None for row in to], pa.string()),
        "link_cosine": pa.array([value if value == value else None for value in at], pa.float64()),
    }
    with tempfile.TemporaryDirectory() as place:
        write_run(Path(place), columns, "dedup", {"use": "dedup", "above": above, "keep": keep}, count, {})
        run = find_run(Path(place))
        for row in range(count):
            if stays[row]:
                continue
            (sentence,) = would_stay(run, run.row(ids[row]))
            threshold = float(re.search(r"above >= ([\d.]+),", sentence)[1])  # type: ignore[index]  # it is there
            assert kept(cosine, centre, threshold + 1e-3, keep)[row], sentence
            tried = [value + 1e-3 for value in np.unique(cosine) if above <= value < threshold - 5e-3]
            assert not any(kept(cosine, centre, value, keep)[row] for value in tried), sentence


@given(count=some.integers(1, 3000), at=some.floats(0, 1, exclude_max=True), edge=some.floats(0.01, 0.99))
def test_a_band_that_is_named_lets_the_sample_in(count: int, at: float, edge: float) -> None:
    number = int(at * count)
    for block in ({"low": edge}, {"high": edge}):
        first, last = round(block.get("low", 0.0) * count), round(block.get("high", 1.0) * count)
        if first <= number < last:
            continue
        with tempfile.TemporaryDirectory() as place:
            columns = {"id": ["a"], "kept": [False], "step": ["band"], "reason": ["no"], "x_rank": [number / count]}
            columns["x_rank"] = pa.array(columns["x_rank"], pa.float32())  # type: ignore[assignment]  # a column
            write_run(Path(place), columns, "band", {"use": "band", "by": "x", **block}, count, {})
            run = find_run(Path(place))
            (sentence,) = would_stay(run, run.row("a"))
        key, value = re.search(r"band\.(low|high) [<>]= ([\d.e-]+)", sentence).groups()  # type: ignore[union-attr]
        changed = {**block, key: float(value)}
        assert round(changed.get("low", 0.0) * count) <= number < round(changed.get("high", 1.0) * count), sentence


def test_a_table_without_links_still_names_the_cosine(tmp_path: Path) -> None:
    columns = {
        "id": ["a"],
        "kept": [False],
        "step": ["dedup"],
        "reason": ["x"],
        "twin_cosine": [0.97],
        "component": [1],
    }
    write_run(tmp_path, columns, "dedup", {"use": "dedup", "above": 0.9}, 1, {})
    run = find_run(tmp_path)
    assert would_stay(run, run.row("a")) == ["perhaps at dedup.above > 0.9700, its cosine to its twin"]
