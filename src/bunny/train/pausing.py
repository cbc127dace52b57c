"""A model in training answers in between, and trains on as if nothing had happened.

In: a model as it trains (wrapped by peft or not, sharded or not, with packed attention). Out: the Bunny inside, ready
for inference, and afterwards every module's mode, the attention and all random states as they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextmanager
def at_rest(model: nn.Module, attention: str) -> Iterator[Any]:
    """The Bunny inside `model`, in evaluation mode, with the attention it answers with.

    Sharded weights are gathered for as long as this lasts: all ranks have to come here, and all have to answer alike,
    since every forward pass of such a model is one of all ranks.
    """
    wrapped: Any = model
    bunny = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    language_model = bunny.model.language_model
    trained_with = language_model.config._attn_implementation
    modes = [(module, module.training) for module in model.modules()]
    with _same_randomness(), _gathered(model):
        try:
            model.eval()
            language_model.set_attn_implementation(attention)
            yield bunny
        finally:
            language_model.set_attn_implementation(trained_with)
            for module, mode in modes:
                module.training = mode


@contextmanager
def _same_randomness() -> Iterator[None]:
    """All random states afterwards as before: Python's, numpy's, torch's, the accelerator's."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    device = torch.get_device_module() if torch.accelerator.is_available() else None
    on_device = device.get_rng_state() if device else None
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])
        if device:
            device.set_rng_state(on_device)


@contextmanager
def _gathered(model: nn.Module) -> Iterator[None]:
    """FSDP2's pieces put together for as long as this lasts."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for number, part in enumerate(parts):
            part.reshard()
            part.set_reshard_after_forward(number > 0, recurse=False)  # the outermost stays whole until backward
