"""What bench/training.py measures of a training loop, from inside it: memory, operations, seconds of every step.

The loop calls `begin` before its first step and `step` after each optimiser step. Steps 0 and 1 are watched by torch's
allocator profiler, step 2 by its counter of floating-point operations (which holds tensors: both at once would count
them); later ones are timed, each when the other side of the pipe says so. In between, the C library gives back the
memory that it keeps: a process that waits holds its weights and nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula
from transformers import TrainerCallback

MEMORY_STEPS = 2
FIRST_TIMED = MEMORY_STEPS + 1
ATEN = torch.ops.aten


@register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu, get_raw=True)
def _attention(
    query: Any, key: Any, value: Any, dropout: float = 0.0, is_causal: bool = False, *_: Any, **__: Any
) -> int:
    """Two products of all queries with all keys; the kernel leaves out the blocks above the diagonal."""
    batch, heads, queries, width = query.shape
    return 4 * batch * heads * queries * key.shape[2] * width // (2 if is_causal else 1)


@register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu_backward, get_raw=True)
def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, out: Any, lse: Any, dropout: float, is_causal: bool, *_: Any, **__: Any
) -> int:
    """Five products: the scores again, and the gradients of values, weights, queries and keys."""
    return _attention(query, key, value, dropout, is_causal) * 5 // 2


class Pulse(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Tells the other side of `pipe` the seconds of each step, and keeps memory and operations."""

    def __init__(self, pipe: Connection, device: str) -> None:
        self.pipe, self.device = pipe, device
        self.steps = 0
        self.peak_bytes = self.flops = 0

    def begin(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profile = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
            )
            self._profile.__enter__()

    def step(self) -> None:
        """A step has ended."""
        now = self._now()
        self.steps += 1
        if self.steps == MEMORY_STEPS:
            self._end_of_memory()
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()
        elif self.steps == FIRST_TIMED:
            self._counter.__exit__(None, None, None)
            self.flops = self._counter.get_total_flops()
            del self._counter
        if self.steps < FIRST_TIMED:
            return
        if self.steps > FIRST_TIMED:
            spent, wall = (after - before for after, before in zip(now, self._started, strict=True))
            self.pipe.send((wall if self.device == "cuda" else spent, wall))
        else:
            self.pipe.send(None)
        if self.device == "cpu" and sys.platform == "linux":
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
        self.pipe.recv()
        self._started = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step()

    def _now(self) -> tuple[float, float]:
        """Seconds of the processor and of the wall clock."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    def _end_of_memory(self) -> None:
        if self.device == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._profile.__exit__(None, None, None)
        self.peak_bytes = peak(self._profile)
        del self._profile


def peak(profile: Any) -> int:
    """Most bytes that were allocated at once since the profile began, above what stood before."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
