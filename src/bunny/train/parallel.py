"""How several processes train one model: copies whose gradients are averaged (DDP), or weights in pieces (FSDP2).

In: a stage's section, the model. Out: Trainer's words for it; accelerate does the rest. Started by `torchrun`,
`accelerate launch` or `bunny train --processes N`.
"""

from __future__ import annotations

import os
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import StageSection

PATIENCE = 14 * 24 * 3600
"""Seconds that a process waits for another: the first one alone makes the index of rows, and scores."""


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_sharding(section: StageSection) -> bool:
    """Whether the section's weights are cut up among the processes."""
    if processes() == 1 or section.deepspeed or section.parallel == "ddp":
        return False
    return section.parallel == "fsdp" or section.language_model == "full"


def arguments_for(section: StageSection, model: Any) -> dict[str, Any]:
    """Arguments of `transformers.TrainingArguments`; none for a single process."""
    if section.deepspeed:
        if section.parallel != "auto":
            raise UserError("`parallel` and `deepspeed` exclude each other", fix="leave one of them out")
        return {"deepspeed": section.deepspeed}
    if processes() == 1:
        return {}
    if is_sharding(section):
        layers = {"version": 2, "transformer_layer_cls_to_wrap": _layers(model)}
        return {"ddp_timeout": PATIENCE, "fsdp": True, "fsdp_config": layers}
    return {"ddp_timeout": PATIENCE, "ddp_find_unused_parameters": False}


def _layers(model: Any) -> list[str]:
    """Names of the layer classes that are gathered and freed one by one."""
    inner = model.model
    wanted = {*(inner.language_model._no_split_modules or ()), *(inner.vision_tower._no_split_modules or ())}
    return sorted(wanted & {type(module).__name__ for module in model.modules()})
