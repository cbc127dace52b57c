"""What learns in a stage: projector, adapters or all of the language model, vision tower; and their learning rates.

In: a Bunny and the stage's section. Out: the model to train (wrapped by peft for LoRA) and its optimiser groups.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from bunny.core.errors import UserError
from bunny.core.recipe import StageSection
from bunny.train.checkpointing import apply, choose
from bunny.train.parallel import is_sharding, processes

LANGUAGE_MODEL = "model.language_model."
PROJECTOR = "multi_modal_projector."
TOWER = "vision_tower."


def set_learning(model: nn.Module, section: StageSection, tokens: int | None = None) -> Any:
    """The model with `requires_grad` set as the section says; LoRA layers added on the language model's linears.

    tokens: of the largest pass, which has to fit into memory; default: as many as the section allows.
    """
    model.requires_grad_(False)
    trained: Any = _with_adapters(model, section) if section.language_model == "lora" else model
    for name, parameter in trained.named_parameters():
        if section.language_model == "full" and (LANGUAGE_MODEL in name or "lm_head." in name):
            parameter.requires_grad_(True)
        if section.projector == "train" and PROJECTOR in name:
            parameter.requires_grad_(True)
        if section.vision_tower == "train" and TOWER in name:
            parameter.requires_grad_(True)
    _rest_unused(model, section)
    if not any(parameter.requires_grad for parameter in trained.parameters()):
        raise UserError("nothing learns in this stage", fix="set projector: train or language_model: lora | full")
    if section.precision == "bf16":
        _halve_frozen(trained)
    ranks, sharded = processes(), is_sharding(section)
    apply(trained, choose(section, model, tokens or section.tokens_per_pass, ranks=ranks, sharded=sharded))
    return trained


def _halve_frozen(model: nn.Module) -> None:
    """Matrices that do not learn in bfloat16, as they are used; all that learns, biases and norms stay in float32."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point() and parameter.ndim > 1:
            parameter.data = parameter.data.to(torch.bfloat16)


def _rest_unused(model: Any, section: StageSection) -> None:
    """Freeze what no picture token depends on: pooling heads, last norms, spare projector layers.

    It would get no gradient, and distributed training waits for every gradient that was promised.
    """
    inner, vision = model.model, model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    first = next(inner.vision_tower.parameters())
    if section.projector == "train":
        features = first.new_zeros(1, patches, model.config.feature_width)
        _freeze_unused(inner.multi_modal_projector, inner.multi_modal_projector(features))
    if section.vision_tower == "train":
        blank = first.new_zeros(1, 3, vision.image_size, vision.image_size)
        _freeze_unused(inner.vision_tower, inner.patch_features(blank))


def _freeze_unused(part: nn.Module, output: torch.Tensor) -> None:
    parameters = list(part.parameters())
    gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True) if parameters else ()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _with_adapters(model: nn.Module, section: StageSection) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = section.lora
    linears = {
        name.rpartition(".")[2]
        for name, module in model.get_submodule("model.language_model").named_modules()
        if isinstance(module, nn.Linear)
    }
    targets = rf"{re.escape(LANGUAGE_MODEL)}.*\.({'|'.join(sorted(linears))})"  # never the tower, projector or head
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        target_modules=targets,
        bias="none",
    )
    return get_peft_model(model, config)  # type: ignore[arg-type]


def optimiser_groups(model: nn.Module, section: StageSection) -> list[dict[str, Any]]:
    """Parameters by part and by whether weight decay applies, each with its learning rate.

    As the original: the tower learns at the projector's rate unless given its own, biases and norms do not decay.
    """
    projector_rate = section.projector_learning_rate or section.learning_rate
    rates = {
        "language_model": section.learning_rate,
        "projector": projector_rate,
        "vision_tower": section.vision_learning_rate or projector_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "projector" if PROJECTOR in name else "vision_tower" if TOWER in name else "language_model"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": some, "lr": rates[part], "weight_decay": section.weight_decay if decays else 0.0, "name": part}
        for (part, decays), some in groups.items()
    ]
