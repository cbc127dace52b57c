"""The quick-start notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.demo
def test_the_notebook_runs_and_every_cell_says_something(tmp_path: Path) -> None:
    copy = shutil.copy(NOTEBOOK, tmp_path / "ran.ipynb")  # it runs in its own folder
    run = [sys.executable, "-m", "jupyter", "execute", str(copy), "--inplace"]
    kernel = {"JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    ran = subprocess.run(run, cwd=tmp_path, env=os.environ | kernel, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    cells = json.loads((tmp_path / "ran.ipynb").read_text(encoding="utf-8"))["cells"]
    said = {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}
    assert all(said.values()), [id for id, outputs in said.items() if not outputs]
    assert json.loads((tmp_path / "runs/quickstart/results.json").read_text())["tasks"]
