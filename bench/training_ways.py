"""The ways that bench/training.py measures, each run in a process of its own: rows, models, steps.

In: a `Work` (shape, stage, rows of every step) and a `Pulse`, which every way calls after each optimiser step. Out: the
loss of every step. All ways start from the same random weights and learn from the same rows with the same optimiser
and schedule, so their losses have to agree step by step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from training_pulse import Pulse
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PhiConfig, SiglipVisionConfig

import bunny.model
from bunny.core.recipe import LoraSection, StageSection
from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.model import attention
from bunny.model.config import BunnyConfig
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.train.features import cache_features
from bunny.train.learn import LANGUAGE_MODEL, PROJECTOR, optimiser_groups, set_learning
from bunny.train.stage import arguments, set_steps
from bunny.train.steps import Plan, StepData
from bunny.train.trainer import StepTrainer

IMAGE = 5
MICRO_BATCH = 8  # rows of a device's batch in the original's published command lines
LLAMA = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. The last block of `vision` is the one that the original computes and never reads."""

    vision: dict[str, int]
    text: dict[str, Any]
    lora_r: int
    text_type: type = LlamaConfig

    @property
    def image_tokens(self) -> int:
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2


def _siglip(width: int, inner: int, layers: int, heads: int, side: int, patch: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
    }


PHI_2 = {
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.4,
}
SHAPES = {
    # tower : language model : head as in Bunny-v1.0-3B (SigLIP-so400m, phi-2), scaled down
    "scaled": Shape(_siglip(384, 1536, 6, 6, 224, 16), LLAMA | {"vocab_size": 4096, "num_hidden_layers": 15}, 32),
    # SigLIP-B/16-224 and a language model of 135M
    "small": Shape(_siglip(768, 3072, 12, 12, 224, 16), LLAMA | {"vocab_size": 49152, "num_hidden_layers": 30}, 32),
    "real": Shape(_siglip(1152, 4304, 27, 16, 384, 14), PHI_2, 128, PhiConfig),
    "tiny": Shape(
        _siglip(32, 64, 3, 2, 56, 14),
        LLAMA | {"vocab_size": 512, "num_hidden_layers": 3, "hidden_size": 72, "intermediate_size": 96},
        4,
    ),
}


@dataclass(frozen=True)
class Work:
    """What is learnt: `stage` is align (projector), lora (projector and adapters) or full (everything)."""

    shape: Shape
    stage: str
    steps: int
    rows_per_step: int
    device: str
    bf16: bool
    tokens_per_pass: int
    nanovlm: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" and self.stage != "full" else torch.float32

    @cached_property
    def rows(self) -> list[TokenRow]:
        return [row for step in range(self.steps) for row in step_rows(self, step)]

    @cached_property
    def pictures(self) -> dict[ImageRef, Tensor]:
        """Pixels (3, H, W) of every picture, already decoded: decoding costs the same whoever trains."""
        side = self.shape.vision["image_size"]
        refs = sorted({ref for row in self.rows for ref in row.images}, key=lambda ref: ref.path)
        generator = torch.Generator().manual_seed(0)
        return {ref: torch.randn(3, side, side, generator=generator).to(self.dtype) for ref in refs}

    def of_step(self, step: int) -> list[TokenRow]:
        return self.rows[step * self.rows_per_step : (step + 1) * self.rows_per_step]


def step_rows(work: Work, step: int) -> list[TokenRow]:
    """The rows of one step. Lengths as in published data, in parts of the picture's tokens (of 729 for SigLIP at 384).

    Tuning: 1.8 rows a picture, text log-normal with mean 150 / 729 and sigma 0.9, of which the last 45 % are labels;
    one row of sixteen has no picture, is twice as long, and 70 % of it are labels; a common beginning of 40 / 729.
    Align: one caption a picture, mean 40 / 729 and sigma 0.5, all of it labels.
    """
    rng = np.random.default_rng([step, 7])
    image, vocabulary = work.shape.image_tokens, work.shape.text["vocab_size"]
    align = work.stage == "align"
    mean, sigma = (40, 0.5) if align else (150, 0.9)
    mean, count = mean * image / 729, work.rows_per_step
    start = np.random.default_rng(7).integers(10, vocabulary, 0 if align else max(2, 40 * image // 729))
    wordy = 0 if align else max(1, round(count * 0.064))
    different = count if align else max(1, round((count - wordy) / 1.8))
    rows = []
    for number in range(count):
        size = int(np.clip(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma), 6, mean * 8))
        picture = number % different if number < different else int(rng.integers(different))
        if alone := number >= count - wordy:
            size = int(min(2 * size, mean * 8))
        text = rng.integers(10, vocabulary, size)
        before = [start] if alone else [start, np.full(image, IMAGE)]
        ids = np.concatenate([*before, text])
        learnt = size if align else int(size * (0.7 if alone else 0.45))
        labels = np.full(len(ids), IGNORE)
        labels[len(ids) - learnt :] = ids[len(ids) - learnt :]
        images = () if alone else (ImageRef(f"{step:03}-{picture:03}"),)
        rows.append(TokenRow(f"{step}-{number}", ids, labels, images))
    return [rows[place] for place in rng.permutation(count)]


def llava(work: Work) -> Any:
    """The model as transformers has it, with random weights from one seed; in `full`, no block is left unread."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**work.shape.vision),
        text_config=work.shape.text_type(**work.shape.text, tie_word_embeddings=False, max_position_embeddings=4096),
        image_token_index=IMAGE,
        image_seq_length=work.shape.image_tokens,
        vision_feature_layer=-1 if work.stage == "full" else -2,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config).to(work.dtype)


def our_model(work: Work) -> Any:
    """The same weights as our own model, built as `bunny.model.build` does: without the tower's unread parts."""
    bunny.model.register()
    theirs = llava(work)
    vision = work.shape.vision | {"vision_use_head": False}
    vision["num_hidden_layers"] += 0 if work.stage == "full" else -1
    config = BunnyConfig(
        vision_config=SiglipVisionConfig(**vision),
        text_config=theirs.config.text_config,
        image_token_index=IMAGE,
        image_seq_length=work.shape.image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    ours = BunnyForConditionalGeneration(config).to(work.dtype)
    state = theirs.state_dict()
    for old, new in (("linear_1", "0"), ("linear_2", "2")):
        for kind in ("weight", "bias"):
            name = f"model.multi_modal_projector.{old}.{kind}"
            state[name.replace(old, new)] = state[name]
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    return ours


def section_of(work: Work, checkpointing: bool = False) -> StageSection:
    r = work.shape.lora_r
    return StageSection(
        data=[],
        language_model={"align": "frozen", "lora": "lora", "full": "full"}[work.stage],  # type: ignore[arg-type]
        vision_tower="train" if work.stage == "full" else "frozen",
        lora=LoraSection(r=r, alpha=2 * r, dropout=0),  # dropout would hide a wrong loss
        learning_rate=1e-4,
        warmup_ratio=0,
        rows_per_step=work.rows_per_step,
        tokens_per_pass=work.tokens_per_pass,
        precision="bf16" if work.bf16 else "fp32",
        gradient_checkpointing=checkpointing,
        trackers=(),
    )


def ours(work: Work, pulse: Pulse, checkpointing: bool = False, kept: bool = False) -> list[float]:
    """The training engine itself: StepData packs, StepTrainer steps. kept: the tower's features are on disk already."""
    section = section_of(work, checkpointing).model_copy(update={"feature_cache": kept})
    model = our_model(work).to(work.device)
    model.model.language_model.set_attn_implementation(attention.NAME)
    torch.manual_seed(0)
    learning = set_learning(model, section)
    pictures = work.pictures

    def pixels(refs: Sequence[ImageRef]) -> Tensor:
        return torch.stack([pictures[ref] for ref in refs])  # (B, 3, H, W)

    with tempfile.TemporaryDirectory() as folder:
        where, device = Path(folder) / "features", torch.device(work.device)
        seen = cache_features(model, list(pictures), pixels, where, bf16=work.bf16, device=device) if kept else pixels
        data = StepData(work.rows, Plan.of(len(work.rows), section), model.config, section, seen)
        args = arguments(section, Path(folder), 0, model)
        set_steps(args, section, work.steps)
        args.save_strategy = transformers.trainer_utils.SaveStrategy.NO
        return _losses(StepTrainer(learning, data, section, args), pulse)


def _losses(trainer: Any, pulse: Pulse) -> list[float]:
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(pulse)
    pulse.begin()
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def stock(work: Work, pulse: Pulse) -> list[float]:
    """transformers' Llava with Hugging Face's Trainer: padded batches, a picture for every row that has one."""
    learning = _adapted(llava(work).to(work.device), work)
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=work.rows_per_step // MICRO_BATCH,
            max_steps=work.steps,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            bf16=work.bf16,
            use_cpu=work.device == "cpu",
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model=learning,
            args=args,
            train_dataset=work.rows,
            data_collator=lambda rows: padded(rows, work.pictures),
        )
        return _losses(trainer, pulse)


def _adapted(model: Any, work: Work) -> Any:
    """What learns in the stage; LoRA by peft, on the same layers as ours, drawn from the same seed."""
    model.requires_grad_(work.stage == "full")
    torch.manual_seed(0)
    if work.stage == "lora":
        from peft import LoraConfig, get_peft_model

        kinds = {n.rpartition(".")[2] for n, m in model.model.language_model.named_modules() if type(m) is nn.Linear}
        r = work.shape.lora_r
        targets = rf"{LANGUAGE_MODEL}.*\.({'|'.join(sorted(kinds))})"
        model = get_peft_model(model, LoraConfig(r=r, lora_alpha=2 * r, lora_dropout=0, target_modules=targets))
    for name, parameter in model.named_parameters():
        if PROJECTOR in name:
            parameter.requires_grad_(True)
    return model.train()


def padded(rows: list[TokenRow], pictures: dict[ImageRef, Tensor], blank: bool = False) -> dict[str, Tensor]:
    """A batch padded to its longest row. blank: a black picture for rows without one, as the original gives them."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size], mask[number, :size] = torch.from_numpy(row.ids), 1
        labels[number, :size] = torch.from_numpy(row.labels)
    shown = [pictures[ref] for row in rows for ref in row.images]
    if blank:
        black = torch.zeros_like(next(iter(pictures.values())))
        shown = [pictures[row.images[0]] if row.images else black for row in rows]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return batch | ({"pixel_values": torch.stack(shown)} if shown else {})


def original(work: Work, pulse: Pulse) -> list[float]:
    """The original's step: batches of eight padded to the longest, the tower for every row (a black picture where there
    is none), activations recomputed, logits and float32 cross-entropy at every position.

    The step's loss is divided by all its labels, not batch by batch: the same arithmetic, and comparable.
    """
    model = llava(work).to(work.device)
    model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    learning = _adapted(model, work)
    optimiser, schedule = _optimiser(learning, work)
    pulse.begin()
    losses = []
    for step in range(work.steps):
        rows = work.of_step(step)
        whole = sum(row.learns for row in rows)
        total = 0.0
        for first in range(0, len(rows), MICRO_BATCH):
            some = rows[first : first + MICRO_BATCH]
            batch = {name: t.to(work.device) for name, t in padded(some, work.pictures, blank=True).items()}
            with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
                loss = _original_loss(model, batch, torch.tensor([bool(row.images) for row in some])) / whole
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for p in learning.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(total)
        pulse.step()
    return losses


def _original_loss(model: Any, batch: dict[str, Tensor], shown: Tensor) -> Tensor:
    features = torch.stack(list(model.model.get_image_features(batch["pixel_values"]).pooler_output))  # (B, N, width)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    places = (batch["input_ids"] == IMAGE)[..., None] & batch["attention_mask"].bool()[..., None]
    embeds = embeds.masked_scatter(places, features[shown.to(features.device)].to(embeds.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeds, attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden).float()  # (B, T, vocabulary)
    targets = nn.functional.pad(batch["labels"], (0, 1), value=IGNORE)[:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def _optimiser(learning: Any, work: Work) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(optimiser_groups(learning, section_of(work)))
    return optimiser, transformers.get_cosine_schedule_with_warmup(optimiser, 0, work.steps)


def nanovlm(work: Work, pulse: Pulse, tight: bool = False) -> list[float]:
    """huggingface/nanoVLM's own model, packing and loop, from its folder."""
    from training_nanovlm import train

    return train(work, pulse, tight)


WAYS: dict[str, Callable[[Work, Pulse], list[float]]] = {
    "original": original,
    "llava_trainer": stock,
    "nanovlm": nanovlm,
    "nanovlm_tight": lambda work, pulse: nanovlm(work, pulse, tight=True),
    "ours": ours,
    "ours_large_passes": lambda work, pulse: ours(replace(work, tokens_per_pass=4 * work.tokens_per_pass), pulse),
    "ours_kept_features": lambda work, pulse: ours(work, pulse, kept=True),
    "ours_checkpointed": lambda work, pulse: ours(work, pulse, checkpointing=True),
}
