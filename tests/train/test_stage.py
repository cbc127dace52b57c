"""What a stage trains, how fast, and what it refuses."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from bunny.core.errors import UserError
from bunny.core.types import IGNORE, ImageRef, Rejected, Sample, TokenRow, Turn
from bunny.model import attention
from bunny.text.template import Writer
from bunny.train import stage
from bunny.train.index import index_rows
from bunny.train.learn import optimiser_groups, set_learning
from bunny.train.steps import Plan, StepData
from bunny.train.trainer import StepTrainer
from tests.train.job import TEMPLATE, model_of, open_image, samples, section, state, train

FROZEN = {"language_model": "frozen"}


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def changed(parts: Path, after: dict[str, torch.Tensor]) -> set[str]:
    before = model_of(parts)[0].state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_aligning_moves_the_projector_and_nothing_else(parts: Path, tmp_path: Path) -> None:
    moved = changed(parts, state(train(parts, tmp_path, **FROZEN)))
    assert moved == {f"model.multi_modal_projector.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


def test_lora_moves_the_language_models_linears_and_the_projector(parts: Path, tmp_path: Path) -> None:
    moved = changed(parts, state(train(parts, tmp_path)))
    rest = {name for name in moved if "multi_modal_projector" not in name}
    assert rest == {name for name in rest if name.startswith("model.language_model.layers.") and "_proj." in name}
    assert len(rest) == 2 * 7  # every linear of both layers, neither embeddings nor head nor norms
    frozen = changed(parts, state(train(parts, tmp_path / "b", projector="frozen")))
    assert not any("multi_modal_projector" in name for name in frozen)


def test_full_tuning_moves_the_whole_language_model(parts: Path, tmp_path: Path) -> None:
    moved = changed(parts, state(train(parts, tmp_path, language_model="full")))
    names = {name for name in model_of(parts)[0].state_dict() if "vision_tower" not in name}
    assert moved == names


def test_an_unfrozen_tower_trains_all_that_a_picture_token_depends_on(parts: Path, tmp_path: Path) -> None:
    model, _ = model_of(parts)
    set_learning(model, section(vision_tower="train", language_model="frozen"))
    tower = {name: p for name, p in model.named_parameters() if "vision_tower" in name}
    resting = {name for name, p in tower.items() if not p.requires_grad}
    assert resting == {name for name in tower if "post_layernorm" in name}
    model.model.multi_modal_projector(model.model.tower_features(torch.randn(2, 3, 32, 32))).square().sum().backward()
    assert all(p.grad is not None for p in tower.values() if p.requires_grad)
    moved = changed(parts, state(train(parts, tmp_path, vision_tower="train", **FROZEN)))
    assert {name for name in tower if "k_proj.bias" not in name} - resting <= moved


@pytest.mark.parametrize(
    ("kind", "resting"), [("spp_v1", {"linear_0"}), ("spp_v2", {"linear_0"}), ("spp_v3", set()), ("mlp2x_gelu", set())]
)
def test_a_projectors_spare_layers_do_not_learn(parts: Path, kind: str, resting: set[str]) -> None:
    from bunny.model.projector import build_projector

    model, _ = model_of(parts)
    model.model.multi_modal_projector = build_projector(kind, 16, 32)
    set_learning(model, section(**FROZEN))
    found = {n.split(".")[0] for n, p in model.model.multi_modal_projector.named_parameters() if not p.requires_grad}
    assert found == resting


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_merged_equals_wrapped(parts: Path, variant: str) -> None:
    model, _ = model_of(parts)
    wrapped = set_learning(model, section(lora={"r": 4, "alpha": 8, "dropout": 0.0, "variant": variant})).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
    ids = torch.arange(3, 23)[None]
    with torch.inference_mode():
        before = wrapped(input_ids=ids).logits
        after = wrapped.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))


def test_nothing_to_learn_is_an_error(parts: Path) -> None:
    with pytest.raises(UserError, match="nothing learns in this stage"):
        set_learning(model_of(parts)[0], section(language_model="frozen", projector="frozen"))


def test_each_part_has_its_learning_rate_and_biases_do_not_decay(parts: Path) -> None:
    model, _ = model_of(parts)
    how = section(vision_tower="train", vision_learning_rate=5e-6, weight_decay=0.1)
    groups = optimiser_groups(set_learning(model, how), how)
    found = {(group["name"], group["weight_decay"]): group["lr"] for group in groups}
    assert found == {
        ("language_model", 0.1): 1e-2,
        ("projector", 0.1): 2e-2,
        ("projector", 0.0): 2e-2,
        ("vision_tower", 0.1): 5e-6,
        ("vision_tower", 0.0): 5e-6,
    }
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    plain = section(vision_tower="train", projector_learning_rate=None)
    assert {group["lr"] for group in optimiser_groups(model, plain)} == {1e-2}


def test_the_schedule_is_the_originals_cosine(parts: Path, tmp_path: Path) -> None:
    train(parts, tmp_path, **FROZEN, max_steps=40, warmup_ratio=0.03, learning_rate=1e-3, projector_learning_rate=None)
    found = [row["learning_rate"] for row in metrics(tmp_path)]
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_cosine_schedule_with_warmup(optimiser, math.ceil(0.03 * 40), 40)
    wanted = []
    for _ in range(40):
        wanted.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert wanted[0] == 0.0
    np.testing.assert_allclose(found[: len(wanted)], wanted, rtol=1e-6, atol=1e-12)


def test_figures_and_the_loss_curve_are_written_and_the_loss_falls(parts: Path, tmp_path: Path) -> None:
    trained = train(parts, tmp_path, max_steps=30, save_every_steps=100)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert {"loss", "grad_norm", "seconds", "samples_per_second", "tokens_per_second"} <= rows[0].keys()
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert trained.facts["steps"] == 30


def gradients(parts: Path, folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Gradients of the first step, dropout off."""
    torch.manual_seed(0)
    how = section(lora={"r": 4, "alpha": 8, "dropout": 0.0}, vision_tower="train", **changes)
    model, processor = model_of(parts)
    model.model.language_model.set_attn_implementation(attention.NAME)
    writer = Writer(TEMPLATE, processor.tokenizer, model.config.image_token_id, 16)
    rows = index_rows(samples(), writer, max_length=512, folder=folder / "index")
    data = StepData(rows, [np.arange(len(rows))], model.config, how, stage.pixels_of(processor, open_image, how))
    learning = set_learning(model, how)
    args = stage.arguments(how, folder, 0, model)
    stage.set_steps(args, how, 1)
    trainer = StepTrainer(learning, data, how, args)
    trainer.create_optimizer()
    trainer.training_step(learning, data[0])
    return {name: p.grad.clone() for name, p in learning.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"tokens_per_pass": 40}])
def test_how_a_step_is_computed_does_not_change_its_gradients(
    parts: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain, other = gradients(parts, tmp_path / "a"), gradients(parts, tmp_path / "b", **changes)
    assert plain.keys() == other.keys()
    assert any("vision_tower" in name for name in plain)
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6 * largest)


def test_half_precision_keeps_what_learns_whole(parts: Path, tmp_path: Path) -> None:
    half = train(parts, tmp_path / "half", precision="bf16", vision_tower="train")
    for name, tensor in half.model.named_parameters():
        frozen = "language_model" in name or "lm_head" in name
        assert tensor.dtype == (torch.bfloat16 if frozen and tensor.ndim > 1 else torch.float32), name
    train(parts, tmp_path / "whole", vision_tower="train")
    one, two = metrics(tmp_path / "half"), metrics(tmp_path / "whole")
    assert one[0]["loss"] != two[0]["loss"]  # it was computed in bfloat16 indeed
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=0.02)


def test_training_leaves_the_callers_randomness_and_attention_alone(parts: Path, tmp_path: Path) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    for seeding in (random.seed, np.random.seed, torch.manual_seed):
        seeding(7)
    wanted = draws()
    for seeding in (random.seed, np.random.seed, torch.manual_seed):
        seeding(7)
    trained = train(parts, tmp_path, max_steps=1)
    assert draws() == wanted
    assert trained.model.config.text_config._attn_implementation == "sdpa"
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())


def test_a_loss_that_is_no_number_names_its_samples(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step [23]: the loss is (nan|inf); samples: s") as error:
        train(parts, tmp_path, learning_rate=1e30, projector_learning_rate=1e30, warmup_ratio=0, max_grad_norm=1e30)
    assert "\n" not in str(error.value)


def sample(answer: str, words: str = "<image>\nwhat?", pictures: int = 1, name: str = "odd") -> Sample:
    turns = (Turn("user", words), Turn("assistant", answer)) if answer != "NONE" else (Turn("user", words),)
    return Sample(name, tuple(ImageRef(str(n)) for n in range(pictures)), turns, "set")


ODD = [
    (sample("  \n"), "an empty answer"),
    (sample("NONE"), "no assistant turn"),
    (sample("yes", pictures=2), "picture marks do not fit the pictures"),
    (sample("yes", "what? " * 200 + "<image>"), "longer than max_length"),
    (sample("yes", "<image>\n" + "what? " * 200), "longer than max_length"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD)
def test_a_sample_that_teaches_nothing_is_listed_with_its_reason(
    parts: Path, tmp_path: Path, odd: Sample, reason: str
) -> None:
    before = Rejected("r", "somewhere", "read before")
    model, processor = model_of(parts)
    rows = [*samples(4), odd]
    stage.train_stage(
        section(max_steps=1, max_length=100), model, processor, rows, open_image, tmp_path, 0, "tune", [before]
    )
    listed = [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()]
    assert [(item["id"], item["reason"]) for item in listed] == [("r", "read before"), ("odd", reason)]


def test_a_longer_row_is_cut_and_counted(parts: Path, tmp_path: Path) -> None:
    model, processor = model_of(parts)
    rows = [*samples(4), sample("yes " * 200)]
    done = stage.train_stage(
        section(max_steps=1, max_length=100), model, processor, rows, open_image, tmp_path, 0, "tune"
    )
    assert (done.facts["rows"], done.facts["cut"], done.facts["left_out"]) == (5, 1, 0)


def test_a_cut_row_is_the_beginning_of_the_whole_one() -> None:
    row = TokenRow("r", np.arange(10), np.where(np.arange(10) < 4, IGNORE, np.arange(10)), (ImageRef("a"),))
    short = row.first(6)
    assert (short.ids.tolist(), short.labels.tolist(), short.cut) == ([*range(6)], [IGNORE] * 4 + [4, 5], True)
    assert short.images == row.images
    assert row.first(10) is row


def test_rows_grouped_by_modality_and_length_fill_whole_steps(parts: Path, tmp_path: Path) -> None:
    words = [replace(one, images=(), turns=(Turn("user", "x?"), *one.turns[1:]), id=f"t{one.id}") for one in samples(8)]
    plans: list[list[list[str]]] = []
    keep = StepTrainer.train_on

    def spy(self: StepTrainer, checkpoint: Any) -> None:
        plans.append([self.rows_of(step) for step in range(len(self.train_dataset))])
        keep(self, checkpoint)

    model, processor = model_of(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTrainer, "train_on", spy)
        rows = [row for pair in zip(samples(8), words, strict=True) for row in pair]
        settings = section(max_steps=4, rows_per_step=4, group_by_modality_length=True)
        stage.train_stage(settings, model, processor, rows, open_image, tmp_path, 0, "tune")
    kinds = [{id.startswith("t") for id in step} for step in plans[0]]
    assert sorted(id for step in plans[0] for id in step) == sorted(row.id for row in rows)
    assert [len(kind) for kind in kinds[:2]] == [1, 1]  # the last steps of both kinds come last, together


def test_a_set_that_is_mostly_unusable_stops_the_run(parts: Path, tmp_path: Path) -> None:
    rows = [*samples(2), *(sample("", name=f"e{n}") for n in range(3))]
    with pytest.raises(UserError, match="only 2 of 5 samples can be learnt from; 3 x an empty answer"):
        train(parts, tmp_path, rows=rows)


@pytest.mark.parametrize("rows", [[], [sample("")]])
def test_a_set_without_labels_is_an_error(parts: Path, tmp_path: Path, rows: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"only 0 of \d samples can be learnt from"):
        train(parts, tmp_path, rows=rows)


def test_a_batch_without_labels_stops_the_model(parts: Path) -> None:
    model, _ = model_of(parts)
    one = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="a batch without labels"):
        model(
            packed={
                "ids": one,
                "targets": one + IGNORE,
                "weights": one.float(),
                "positions": one,
                "features_at": one - 1,
                "segments": torch.tensor([[0, 2, 0, 0]]),
                "pixel_values": None,
            }
        )


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "most", "steps"),
    [(10, 4, 1, None, 3), (10, 4, 2, None, 6), (10, 4, 0.5, None, 2), (10, 4, 9, 5, 5), (3, 8, 1, None, 1)],
)
def test_the_plan_goes_through_the_rows_in_order(
    rows: int, size: int, epochs: float, most: int | None, steps: int
) -> None:
    plan = Plan.of(rows, section(rows_per_step=size, epochs=epochs, max_steps=most))
    assert len(plan) == steps
    seen = [int(row) for step in plan for row in step]
    assert seen == [n % rows for n in range(len(seen))]
    assert all(len(step) <= size for step in plan)


def test_no_warning_is_silenced_when_adapters_are_added(parts: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_learning(model_of(parts)[0], section())
