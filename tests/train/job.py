"""A training stage of seconds: a tiny Bunny, made-up pictures, LoRA with dropout. Also a program, for killing.

`python -m tests.train.job PARTS FOLDER [STEP]` trains and writes `final.safetensors`; at the beginning of step STEP
it kills itself without a word.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from bunny.core.recipe import ModelSection, StageSection
from bunny.core.types import ImageRef, Sample, Turn
from bunny.model.build import build
from bunny.text.template import Template
from bunny.train.stage import Trained, train_stage
from bunny.train.trainer import StepTrainer

TEMPLATE = Template.named("chatml")
COLOURS = ["red", "green", "blue", "grey"]
TUNE: dict[str, Any] = {
    "data": [],
    "language_model": "lora",
    "lora": {"r": 4, "alpha": 8, "dropout": 0.3},
    "learning_rate": 1e-2,
    "projector_learning_rate": 2e-2,
    "rows_per_step": 4,
    "max_steps": 6,
    "epochs": 99,
    "save_every_steps": 2,
}


def section(**changes: Any) -> StageSection:
    return StageSection(**{**TUNE, **changes})


def model_of(parts: Path) -> tuple[Any, Any]:
    """A fresh (model, processor) of the folders `tower` and `llm` in `parts`."""
    model = ModelSection(language_model=str(parts / "llm"), vision_tower=str(parts / "tower"))
    return build(model, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)


def samples(count: int = 12) -> list[Sample]:
    return [
        Sample(
            f"s{n}",
            (ImageRef(str(n // 2)),),
            (Turn("user", "<image>\nwhat colour?" if n % 2 else "<image>\nis it red?"), Turn("assistant", answer)),
        )
        for n, answer in enumerate((COLOURS[n // 2 % 4] if n % 2 else "yes") for n in range(count))
    ]


def open_image(ref: ImageRef) -> Image.Image:
    rng = np.random.default_rng(int(ref.path))
    return Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8))


def train(parts: Path, folder: Path, rows: list[Sample] | None = None, **changes: Any) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    rows = samples() if rows is None else rows
    return train_stage(section(**changes), *model_of(parts), rows, open_image, folder, seed=3, name="tune")


def state(trained: Trained) -> dict[str, Any]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in trained.model.state_dict().items()}


def main(parts: Path, folder: Path, kill_at: int | None) -> None:
    step = StepTrainer.training_step

    def watched(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    StepTrainer.training_step = watched  # type: ignore[method-assign]
    save_file(state(train(parts, folder)), folder / "final.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
