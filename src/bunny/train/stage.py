"""One training stage, as a recipe card: rows, what learns, steps, train, write.

In: a model with its processor, samples in the order they are to be learnt, the stage's section. Out: the model
trained, and in the folder `metrics.jsonl`, `loss.png`, `left_out.jsonl`, checkpoints while it runs. A killed run goes
on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from bunny.core.log import log
from bunny.core.recipe import StageSection
from bunny.core.types import ImageRef, Rejected, Sample, TokenRow
from bunny.model import attention
from bunny.text.template import Template, Writer
from bunny.train.grouping import by_modality_and_length, signed_words
from bunny.train.learn import set_learning
from bunny.train.meter import StepMeter, draw_loss
from bunny.train.rows import tokenise, write_left_out
from bunny.train.trainer import Pixels, StepData, StepTrainer, last_checkpoint


@dataclass(frozen=True, slots=True)
class Trained:
    """The trained model (LoRA merged in) and the facts for the manifest."""

    model: Any
    facts: dict[str, Any]


def train_stage(
    section: StageSection,
    model: Any,
    processor: Any,
    samples: list[Sample],
    open_image: Any,
    folder: Path,
    seed: int,
    name: str,
    rejected: Sequence[Rejected] = (),
) -> Trained:
    """Train `model` on `samples`. open_image: ImageRef -> PIL picture. Raises UserError if nothing can be learnt."""
    template = Template.named(section.template) if section.template else Template.model_validate(processor.template)
    writer = Writer(template, processor.tokenizer, model.config.image_token_id, model.config.image_seq_length)
    if section.group_by_modality_length:
        with seeded(seed):
            order = by_modality_and_length(signed_words(samples), 1, section.rows_per_step)
        samples = [samples[place] for place in order]
    rows, left_out = tokenise(samples, writer, section.max_length)
    left_out = [*rejected, *left_out]
    write_left_out(folder / "left_out.jsonl", left_out)
    plan = plan_steps(rows, section)
    log.info("%s: %d samples, %d left out, %d steps", name, len(samples), len(left_out), len(plan))

    before = model.config.text_config._attn_implementation
    model.model.language_model.set_attn_implementation(attention.NAME)
    with seeded(seed):
        learning = set_learning(model, section)
        data = StepData(plan, model.config, section, pixels_of(processor, open_image, section))
        trainer = StepTrainer(learning, data, section, arguments(section, folder, len(plan), seed))
        meter = StepMeter(folder, name, len(plan), trainer)
        trainer.remove_callback(transformers.PrinterCallback)  # the meter tells the same, in one line
        trainer.add_callback(meter)
        started = time.monotonic()
        with closing(meter):
            trainer.train_on(last_checkpoint(folder))
    seconds = time.monotonic() - started
    draw_loss(meter.metrics.read(), folder / "loss.png", name)
    learning.eval()
    merged = learning.merge_and_unload() if hasattr(learning, "merge_and_unload") else learning
    merged.model.language_model.set_attn_implementation(before)
    merged.requires_grad_(False)
    facts = {
        "steps": len(plan),
        "rows": len(rows),
        "cut": sum(row.cut for row in rows),
        "left_out": len(left_out),
        "train_seconds": seconds,
    }
    return Trained(merged, facts)


def plan_steps(rows: Sequence[TokenRow], section: StageSection) -> list[list[TokenRow]]:
    """The rows of every optimiser step: the set in its given order, again for each epoch, cut at `max_steps`."""
    per_epoch = math.ceil(len(rows) / section.rows_per_step)
    total = max(1, round(per_epoch * section.epochs))
    if section.max_steps is not None:
        total = min(total, section.max_steps)
    size = section.rows_per_step
    return [list(rows[k % per_epoch * size : (k % per_epoch + 1) * size]) for k in range(total)]


def pixels_of(processor: Any, open_image: Any, section: StageSection) -> Pixels:
    """Pictures to pixel_values, prepared as this stage wants them (padded or squashed)."""
    if section.image_aspect is not None:
        processor.image_aspect = section.image_aspect

    def pixels(refs: Sequence[ImageRef]) -> torch.Tensor:
        return processor.pixels([open_image(ref) for ref in refs])  # type: ignore[no-any-return]

    return pixels


def arguments(section: StageSection, folder: Path, steps: int, seed: int) -> transformers.TrainingArguments:
    """The section in Trainer's words: one "epoch" is the whole plan, one batch is one optimiser step."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        max_steps=steps,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(section.warmup_ratio * steps),
        max_grad_norm=section.max_grad_norm,
        bf16=section.precision == "bf16",
        use_cpu=not torch.accelerator.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=section.save_every_steps,
        save_total_limit=section.keep_checkpoints,
        ignore_data_skip=True,
        remove_unused_columns=False,
        dataloader_num_workers=section.workers,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )


class seeded:
    """Torch's randomness from the recipe's seed (LoRA initialisation, dropout); all states restored afterwards."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        random.setstate(self.states[0])  # Trainer seeds all three
        np.random.set_state(self.states[1])
        torch.random.set_rng_state(self.states[2])


def projector_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The projector's tensors, keys as in the projector module: what an aligned-projector file holds."""
    module = model.get_submodule("model.multi_modal_projector")
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
