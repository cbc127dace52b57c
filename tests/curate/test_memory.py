"""The most memory that a stage holds: measured, and told in the summary and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bunny import curate
from bunny.core.types import ImageRef, Sample
from bunny.curate import memory
from tests.curate.conftest import ColourEmbedder

OpenImage = Callable[[ImageRef], Image.Image]
needs_linux = pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not say")
MB = 1 << 20


@needs_linux
def test_the_peak_is_what_was_held_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.001)
    with memory.peak() as held:
        before = held.bytes
        block = np.ones(64 * MB, np.uint8)
        while held.bytes < before + 60 * MB:
            pass
        del block
    assert 60 * MB < held.bytes - before < 200 * MB
    assert memory.anonymous() < held.bytes - 50 * MB


@needs_linux
def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones(64 * MB, np.uint8))
    with memory.peak() as held:
        before = held.bytes
        assert np.load(tmp_path / "rows.npy", mmap_mode="r").sum() == 64 * MB
    assert held.bytes < before + 30 * MB


@needs_linux
def test_every_stage_tells_its_peak(
    samples: list[Sample], embedder: ColourEmbedder, opener: OpenImage, tmp_path: Path
) -> None:
    steps: list[dict[str, Any]] = [{"use": "exact"}, {"use": "sample", "count": 9}]
    curate.curate(samples, [], embedder, steps, seed=0, folder=tmp_path, open_image=opener)
    told = json.loads((tmp_path / "summary.json").read_text())["memory"]
    assert list(told) == ["embed", "exact", "sample", "write"] and min(told.values()) > MB
    assert f"{told['exact'] / 1e6:.0f} MB" in (tmp_path / "report.html").read_text()


def test_where_the_system_does_not_say_nothing_is_told(
    samples: list[Sample], embedder: ColourEmbedder, opener: OpenImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "gone")
    curate.curate(samples, [], embedder, [{"use": "exact"}], seed=0, folder=tmp_path / "run", open_image=opener)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["memory"] == {}
