"""Figures of a training run: one JSON line per step, a progress bar with ETA.

Logged: loss, learning rate, gradient norm, seconds, samples/s, tokens/s (packed tokens really computed, of all ranks),
how many times fewer those are than the rows' own tokens, share of the machine's peak arithmetic where the work of a
step is known, most memory taken. A step's seconds are those of the step: evaluations, previews and checkpoints are
not in them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from transformers import TrainerCallback

from bunny.core.log import Metrics, log, meter

Send = Callable[[Mapping[str, Any], Any], None]
"""Where figures go besides metrics.jsonl: called with the row and Trainer's (args, state, control)."""


class StepMeter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Writes metrics.jsonl, hands the same figures to the trackers, and moves the progress bar.

    work: arithmetic of a step (0 is the first) in FLOP, of all ranks; peak: what one device can do, in FLOP/s. Both or
    neither.
    """

    def __init__(
        self,
        metrics: Metrics,
        name: str,
        steps: int,
        trainer: Any,
        send: Send | None = None,
        work: Callable[[int], float] | None = None,
        peak: float | None = None,
    ) -> None:
        self.metrics, self.name, self.steps, self.trainer, self.send = metrics, name, steps, trainer, send
        self.work, self.peak = work, peak
        self._open = ExitStack()
        self._seconds = 0.0
        self._seen = (0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            self.metrics.forget_after(state.global_step)
            self._bar = self._open.enter_context(meter(self.name, self.steps))
            if state.global_step:
                log.info("%s: goes on after step %d", self.name, state.global_step)
                self._bar.advance(state.global_step)
        self._seen = self._tokens(args)
        self.resume()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds = time.monotonic() - self._tick
        self.resume()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.resume()

    def resume(self) -> None:
        """Time from here on is the next step's."""
        self._tick = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.global_step:
            return
        seen = self._tokens(args)  # every rank has to ask
        row = self._row(args, state, logs, seen)
        self._seen = seen
        if not args.should_save:
            return
        self.metrics.write(**row)
        if self.send is not None:
            self.send(row, (args, state, control))
        self._bar.advance(note=f"loss {row['loss']:.3f}, {row['tokens_per_second']:.0f} tokens/s")

    def _row(self, args: Any, state: Any, logs: Mapping[str, float], seen: tuple[int, int]) -> dict[str, Any]:
        step, seconds = state.global_step, max(self._seconds, 1e-9)
        tokens, padded = seen[0] - self._seen[0], seen[1] - self._seen[1]
        row = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(seconds, 4),
            "samples_per_second": round(len(self.trainer.train_dataset.plan[step - 1]) / seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            "tokens": tokens,
            "times_fewer_tokens": round(padded / tokens, 3) if tokens else None,
            "memory_gb": round(most_memory(args.device) / 1e9, 3),
        }
        if self.work is not None and self.peak:
            row["mfu"] = round(self.work(step - 1) / (seconds * self.peak * args.world_size), 4)
        return row

    def _tokens(self, args: Any) -> tuple[int, int]:
        """Tokens computed so far and those of the same rows by themselves, of all ranks."""
        both = torch.tensor([self.trainer.tokens_seen, self.trainer.padded_seen], device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(both)
        return int(both[0]), int(both[1])

    def close(self) -> None:
        """Take the progress bar down, also when training was cut short."""
        self._open.close()


def most_memory(device: torch.device) -> int:
    """Most bytes this process has had at once: of the accelerator's memory, or else of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
