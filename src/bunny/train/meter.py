"""Figures of a training run: one JSON line per step, a progress bar with ETA, a loss curve as a picture, TensorBoard.

Logged: loss, learning rate, gradient norm, seconds, samples/s, tokens/s (packed tokens really computed), and tokens the
same rows would take without sharing.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from bunny.core.log import Metrics, log, meter


class StepMeter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Writes metrics.jsonl (and TensorBoard events where it is installed) and moves the progress bar."""

    def __init__(self, folder: Path, name: str, steps: int, trainer: Any) -> None:
        self.metrics = Metrics(folder)
        self.name, self.steps, self.trainer = name, steps, trainer
        self.board = _tensorboard(folder)
        self._open = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar = self._open.enter_context(meter(self.name, self.steps))
        if state.global_step:
            log.info("%s: goes on after step %d", self.name, state.global_step)
            self._bar.advance(state.global_step)
        self._tick = time.monotonic()
        self._tokens = self.trainer.tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.global_step:
            return
        now, tokens = time.monotonic(), self.trainer.tokens_seen
        seconds = now - self._tick
        rows = len(self.trainer.train_dataset.plan[state.global_step - 1])
        row = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(seconds, 4),
            "samples_per_second": round(rows / seconds, 3),
            "tokens_per_second": round((tokens - self._tokens) / seconds, 1),
        }
        self._tick, self._tokens = now, tokens
        self.metrics.write(**row)
        if self.board is not None:
            for key, value in row.items():
                if value is not None and key != "step":
                    self.board.add_scalar(f"{self.name}/{key}", value, state.global_step)
        self._bar.advance(note=f"loss {logs['loss']:.3f}, {row['tokens_per_second']:.0f} tokens/s")

    def close(self) -> None:
        """Take the progress bar down, also when training was cut short."""
        self._open.close()
        if self.board is not None:
            self.board.close()


def draw_loss(rows: list[dict[str, Any]], path: Path, name: str) -> None:
    """The loss per step (thin) and its running mean (thick) as a PNG."""
    from matplotlib.figure import Figure

    by_step = {row["step"]: row["loss"] for row in rows if "loss" in row}  # a resumed run repeats some steps
    steps = sorted(by_step)
    losses = [by_step[step] for step in steps]
    width = max(1, len(losses) // 20)
    smooth = [
        sum(losses[max(0, i - width) : i + 1]) / len(losses[max(0, i - width) : i + 1]) for i in range(len(losses))
    ]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=0.6, color="0.6", label="step")
    axes.plot(steps, smooth, linewidth=1.8, color="0.1", label=f"mean of {width + 1} steps")
    axes.set(xlabel="optimiser step", ylabel="loss (nats per label token)", title=name)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.debug("TensorBoard is not installed: figures go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder / "tensorboard"))
