"""Recomputed activations change no gradient; `auto` recomputes only as much as memory asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bunny.core.recipe import StageSection
from bunny.train import checkpointing
from bunny.train.checkpointing import Choice, apply, choose
from bunny.train.cost import bytes_of_stage
from bunny.train.learn import set_learning
from bunny.train.shape import shape_of
from tests.train.padded import FAMILIES, packed_loss, tiny


def section(**changes: Any) -> StageSection:
    lora = {"r": 4, "alpha": 8, "dropout": 0.3}
    return StageSection(
        **{"data": [], "language_model": "lora", "lora": lora, "learning_rate": 1e-3, "gradient_checkpointing": False}
        | changes
    )


def gradients(family: str, choice: Choice, **changes: Any) -> dict[str, torch.Tensor]:
    """Gradients of one packed step; LoRA's second halves are not zero, and dropout is drawn from one seed."""
    model = tiny(FAMILIES[family])
    learning = set_learning(model, section(**changes)).train()
    learning.double()
    torch.manual_seed(1)
    for name, parameter in learning.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    apply(learning, choice)
    torch.manual_seed(2)
    packed_loss(
        learning.get_base_model() if changes.get("language_model") is None else learning, "tokens", 40, True
    ).backward()
    return {name: p.grad for name, p in learning.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", ["selective", "full"])
@pytest.mark.parametrize(
    "changes", [{}, {"language_model": "full", "vision_tower": "train"}, {"language_model": "frozen"}], ids=str
)
def test_gradients_equal_those_without(family: str, choice: Choice, changes: dict[str, Any]) -> None:
    wanted, found = gradients(family, "off", **changes), gradients(family, choice, **changes)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        largest = max(wanted[name].norm().item(), 1e-6)
        assert (gradient - wanted[name]).norm().item() <= 1e-12 * largest, name


def test_dropout_is_at_work_in_the_comparison() -> None:
    one, other = gradients("llama", "off"), gradients("llama", "off", lora={"r": 4, "alpha": 8, "dropout": 0.0})
    assert any((one[name] - other[name]).abs().max() > 1e-6 for name in one)


@pytest.mark.parametrize(("asked", "choice"), [(True, "full"), (False, "off"), ("selective", "selective")])
def test_a_plain_wish_is_followed(asked: Any, choice: Choice) -> None:
    assert choose(section(gradient_checkpointing=asked), None, 4096, 0.0) == choice


def test_auto_recomputes_as_much_as_memory_asks_for() -> None:
    model, auto = tiny(FAMILIES["llama"]), section(gradient_checkpointing="auto")
    shape = shape_of(model.config)

    def needed(choice: str) -> float:
        found = bytes_of_stage(shape, auto, 4096, checkpointing=choice, gpu=torch.accelerator.is_available())
        return (found.total - found.weights) / checkpointing.MARGIN

    assert needed("off") > needed("selective") > needed("full")
    assert choose(auto, model, 4096, needed("off") + 1) == "off"
    assert choose(auto, model, 4096, needed("off") - 1) == "selective"
    assert choose(auto, model, 4096, needed("selective") - 1) == "full"
    assert choose(auto, model, 4096, 0.0) == "full"
    assert choose(auto, model, 4096) == "off"  # this machine has room for a tiny model


def test_the_frozen_tower_is_left_alone_and_a_learning_one_takes_part() -> None:
    def recomputing(**changes: Any) -> tuple[bool, bool]:
        learning = set_learning(tiny(FAMILIES["llama"]), section(language_model="full", **changes))
        apply(learning, "full")
        inner = learning.model
        return inner.language_model.is_activation_checkpointing, inner.vision_tower.is_activation_checkpointing

    assert recomputing() == (True, False)
    assert recomputing(vision_tower="train") == (True, True)


def test_off_takes_it_back() -> None:
    learning = set_learning(tiny(FAMILIES["llama"]), section(language_model="full"))
    apply(learning, "full")
    apply(learning, "off")
    assert not learning.is_activation_checkpointing
