"""Hugging Face's Trainer, fed with whole optimiser steps: it keeps the loop, schedule, checkpoints and loggers.

In: a plan (the rows of every step). Each step's rows are packed into passes; the loss is the weighted sum over all
passes divided by the step's total weight, so how rows are packed never changes a gradient.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from bunny.core.errors import UserError
from bunny.core.recipe import StageSection
from bunny.core.types import ImageRef, TokenRow
from bunny.text.pack import Batch, pack
from bunny.train.learn import optimiser_groups

WEIGHTS = "trained.safetensors"
LAST_WRITTEN = "trainer_state.json"

Pixels = Callable[[Sequence[ImageRef]], Tensor]
"""Pictures to pixel_values (B, 3, H, W)."""


class StepData(Dataset[list[tuple[Batch, Tensor | None]]]):
    """Item k: the packed passes of optimiser step k with their pixels."""

    def __init__(self, plan: Sequence[Sequence[TokenRow]], config: Any, section: StageSection, pixels: Pixels) -> None:
        self.plan, self.config, self.section, self.pixels = plan, config, section, pixels

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> list[tuple[Batch, Tensor | None]]:
        section, config = self.section, self.config
        batches = pack(
            self.plan[step],
            config.image_token_id,
            config.image_seq_length,
            section.tokens_per_pass,
            section.normalise,
        )
        return [(batch, self.pixels(batch.images) if batch.images else None) for batch in batches]


class FromStep(Sampler[int]):
    """Steps in order, beginning where a resumed run left off: no skipped data is ever read again."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


class StepTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """Trainer whose batch is a whole optimiser step and whose checkpoints hold only what learns."""

    def __init__(self, model: nn.Module, data: StepData, section: StageSection, args: TrainingArguments) -> None:
        self.section, self.first_step = section, 0
        self.tokens_seen = 0
        super().__init__(model=model, args=args, train_dataset=data)

    def train_on(self, checkpoint: Path | None) -> None:
        """Train to the end, from the checkpoint if there is one."""
        self.first_step = _global_step(checkpoint) if checkpoint else 0
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def get_train_dataloader(self) -> DataLoader[Any]:
        sampler = FromStep(self.first_step, len(self.train_dataset))
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            sampler=sampler,
            collate_fn=_only,
            num_workers=self.args.dataloader_num_workers,
            generator=torch.Generator(),  # else it draws from dropout's stream: a resumed run would drop other units
        )

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        if self.optimizer is None:
            groups = optimiser_groups(model or self.model, self.section)
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer: Any = kind(groups, **settings)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One optimiser step's gradients over all its passes; returns its mean loss."""
        model.train()
        whole = sum(batch.weight for batch, _ in inputs)
        total = torch.zeros((), device=self.args.device)
        for batch, pixels in inputs:
            with self.compute_loss_context_manager():
                loss = model(packed=self._on_device(batch, pixels)) / whole
            if not torch.isfinite(loss):
                raise UserError(
                    f"step {self.state.global_step + 1}: the loss is {loss.item()}; samples: {', '.join(batch.rows)}",
                    fix="look at these samples or lower the learning rate; the last checkpoint is kept",
                )
            if loss.requires_grad:  # words alone reach nothing that learns while the language model is frozen
                self.accelerator.backward(loss)
            total += loss.detach()
            self.tokens_seen += len(batch.ids)
        return total

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The gradient's norm, clipped. A finite loss can have a gradient that is not: it never reaches the weights."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            rows = [row.id for row in self.train_dataset.plan[self.state.global_step]]
            raise UserError(
                f"step {self.state.global_step + 1}: the gradient is not finite; samples: {', '.join(rows)}",
                fix="look at these samples or lower the learning rate; the last checkpoint is kept",
            )
        return norm

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        return list(itertools.islice(epoch_iterator, num_batches)), None

    def _on_device(self, batch: Batch, pixels: Tensor | None) -> dict[str, Any]:
        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(array).to(self.args.device)

        return {
            "ids": tensor(batch.ids),
            "targets": tensor(batch.targets),
            "weights": tensor(batch.weights),
            "positions": tensor(batch.positions),
            "features_at": tensor(batch.features_at),
            "segments": tensor(batch.segments),
            "pixel_values": None if pixels is None else pixels.to(self.args.device),
        }

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self.model), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        put_tensors(model or self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS))


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of everything that learns."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def put_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy saved tensors in. Raises UserError if any name is missing, left over, or of another shape."""
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    odd = mine.keys() ^ tensors.keys() | {n for n in mine.keys() & tensors.keys() if mine[n].shape != tensors[n].shape}
    if odd:
        raise UserError(
            f"{len(odd)} saved tensors do not fit the model, e.g. {min(odd)}",
            fix="the checkpoint is of another model or recipe: delete it or use its recipe",
        )
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones (a killed process) are removed."""
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        step = _global_step(path)
        if step:
            whole.append((step, path))
        else:
            shutil.rmtree(path)
    return max(whole)[1] if whole else None


def _global_step(checkpoint: Path) -> int:
    """Steps done at a checkpoint, 0 if it is not whole (its state file is written last)."""
    try:
        return int(json.loads((checkpoint / LAST_WRITTEN).read_text(encoding="utf-8"))["global_step"])
    except (OSError, json.JSONDecodeError, KeyError):
        return 0


def _only(items: list[Any]) -> Any:
    return items[0]


__all__ = ["StepData", "StepTrainer", "TrainerCallback", "last_checkpoint", "put_tensors", "trained_tensors"]
