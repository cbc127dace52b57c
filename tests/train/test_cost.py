"""The arithmetic of cost against what torch counts and allocates, and against the published shapes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
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


def sizes(name: str, tower: str = "google/siglip-so400m-patch14-384", **more: Any) -> Shape:
    known = zoo.backbones()
    text, vision = known.language_models[name], known.vision_towers[tower]
    return shape_from(text.config, vision.config, parameters=(text.parameters, vision.parameters), **more)


def test_the_sizes_of_the_zoo_are_those_that_were_counted() -> None:
    for name, listed in zoo.backbones().language_models.items():
        shape = shape_from(listed.config, zoo.backbones().vision_towers["facebook/dinov2-large"].config)
        assert shape.text.adapter_sides == listed.adapter_sides, name
        assert shape.language_model_parameters == pytest.approx(listed.parameters, rel=1e-3), name


def test_a_tower_without_its_last_block_is_recognised_by_its_weights() -> None:
    siglip = sizes("microsoft/phi-2").vision
    dinov2 = sizes("microsoft/phi-2", "facebook/dinov2-large").vision
    assert siglip and siglip.layers == 26
    assert dinov2 and dinov2.layers == 24


def step_of(rows: Sequence[tuple[int | None, int]], learnt: float) -> StepTokens:
    """(picture, tokens of text) of each row, packed: one front for all rows about a picture."""
    tokens = pairs = 0
    fronts = {picture for picture, _ in rows if picture is not None}
    for picture, text in rows:
        before = 0 if picture is None else FRONT
        tokens, pairs = tokens + text, pairs + text * (text + 1) // 2 + text * before
    tokens, pairs = tokens + FRONT * len(fronts), pairs + FRONT * (FRONT + 1) // 2 * len(fronts)
    return StepTokens(tokens, pairs, int(learnt * sum(text for _, text in rows)), len(fronts))


def rows_like_the_published(count: int = 8000) -> list[tuple[int | None, int]]:
    """Rows with the lengths that the figures below were computed for: nine of ten show a picture, 1.8 rows each."""
    rng = random.Random(0)
    out: list[tuple[int | None, int]] = []
    shown = int(0.9 * count)
    for row in range(count):
        text = max(8, min(1279, int(rng.lognormvariate(np.log(150) - 0.405, 0.9))))
        own = row < int(shown / 1.8)
        out.append((row if own else rng.randrange(int(shown / 1.8)), text) if row < shown else (None, 2 * text + 40))
    return out


@pytest.mark.parametrize(
    ("model", "changes", "scales", "published"),
    [
        ("microsoft/phi-2", {"lora": {"r": 128}}, (), 6.75),
        ("microsoft/Phi-3-mini-4k-instruct", {"lora": {"r": 128}}, (), 9.4),
        ("meta-llama/Meta-Llama-3-8B-Instruct", {"lora": {"r": 256}}, (384, 768, 1152), 22.5),
        ("microsoft/phi-2", {"language_model": "full"}, (), 8.87),
    ],
)
def test_real_shapes_cost_what_was_computed_for_them(
    model: str, changes: dict[str, Any], scales: tuple[int, ...], published: float
) -> None:
    section = StageSection(**{"data": [], "language_model": "lora", "learning_rate": 1e-4, **changes})
    rows = rows_like_the_published()
    cost = flops_of_step(sizes(model, scales=scales), section, step_of(rows, 0.45))
    assert cost.total / len(rows) / 1e12 == pytest.approx(published, rel=0.1)


def test_the_originals_step_costs_three_times_as_much() -> None:
    """Padded to the longest of eight, all recomputed, logits everywhere, the tower for every row: 22.0 TFLOP a row."""
    section = StageSection(data=[], language_model="lora", learning_rate=1e-4, lora={"r": 128})
    rows = rows_like_the_published()
    random.Random(1).shuffle(rows)
    tokens = pairs = 0
    for start in range(0, len(rows), 8):
        longest = max(text + (0 if picture is None else FRONT) for picture, text in rows[start : start + 8])
        tokens, pairs = tokens + 8 * longest, pairs + 8 * longest * (longest + 1) // 2
    cost = flops_of_step(sizes("microsoft/phi-2"), section, StepTokens(tokens, pairs, tokens, len(rows)), "full")
    assert cost.total / len(rows) / 1e12 == pytest.approx(22.0, rel=0.1)
    assert 0.2 < cost.recomputed / cost.total < 0.35


def test_counts_of_a_packed_step() -> None:
    def row(name: str, own: int) -> TokenRow:
        ids = np.array([1, 2, 3, 4, *range(10, 10 + own)])
        labels = np.where(np.arange(4 + own) >= 6, ids, IGNORE)
        return TokenRow(name, ids, labels, ())

    first, second = row("a", 4), row("b", 6)
    step = StepTokens.of(pack([first, second], 999, 4, 1000))
    assert (step.tokens, step.pairs, step.labels, step.pictures) == (7 + 9, 7 * 8 // 2 + 9 * 10 // 2, 2 + 4, 0)
    shared = [TokenRow(each.id, each.ids, each.labels, (ImageRef("p"),)) for each in (first, second)]
    for each in shared:
        each.ids[1:3] = 999
    step = StepTokens.of(pack(shared, 999, 2, 1000))
    assert step.pictures == 1
    assert step.tokens < 16


@pytest.mark.parametrize(
    ("family", "way", "choice", "precision"),
    [
        *itertools.product(["llama"], ["lora", "full"], ["off", "selective", "full"], ["fp32"]),
        ("llama", "frozen", "off", "fp32"),
        ("phi", "full", "off", "fp32"),
        ("phi", "lora", "full", "fp32"),
        ("qwen3", "lora", "off", "fp32"),
        ("llama", "lora", "off", "bf16"),
        ("llama", "full", "full", "bf16"),
    ],
)
@pytest.mark.parametrize(
    ("width", "layers", "tokens"), [(128, 3, 768), pytest.param(256, 4, 2048, marks=pytest.mark.slow)]
)
def test_memory_is_estimated_within_a_quarter(
    family: str, way: str, choice: str, precision: str, width: int, layers: int, tokens: int
) -> None:
    guess, seen = measured.estimated_and_measured(family, way, choice, width, layers, tokens, precision=precision)
    assert guess == pytest.approx(seen, rel=0.25)


def test_a_smaller_share_of_the_weights_lies_on_each_of_several_devices() -> None:
    shape = sizes("microsoft/phi-2")
    section = StageSection(data=[], language_model="full", learning_rate=1e-4)
    one = bytes_of_stage(shape, section, 4096)
    copies = bytes_of_stage(shape, section, 4096, ranks=8)
    shards = bytes_of_stage(shape, section, 4096, ranks=8, sharded=True)
    assert copies.weights == one.weights
    assert copies.gathered > one.gathered
    assert shards.moments == one.moments / 8
    assert shards.total < one.total < copies.total


def test_this_machines_peak_is_measured() -> None:
    assert gemm_peak("fp32", seconds=0.05) > 1e8
