"""A study from end to end on tiny models: cells, reuse, sharing, the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.study import cell as cell_module
from bunny.study.cell import make_cell, outcome_of
from bunny.study.cells import cells_of
from bunny.study.recipe import Study
from bunny.study.report import report
from bunny.study.run import run
from bunny.study.shared import Shared, claimed
from tests.study.studies import study_file, write_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(study's file, its folder, what `run` returned)."""
    folder = tmp_path_factory.mktemp("study")
    path = study_file(folder)
    return path, folder / "out", run(path, folder / "out")


def test_every_cell_is_an_artifact_with_answers_and_losses(done: tuple[Path, Path, dict[str, Any]]) -> None:
    path, folder, content = done
    cells = cells_of(Study.load(path))
    assert content["finished"] == content["cells"] == len(cells) == 6
    for cell in cells:
        outcome = folder / "cells" / cell.name / "outcome"
        manifest = json.loads((outcome / "manifest.json").read_text())
        assert manifest["steps"] == 2 and manifest["fingerprint"]
        assert len((outcome / "metrics.jsonl").read_text().splitlines()) == 2
        rows = [json.loads(line) for line in (outcome / "answers" / "shapes.jsonl").read_text().splitlines()]
        assert all(abs(sum(row["chances"].values()) - 1) < 1e-3 for row in rows)
        assert not (outcome / "run").exists()  # the weights are gone


def test_all_cells_got_the_same_questions(done: tuple[Path, Path, dict[str, Any]]) -> None:
    _, folder, _ = done
    asked = {
        tuple(json.loads(line)["id"] for line in file.read_text().splitlines())
        for file in folder.glob("cells/*/outcome/answers/shapes.jsonl")
    }
    assert len(asked) == 1


def test_a_share_is_of_the_whole_pool_and_the_pool_is_embedded_once(done: tuple[Path, Path, dict[str, Any]]) -> None:
    _, folder, _ = done
    kept = {
        file.parent.parent.name: json.loads(file.read_text())["kept"]
        for file in folder.glob("selections/*/curated/manifest.json")
    }
    assert kept["all.all.s0"] == 46 and kept["random.50.s0"] == 23
    assert 0 < kept["curated.50.s1"] <= 23
    assert len(list(folder.glob("**/pool/part-*"))) == 1


def test_finished_cells_are_not_made_again(
    done: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder, _ = done
    monkeypatch.setattr(cell_module, "_build", lambda *_: pytest.fail("made again"))
    assert run(path, folder)["finished"] == 6


def test_another_budget_is_another_cell(done: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    path, folder, _ = done
    other = write_study(path.parent, budget={"steps": 3})
    try:
        shared = Shared(Study.load(other), folder)
        assert [outcome_of(shared, cell) for cell in cells_of(shared.study)] == [None] * 6
    finally:
        write_study(path.parent)


def test_the_report_holds_figures_words_and_pictures(done: tuple[Path, Path, dict[str, Any]]) -> None:
    _, folder, content = done
    page = (folder / "report.html").read_text()
    assert "<img" in page and 'src="http' not in page and "differences at equal budget" in page.lower()
    told = json.loads((folder / "report.json").read_text())
    assert {one["arm"] for one in told["scores"]} == {"random, 50 %", "all", "curated, 50 %"}
    assert all(one["seeds"] == [0, 1] for one in told["comparisons"])
    assert told["cost"]["curated, 50 %"]["train"] > 0
    assert content["conclusion"][0].startswith("3 comparisons by ranking")
    assert (folder / "report.md").read_text().startswith("# Study: tiny")
    assert told["leaks"]["pictures"] > 0


def test_a_killed_cell_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = study_file(tmp_path, selections={"random": {}}, seeds=[0], against=["random"], budget={"steps": 3})
    code = (
        "import os; from pathlib import Path; from bunny.train import trainer\n"
        "step = trainer.StepTrainer.training_step\n"
        "def dies(self, *given, **named):\n"
        "    if self.state.global_step == 2: os._exit(9)\n"
        "    return step(self, *given, **named)\n"
        "trainer.StepTrainer.training_step = dies\n"
        f"from bunny.study.run import run; run(Path({str(path)!r}), Path({str(tmp_path / 'out')!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 9
    (checkpoint,) = (tmp_path / "out").rglob("checkpoint-2")
    assert checkpoint.is_dir()
    assert run(path, tmp_path / "out")["finished"] == 1
    lines = next((tmp_path / "out").rglob("metrics.jsonl")).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_cell_that_another_process_makes_is_left_to_it(tmp_path: Path) -> None:
    path = study_file(tmp_path, selections={"random": {}}, against=["random"])
    shared = Shared(Study.load(path), tmp_path / "out")
    first, second = cells_of(shared.study)
    make_cell(shared, first)
    code = (
        "import sys, time; from pathlib import Path; from bunny.study.shared import claimed\n"
        f"with claimed(Path({str(tmp_path / 'out/cells' / second.name / '.claim')!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == b"held\n"
        states = run(path, tmp_path / "out")["states"]
        other.stdin.close()
    assert states == {first.name: "done", second.name: "in work"}
    with claimed(tmp_path / "out/cells" / second.name / ".claim", wait=False) as mine:
        assert mine  # the lock died with its process


def test_without_a_finished_cell_there_is_no_report(tmp_path: Path) -> None:
    path = study_file(tmp_path)
    with pytest.raises(UserError, match="no cell is finished"):
        report(path, tmp_path / "out")


def test_equal_compute_takes_the_curation_off_the_steps(tmp_path: Path) -> None:
    path = study_file(tmp_path, budget={"steps": 50, "equal": "compute", "step_cpu_seconds": 0.2}, seeds=[0])
    shared = Shared(Study.load(path), tmp_path / "out")
    whole, curated = (cell for cell in cells_of(shared.study) if cell.selection in ("all", "curated"))
    assert cell_module.steps_for(shared, whole, shared.selection(whole)) >= 49
    spent = shared.curation_seconds(curated, shared.selection(curated))
    assert cell_module.steps_for(shared, curated, shared.selection(curated)) == int(50 - spent / 0.2)


def test_a_curation_dearer_than_the_budget_is_an_error(tmp_path: Path) -> None:
    path = study_file(tmp_path, budget={"steps": 1, "equal": "compute", "step_cpu_seconds": 1e-6}, seeds=[0])
    shared = Shared(Study.load(path), tmp_path / "out")
    cell = cells_of(shared.study, "curated.*")[0]
    with pytest.raises(UserError, match="takes as much as"):
        cell_module.steps_for(shared, cell, shared.selection(cell))
