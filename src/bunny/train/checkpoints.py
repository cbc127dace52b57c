"""What a checkpoint holds: the weights that learn and the optimiser's state, by name and whole.

Nothing depends on how many processes trained or whether their weights were sharded, so a run may go on with others.
A checkpoint is whole once its state file, written last, is there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from bunny.core.errors import UserError

WEIGHTS = "trained.safetensors"
LAST_WRITTEN = "trainer_state.json"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 holds the model's weights in pieces."""
    return isinstance(model, torch.distributed.fsdp.FSDPModule)


def learning_state(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of everything that learns. Sharded: all ranks have to ask; the first gets it, others nothing."""
    if is_sharded(model):
        pieces: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
        mine = {name for name, p in model.named_parameters() if p.requires_grad}  # tied weights once
        return {name: tensor.contiguous() for name, tensor in pieces.items() if name in mine}
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def put_learning(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved tensors in. Raises UserError if any name is missing, left over, or of another shape."""
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    odd = mine.keys() ^ tensors.keys() | {n for n in mine.keys() & tensors.keys() if mine[n].shape != tensors[n].shape}
    if odd:
        raise UserError(
            f"{len(odd)} saved tensors do not fit the model, e.g. {min(odd)}",
            fix="the checkpoint is of another model or recipe: delete it or use its recipe",
        )
    if is_sharded(model):
        set_model_state_dict(
            model, dict(tensors), options=StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
        )
        return
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])


def optimiser_state(model: nn.Module, optimiser: Any) -> dict[str, Any]:
    """The optimiser's state by parameter name. Sharded: all ranks have to ask; the first gets it."""
    return get_optimizer_state_dict(model, optimiser, options=WHOLE)


def load_optimiser(model: nn.Module, optimiser: Any, state: dict[str, Any]) -> None:
    """Put a saved optimiser state in, cut up as the model's weights are."""
    set_optimizer_state_dict(model, optimiser, state, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones (a killed process) are removed."""
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        step = global_step(path)
        if step:
            whole.append((step, path))
        else:
            shutil.rmtree(path)
    return max(whole)[1] if whole else None


def global_step(checkpoint: Path) -> int:
    """Steps done at a checkpoint, 0 if it is not whole (its state file is written last)."""
    try:
        return int(json.loads((checkpoint / LAST_WRITTEN).read_text(encoding="utf-8"))["global_step"])
    except (OSError, json.JSONDecodeError, KeyError):
        return 0
