"""Recomputing activations in the backward pass: whether, and how.

In: a stage's section and its model. Out: `off`, `selective` or `full`, and the model set to it. Full keeps each layer's
input only. Selective also keeps what is dear to compute again, the outputs of wide linear layers and of attention: half
the memory of `off` for two hundredths more arithmetic (figures in docs/doctor.md). Recomputing every other layer was
measured beside it and needs more of both.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from bunny.core.log import log
from bunny.core.recipe import StageSection
from bunny.train.cost import bytes_of_stage
from bunny.train.shape import shape_of

Choice = Literal["off", "selective", "full"]
CHOICES: tuple[Choice, ...] = ("off", "selective", "full")
MARGIN = 0.85
"""Share of the free memory that an estimate may fill: it is right within a sixth (docs/doctor.md)."""


def choose(
    section: StageSection,
    model: Any,
    tokens_per_pass: int,
    free_bytes: float | None = None,
    ranks: int = 1,
    sharded: bool = False,
) -> Choice:
    """What the section asks for; for `auto` the first of off, selective, full whose estimate fits into free memory.

    free_bytes: default: of the accelerator, else of this machine. ranks, sharded: processes that train together, and
    whether they cut up the weights. Weights that lie in the memory in question already are not counted again.
    """
    wanted = section.gradient_checkpointing
    if wanted != "auto":
        return "selective" if wanted == "selective" else "full" if wanted else "off"
    gpu = torch.accelerator.is_available()
    free = free_memory() if free_bytes is None else free_bytes
    there = 0 if gpu and next(model.parameters()).device.type == "cpu" else 1
    shape = shape_of(model.config)
    found: dict[Choice, float] = {}
    for choice in CHOICES:
        needed = bytes_of_stage(
            shape, section, tokens_per_pass, checkpointing=choice, ranks=ranks, sharded=sharded, gpu=gpu
        )
        found[choice] = needed.total - there * needed.weights
    chosen: Choice = next((choice for choice in CHOICES if found[choice] <= MARGIN * free), "full")
    words = f"{found[chosen] / 1e9:.1f} GB estimated beside the weights" if there else f"{found[chosen] / 1e9:.1f} GB"
    log.info("checkpointing %s: %s for %d tokens, %.1f GB free", chosen, words, tokens_per_pass, free / 1e9)
    return chosen


def apply(model: Any, choice: Choice) -> None:
    """Set it for the language model, and for the tower if that learns."""
    bunny = (model.get_base_model() if hasattr(model, "get_base_model") else model).model
    tower = bunny.vision_tower
    parts = [bunny.language_model]
    if any(parameter.requires_grad for parameter in tower.parameters()) and tower.supports_gradient_checkpointing:
        parts.append(tower)
    for part in parts:
        if choice == "off":
            if part.supports_gradient_checkpointing:
                part.activation_checkpointing_disable()
            continue
        how: dict[str, Any] = {"use_reentrant": False}
        if choice == "selective":
            inner = None if hasattr(model, "peft_config") else getattr(part.config, "intermediate_size", None)
            keep = functools.partial(_keep, part.config.hidden_size, inner)
            how["context_fn"] = functools.partial(create_selective_checkpoint_contexts, keep)
        part.activation_checkpointing_enable(activation_checkpointing_kwargs=how)


def _keep(width: int, inner: int | None, context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep attention and matrix products that sum over at least half the `width`: the most arithmetic per byte kept.

    Products over LoRA's rank are cheap. A layer's last product, which sums over `inner`, is needed by an adapter behind
    it only. Attention that draws a dropout mask is computed again, or masks drawn after it would be others than in the
    forward pass.
    """
    aten = torch.ops.aten
    if operation in (aten.mm.default, aten.addmm.default):
        left = args[0] if operation is aten.mm.default else args[1]  # (positions, inputs)
        dear = left.shape[-1] >= width // 2 and (left.shape[-1] != inner or inner == width)
        return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
    name = operation.name() if hasattr(operation, "name") else str(operation)
    if ("attention" in name or "flash_attn" in name) and not _drops(operation, args, kwargs):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _drops(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an attention kernel is called with dropout."""
    schema = getattr(operation, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    given = dict(zip(names, args, strict=False)) | kwargs
    return bool(given.get("dropout_p"))


def free_memory(cpu: bool = False) -> float:
    """Bytes free on the accelerator, or on this machine without one: what the system or a container's limit leaves."""
    if torch.cuda.is_available() and not cpu:
        return float(torch.cuda.mem_get_info()[0])
    found = [_available()]
    group = Path("/sys/fs/cgroup")
    limit, used = _first(group / "memory.max"), _first(group / "memory.current")
    if limit is not None and used is not None:
        found.append(limit - used + (_first(group / "memory.stat", "inactive_file") or 0))
    return max(0.0, min(found))


def _available() -> float:
    kilobytes = _first(Path("/proc/meminfo"), "MemAvailable:")
    if kilobytes is not None:
        return 1024 * kilobytes
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2  # it does not say: half of what is built in


def _first(path: Path, name: str = "") -> float | None:
    """The number behind `name` at the beginning of a line; None where there is none (`max`, or no such file)."""
    try:
        line = next(line for line in path.read_text(encoding="ascii").splitlines() if line.startswith(name))
        return float(line.removeprefix(name).split()[0])
    except (OSError, StopIteration, ValueError):
        return None
