"""A study from end to end: every cell that nobody has made or is making, then the report.

In: a study's file and a folder. Out: the folder with one artifact a cell and `report.html`, `report.md`, `report.json`.
Killed and started again, it goes on; several processes, on several machines, can work in one folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import check_blocks
from bunny.core.store import write_atomic
from bunny.study.asking import benchmarks_of
from bunny.study.cell import CELLS, make_cell, outcome_of, recipe_of
from bunny.study.cells import Cell, cells_of
from bunny.study.recipe import Study, steps_of
from bunny.study.shared import Shared, claimed

STUDY = "study.yaml"
DONE, BUSY, TO_DO = "done", "in work", "to do"


def run(path: Path, output: Path | None = None, pattern: str = "*") -> dict[str, Any]:
    """Make the cells whose name fits the pattern, and the report of all that are there."""
    from bunny.study.report import report

    study = Study.load(path)
    folder = output or Path("runs") / study.name
    shared = Shared(study, folder)
    cells = cells_of(study, pattern)
    examine(shared, cells)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / STUDY, path.read_text(encoding="utf-8"))
    states = {cell.name: _make(shared, cell, number, len(cells)) for number, cell in enumerate(cells, start=1)}
    content = report(path, folder)
    return {**content, "states": states}


def examine(shared: Shared, cells: list[Cell]) -> None:
    """Raise UserError, before anything is done, for a step, benchmark or change of the recipe that is wrong."""
    from bunny.curate.plan import plan

    for name, choice in shared.choices.items():
        try:
            plan(steps_of(choice), shared.base.locate("."))
        except UserError as error:
            raise UserError(f"selections.{name}: {error.what}", fix=error.fix) from None
    benchmarks_of(shared.study)
    for kind in {(cell.selection, cell.size): cell for cell in cells}.values():
        check_blocks(recipe_of(shared, kind, shared.study.budget.steps), f"{kind.selection}, {kind.size}")


def states_of(shared: Shared, cells: list[Cell]) -> Mapping[str, str]:
    """Which cells are done."""
    return {cell.name: DONE if outcome_of(shared, cell) else TO_DO for cell in cells}


def _make(shared: Shared, cell: Cell, number: int, count: int) -> str:
    """Make a cell unless another process is at it; what became of it."""
    with claimed(shared.folder / CELLS / cell.name / ".claim", wait=False) as mine:
        if not mine:
            log.info("cell %d of %d, %s: another process is at work there", number, count, cell.name)
            return BUSY
        if outcome_of(shared, cell) is None:
            log.info("cell %d of %d: %s", number, count, cell.name)
            make_cell(shared, cell)
        return DONE
