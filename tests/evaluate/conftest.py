"""The caller's own benchmark files play no part in the tests."""

from __future__ import annotations

import pytest

from bunny.evaluate.official.benchmark import ROOT


@pytest.fixture(autouse=True)
def no_benchmark_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that need the variable set it themselves."""
    monkeypatch.delenv(ROOT, raising=False)
