"""One training stage, as a recipe card: rows, what learns, steps, train, write.

In: a model with its processor, samples in the order they are to be learnt, the stage's section. Out: the model
trained, and in the folder `metrics.jsonl`, `curves.png`, `left_out.jsonl`, checkpoints while it runs. A killed run goes
on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from bunny.core.log import log
from bunny.core.recipe import StageSection
from bunny.core.types import ImageRef, Rejected, Sample
from bunny.model import attention
from bunny.text.template import Template, Writer
from bunny.train.checkpoints import is_sharded, last_checkpoint, learning_state, put_learning
from bunny.train.cost import gemm_peak
from bunny.train.features import cache_features
from bunny.train.grouping import by_modality_and_length
from bunny.train.index import Index, Supply, index_rows
from bunny.train.learn import set_learning
from bunny.train.parallel import arguments_for
from bunny.train.rows import write_left_out
from bunny.train.shared_features import SharedFeatures
from bunny.train.steps import Pixels, Plan, StepData
from bunny.train.trainer import StepTrainer
from bunny.train.watchers import Lent, check_watching, watched


@dataclass(frozen=True, slots=True)
class Trained:
    """The trained model (LoRA merged in; None on all ranks but the first) and the facts for the manifest."""

    model: Any
    facts: dict[str, Any]


def train_stage(
    section: StageSection,
    model: Any,
    processor: Any,
    samples: Sequence[Sample] | Supply,
    open_image: Any,
    folder: Path,
    seed: int,
    name: str,
    rejected: Sequence[Rejected] = (),
    fresh: Callable[[], Any] | None = None,
    lent: Lent | None = None,
) -> Trained:
    """Train `model` on `samples`. open_image: ImageRef -> PIL picture. Raises UserError if nothing can be learnt.

    fresh: makes the model anew, as it was before training. Weights that are sharded over ranks or quantised cannot be
    written as they are: what was learnt is put into a fresh model then. Default: a copy is not needed.
    lent: how to answer and to score, for previews and evaluations while it trains.
    """
    check_watching(section)
    args = arguments(section, folder, seed, model)
    template = Template.named(section.template) if section.template else Template.model_validate(processor.template)
    writer = Writer(template, processor.tokenizer, model.config.image_token_id, model.config.image_seq_length)
    rows = shared_rows(section, samples, writer, rejected, folder, args)
    plan = planned(rows, section, seed)
    log.info("%s: %d rows, %d left out, %d steps", name, len(rows), len(rows.left_out), len(plan))
    set_steps(args, section, len(plan))

    before = model.config.text_config._attn_implementation
    model.model.language_model.set_attn_implementation(attention.NAME)
    with seeded(seed):
        learning = set_learning(model, section, largest_pass(rows, plan, section))
        pictures = seen_pictures(section, model, processor, open_image, rows, folder, args)
        ranks = {"rank": args.process_index, "ranks": args.world_size}
        work = picture_tokens(model, section)
        data = StepData(rows, plan, model.config, section, pictures, picture_tokens=work, **ranks)
        trainer = StepTrainer(learning, data, section, args)
        asked = copy.copy(processor)
        asked.template = template.model_dump()  # questions are written as the stage's rows are
        started = time.monotonic()
        with watched(
            trainer,
            section,
            folder,
            name,
            processor=asked,
            attention=before,
            samples=rows.shown,
            lent=lent,
            work=lambda step: trainer.step_flops,
            peak=gemm_peak(section.precision, seconds=0.2),
        ):
            trainer.train_on(last_checkpoint(folder))
    facts = {
        "steps": len(plan),
        "rows": len(rows),
        "cut": int(rows.cut.sum()),
        "left_out": len(rows.left_out),
        "train_seconds": time.monotonic() - started,
    }
    return Trained(finished(trainer, section, seed, before, fresh), facts)


def planned(rows: Index, section: StageSection, seed: int) -> Plan:
    """Which rows every step has: in the set's order, or grouped by modality and length."""
    order = None
    if section.group_by_modality_length:
        with seeded(seed):
            order = np.asarray(by_modality_and_length(rows.words.tolist(), 1, section.rows_per_step))
    return Plan.of(len(rows), section, order)


def shared_rows(
    section: StageSection,
    samples: Sequence[Sample] | Supply,
    writer: Writer,
    rejected: Sequence[Rejected],
    folder: Path,
    args: transformers.TrainingArguments,
) -> Index:
    """The stage's rows: the first process makes their index, all map the same files."""
    with args.main_process_first(local=False, desc="index of rows"):
        if args.process_index:
            return Index.open(folder / "index")
        rows = index_rows(
            samples,
            writer,
            max_length=section.max_length,
            folder=folder / "index",
            rejected=rejected,
            workers=section.workers,
        )
        write_left_out(folder / "left_out.jsonl", rows.left_out)
        return rows


def finished(
    trainer: StepTrainer, section: StageSection, seed: int, attention_before: str, fresh: Callable[[], Any] | None
) -> Any:
    """The trained model in one piece, LoRA merged in, as it was but for what it learnt; None on all ranks but one."""
    learning = trainer.model
    if is_sharded(learning) or section.lora.quantise:
        state = learning_state(learning)
        if not trainer.args.should_save:
            return None
        if fresh is None:
            raise ValueError("sharded or quantised training needs `fresh`")
        with seeded(seed):
            learning = set_learning(fresh(), section)
        put_learning(learning, state)
    elif not trainer.args.should_save:
        return None
    learning.eval()
    merged = learning.merge_and_unload() if hasattr(learning, "merge_and_unload") else learning
    merged.model.language_model.set_attn_implementation(attention_before)
    merged.requires_grad_(False)
    return merged


def largest_pass(rows: Index, plan: Plan, section: StageSection) -> int:
    """Most tokens that a pass can have: those of the largest step, if it is not cut into passes."""
    tokens = np.asarray(rows.tokens, dtype=np.int64)
    longest = max(int(tokens[plan[step]].sum()) for step in range(min(len(plan), plan.per_epoch)))
    return min(section.tokens_per_pass, longest)


def picture_tokens(model: Any, section: StageSection) -> float:
    """Work of encoding a picture, in language-model tokens: weights times positions, thrice where gradients flow."""
    inner, vision = model.model, model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    views = sum((scale // model.config.s2_scales[0]) ** 2 for scale in model.config.s2_scales) or 1
    tower = sum(p.numel() for p in inner.vision_tower.parameters()) * patches * views
    language = sum(p.numel() for p in inner.language_model.parameters())
    passes = {"frozen": 2, "lora": 2, "full": 3}[section.language_model]
    return float(tower * (3 if section.vision_tower == "train" else 1) / (language * passes))


def seen_pictures(
    section: StageSection,
    model: Any,
    processor: Any,
    open_image: Any,
    rows: Index,
    folder: Path,
    args: transformers.TrainingArguments,
) -> Pixels:
    """Pictures to pixels; with `feature_cache` to the frozen tower's features, which are computed here and now, or, in
    a folder that runs share, when they are first asked for."""
    pixels = pixels_of(processor, open_image, section)
    if not section.feature_cache:
        return pixels
    if isinstance(section.feature_cache, str):
        preparation = [processor.image_processor.to_dict(), processor.image_aspect]
        bf16, shared = section.precision == "bf16", Path(section.feature_cache)
        return SharedFeatures(model, pixels, preparation, shared, bf16=bf16, device=args.device)
    pictures = [rows.picture(number) for number in range(rows.pictures)]
    features = cache_features(
        model,
        pictures,
        pixels,
        folder / "features",
        bf16=section.precision == "bf16",
        device=args.device,
        rank=args.process_index,
        ranks=args.world_size,
    )
    if args.world_size > 1:
        torch.distributed.barrier()
    return features


def pixels_of(processor: Any, open_image: Any, section: StageSection) -> Pixels:
    """Pictures to pixel_values, prepared as this stage wants them (padded or squashed)."""
    if section.image_aspect is not None:
        processor.image_aspect = section.image_aspect

    def pixels(refs: Sequence[ImageRef]) -> torch.Tensor:
        return processor.pixels([open_image(ref) for ref in refs])  # type: ignore[no-any-return]

    return pixels


def arguments(section: StageSection, folder: Path, seed: int, model: Any) -> transformers.TrainingArguments:
    """The section in Trainer's words: one "epoch" is the whole plan, one batch is one optimiser step."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        lr_scheduler_type="cosine",
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
        **arguments_for(section, model),
    )


def set_steps(args: transformers.TrainingArguments, section: StageSection, steps: int) -> None:
    """Put the number of steps in, once the rows are counted: the whole schedule follows from it."""
    args.max_steps = steps
    args.warmup_steps = math.ceil(section.warmup_ratio * steps)


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
