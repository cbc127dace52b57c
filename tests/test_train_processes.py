"""`bunny train --processes 2`: the whole command in two processes learns what one learns, and says it once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_story import recipe_file

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_processes_run_a_recipe_as_one_does(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path)

    def bunny(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bunny", "train", str(recipe), "--set", "tune.lora.dropout=0", *words],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )

    one = bunny("--output", str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr[-3000:]
    two = bunny("--output", str(tmp_path / "two"), "--processes", "2", "--json")
    assert two.returncode == 0, two.stderr[-3000:]
    assert json.loads(two.stdout)["model"] == str(tmp_path / "two" / "model")  # one answer, not two
    a, b = load_file(tmp_path / "one/model/model.safetensors"), load_file(tmp_path / "two/model/model.safetensors")
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-3, atol=1e-4)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "model/training/metrics.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) == 4
