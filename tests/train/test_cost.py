"""The arithmetic of cost against what torch counts and allocates, and against the published shapes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bunny.core.recipe import StageSection
from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.pipeline import zoo
from bunny.text.pack import pack
from bunny.train.cost import StepTokens, bytes_of_stage, flops_of_step, gemm_peak
from bunny.train.shape import Shape, shape_from, shape_of
from tests.train import measured

TOKENS = 512
FRONT = 729 + 40  # a picture's tokens and the system's words


@pytest.mark.parametrize("choice", ["off", "selective", "full"])
@pytest.mark.parametrize("changes", [{}, {"vision_tower": "train"}], ids=["tower frozen", "tower learns"])
@pytest.mark.parametrize(("family", "way"), itertools.product(measured.FAMILIES, ("frozen", "lora", "full")))
def test_operations_are_those_that_torch_counts(family: str, way: str, changes: dict[str, Any], choice: str) -> None:
    if way == "frozen" and changes:
        pytest.skip("no recipe does this")
    model, section = measured.model_of(family, 128, 3), measured.section_of(way, **changes)
    step = measured.stepper(model, section, choice, TOKENS)
    exact = choice != "selective"  # its policy knows fused kernels, which torch does not count on a CPU
    pictures, pairs = TOKENS // 256, TOKENS // 256 * 256**2 if exact else 0  # plain kernels compute all pairs
    if not exact and changes:
        pytest.skip("the tower's attention would not be counted either")
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH if exact else SDPBackend.FLASH_ATTENTION):
        step()
    shape = shape_of(model.config)
    one = flops_of_step(shape, section, StepTokens(TOKENS, pairs, TOKENS // 2, pictures), choice)
    uncounted = 0.0
    if not exact and shape.vision:
        uncounted = pictures * 4 * shape.patches**2 * shape.vision.queries * shape.vision.layers
    assert 2 * (one.total - uncounted) == pytest.approx(counter.get_total_flops(), rel=0.03)
