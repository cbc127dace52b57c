"""The packed, prefix-shared step has the gradients of plain padded rows, whatever learns and however it is packed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bunny.core.recipe import StageSection
from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.model import attention
from bunny.text.pack import deal, pack
from bunny.train.stage import arguments
from bunny.train.steps import Plan, StepData
from bunny.train.trainer import StepTrainer
from tests.train.padded import (
    FAMILIES,
    IMAGE,
    ROWS,
    TOKENS,
    batch_loss,
    furthest,
    gradients,
    learning,
    packed_loss,
    padded_loss,
    shown,
    tiny,
)

EXACT = 1e-10
NORMALISED = ("tokens", "rows", "micro_batches")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["lora", "full"])
@pytest.mark.parametrize("scales", [(), (32, 64)], ids=["one scale", "S2"])
def test_gradients_equal_those_of_padded_rows(family: str, what: str, scales: tuple[int, ...]) -> None:
    """Rows without, with one and with two pictures; projector and tower learn too."""
    side = max(scales, default=32)
    model = learning(tiny(FAMILIES[family], scales), what)
    wanted = padded_loss(model, "tokens", side=side)
    gradient = gradients(model, wanted)
    found = packed_loss(model, "tokens", 90, True, side=side)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert furthest(gradients(model, found), gradient) <= EXACT
    learnt = "lora_B" if what == "lora" else "lm_head"
    for part in ("multi_modal_projector.0.weight", "vision_tower", learnt):
        assert max(float(g.norm()) for name, g in gradient.items() if part in name) > 1e-6


@pytest.mark.parametrize("normalise", NORMALISED)
@pytest.mark.parametrize(("per_pass", "share"), [(10_000, True), (90, True), (1, True), (10_000, False), (1, False)])
def test_packing_sharing_and_accumulation_change_nothing(normalise: str, per_pass: int, share: bool) -> None:
    """`micro_batches` is the original's mean over padded micro batches of the mean over their tokens."""
    model = learning(tiny(FAMILIES["llama"]), "full")
    wanted = gradients(model, padded_loss(model, normalise))
    assert furthest(gradients(model, packed_loss(model, normalise, per_pass, share)), wanted) <= EXACT


@pytest.mark.parametrize("normalise", NORMALISED)
@pytest.mark.parametrize("ranks", [1, 2, 3, 11])
def test_the_engines_own_steps_add_up_over_ranks(normalise: str, ranks: int) -> None:
    """Plan, weights and passes are StepData's; more ranks than rows leave some with passes that teach nothing."""
    model = learning(tiny(FAMILIES["phi3"]), "lora")
    wanted = gradients(model, padded_loss(model, normalise))
    model.get_base_model().model.language_model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    total = torch.zeros((), dtype=torch.float64)
    for rank in range(ranks):
        whole, passes = _step(model.config, _section(normalise), rank, ranks)[0]
        total = total + torch.stack([batch_loss(model, batch) for batch, _ in passes]).sum() / whole
    assert furthest(gradients(model, total), wanted) <= EXACT


def test_the_trainers_step_is_the_padded_step(tmp_path: Path) -> None:
    model = learning(tiny(FAMILIES["qwen2"]), "lora")
    loss = padded_loss(model, "tokens")
    wanted = gradients(model, loss)
    model.get_base_model().model.language_model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    model.zero_grad()
    section = _section("tokens")
    data = _step(model.config, section, 0, 1)
    trainer = StepTrainer(model, data, section, arguments(section, tmp_path, 0, model))
    assert trainer.training_step(model, data[0]).item() == pytest.approx(loss.item(), rel=1e-6)  # told in float32
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert furthest(found, wanted) <= EXACT


def _section(normalise: str) -> StageSection:
    return StageSection(
        data=[],
        language_model="lora",
        learning_rate=1e-3,
        rows_per_step=len(ROWS),
        tokens_per_pass=90,
        normalise=normalise,  # type: ignore[arg-type]
        micro_batch_rows=3,
        gradient_checkpointing=False,
    )


def _step(config: object, section: StageSection, rank: int, ranks: int) -> StepData:
    def pixels(refs: object) -> torch.Tensor:
        some = shown(refs)  # type: ignore[arg-type]
        assert some is not None
        return some

    return StepData(ROWS, Plan.of(len(ROWS), section), config, section, pixels, rank, ranks)


@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("changed", range(len(ROWS)))
def test_changing_a_sample_leaves_every_other_samples_gradient_alone(family: str, changed: int) -> None:
    model = tiny(FAMILIES[family])
    model.model.language_model.set_attn_implementation(attention.NAME)
    others = [list(ROWS), list(ROWS)]
    text = np.where(ROWS[changed].ids == IMAGE, IMAGE, 63 - ROWS[changed].ids)  # every word another one
    labels = np.where(ROWS[changed].labels == IGNORE, IGNORE, text)
    others[1][changed] = replace(ROWS[changed], ids=text, labels=labels)
    for number in range(len(ROWS)):
        if number == changed:
            continue
        alone = [float(place == number) for place in range(len(ROWS))]
        first, second = (
            gradients(model, batch_loss(model, pack(rows, IMAGE, TOKENS, 10_000, alone)[0])) for rows in others
        )
        assert furthest(second, first) <= EXACT


def test_sharing_computes_each_picture_once_and_fewer_tokens() -> None:
    (shared,) = pack(ROWS, IMAGE, TOKENS, 10_000)
    (alone,) = pack(ROWS, IMAGE, TOKENS, 10_000, share=False)
    assert len(shared.images) == len(alone.images) == 2
    assert len(shared.ids) < len(alone.ids) - 3 * TOKENS
    assert shared.weight == alone.weight == sum(item.learns for item in ROWS)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("per_pass", [1, 60, 10_000])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_every_label_is_learnt_once(share: bool, per_pass: int, ranks: int) -> None:
    weights = [1.0 / (number + 2) for number in range(len(ROWS))]
    wanted = Counter(
        (int(label), weight)
        for item, weight in zip(ROWS, weights, strict=True)
        for label in item.labels[1:]
        if label != IGNORE
    )
    dealt = deal(ROWS, IMAGE, TOKENS, per_pass, weights, share, ranks)
    found = Counter(
        (int(target), float(weight))
        for batches in dealt
        for batch in batches
        for target, weight in zip(batch.targets, batch.weights, strict=True)
        if weight
    )
    assert found == wanted


def test_labels_are_never_zero_in_silence() -> None:
    mute = TokenRow("mute", np.array([7, 8, 9]), np.full(3, IGNORE))
    with pytest.raises(ValueError, match="mute: a row without labels"):
        pack([*ROWS, mute], IMAGE, TOKENS, 10_000)
    model = tiny(FAMILIES["llama"])
    (batch,) = pack(ROWS, IMAGE, TOKENS, 10_000)
    with pytest.raises(ValueError, match="a batch without labels"):
        batch_loss(model, replace(batch, targets=np.full_like(batch.targets, IGNORE)))


def test_a_row_with_too_few_picture_tokens_is_refused() -> None:
    short = TokenRow("short", np.array([7, IMAGE, 9]), np.array([IGNORE, IGNORE, 9]), (ImageRef("a"),))
    with pytest.raises(ValueError, match="short: 1 picture tokens for 1 pictures of 16"):
        pack([short], IMAGE, TOKENS, 10_000)
