"""Training stages for several processes: `torchrun … -m tests.train.ranks PARTS FOLDER STAGES [STEP]`.

In: the parts, a folder, JSON: name -> settings of a section, run one after the other; at the beginning of step STEP
rank 1 kills itself. Out: FOLDER/NAME/final.safetensors, all weights of the trained model in float64.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from bunny.core.types import Sample, Turn
from bunny.train.stage import train_stage
from bunny.train.trainer import StepTrainer
from tests.train.job import model_of, open_image, samples, section, state

REPOSITORY = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
    "max_steps": 4,
    "rows_per_step": 4,
    "tokens_per_pass": 60,
    "trackers": [],
}


def rows() -> list[Sample]:
    """Eight rows with pictures and eight of words alone: the last steps have no picture at all on any rank."""
    words = [
        replace(one, images=(), turns=(Turn("user", "why?"), *one.turns[1:]), id=f"t{one.id}") for one in samples(8)
    ]
    mixed = [*samples(6), *words]
    return [*mixed[:3], words[0], *mixed[3:]]


def train(parts: Path, folder: Path, settings: dict[str, Any], kill_at: int | None = None) -> None:
    step = StepTrainer.training_step

    def watched(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == kill_at and os.environ.get("RANK", "1") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    if kill_at:
        StepTrainer.training_step = watched  # type: ignore[method-assign]
    folder.mkdir(parents=True, exist_ok=True)

    def fresh() -> Any:
        return model_of(parts)[0].double()

    model, processor = model_of(parts)
    how = section(**{**SETTINGS, **settings})
    trained = train_stage(how, model.double(), processor, rows(), open_image, folder, 3, "tune", fresh=fresh)
    if trained.model is not None:
        save_file(state(trained), folder / "final.safetensors")


def launch(ranks: int, parts: Path, folder: Path, stages: dict[str, Any], kill_at: int | None = None) -> int:
    """Run the stages in so many processes; the exit code."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    more = [] if kill_at is None else [str(kill_at)]
    words = [sys.executable, *start, "-m", "tests.train.ranks", str(parts), str(folder), json.dumps(stages), *more]
    done = subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode and kill_at is None:
        sys.stderr.write(done.stderr[-6000:])
    return done.returncode


def final(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final.safetensors")


if __name__ == "__main__":
    for name, settings in json.loads(sys.argv[3]).items():
        train(Path(sys.argv[1]), Path(sys.argv[2]) / name, settings, int(sys.argv[4]) if len(sys.argv) > 4 else None)
