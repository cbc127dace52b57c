"""Hours and disk before a study starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunny.study import planning
from bunny.study.planning import plan
from tests.study.studies import study_file, write_study

pytestmark = pytest.mark.slow


def test_a_plan_times_this_machine_once_and_scales_with_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file(tmp_path)
    first = plan(path, tmp_path / "out")
    assert first["to_do"] == 6 and set(first["cells"].values()) == {"to do"}
    assert first["measured"]["step"] > 0 and first["measured"]["question"] > 0
    assert first["disk_gb"]["models"] >= 0
    monkeypatch.setattr(planning, "_measure", lambda *_: pytest.fail("measured again"))
    second = plan(write_study(tmp_path, budget={"steps": 20}), tmp_path / "out")
    assert second["hours"]["train"] == pytest.approx(10 * first["hours"]["train"])
    assert second["hours"]["ask"] == pytest.approx(first["hours"]["ask"])
