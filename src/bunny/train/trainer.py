"""Hugging Face's Trainer, fed with whole optimiser steps: it keeps the loop, schedule, checkpoints and loggers.

In: `StepData`, whose item k is the packed passes of step k for this rank. The loss is the weighted sum over all passes
of all ranks divided by the step's whole weight, so neither packing nor the number of processes changes a gradient.
Dropout draws from (seed, step, rank), so a run that goes on needs no stored random state.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import StageSection
from bunny.core.seeds import stream
from bunny.text.pack import Batch
from bunny.train.checkpoints import (
    WEIGHTS,
    global_step,
    is_sharded,
    learning_state,
    load_optimiser,
    optimiser_state,
    put_learning,
)
from bunny.train.cost import StepTokens, flops_of_step
from bunny.train.learn import optimiser_groups
from bunny.train.parallel import is_sharding
from bunny.train.shape import shape_of
from bunny.train.steps import StepData

OPTIMISER, SCHEDULE = "optimiser.pt", "schedule.pt"


class FromStep(Sampler[int]):
    """Steps in order, beginning where a resumed run left off: no skipped data is ever read again."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


class StopOnTerm(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """SIGTERM (a scheduler that wants the machine back) ends the run after the step at work, with a checkpoint."""

    def __init__(self) -> None:
        self.asked = self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with contextlib.suppress(ValueError):  # not the main thread: whoever runs it there takes its signals
            self._before = signal.signal(signal.SIGTERM, self._note)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        flag = torch.tensor(float(self.asked), device=args.device)
        if args.world_size > 1:  # all ranks stop after the same step
            torch.distributed.all_reduce(flag)
        if flag.item() and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if hasattr(self, "_before"):
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True
        log.warning("asked to stop: finishing the step, then writing a checkpoint")


class Stopped(UserError):
    """The run was asked to stop and left a checkpoint to go on from."""


class StepTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """Trainer whose batch is a whole optimiser step and whose checkpoints hold only what learns."""

    def __init__(self, model: nn.Module, data: StepData, section: StageSection, args: TrainingArguments) -> None:
        self.section, self.first_step = section, 0
        self.tokens_seen = self.padded_seen = 0
        self.step_flops = 0.0  # of the last step, on all ranks, without what checkpointing computes again
        self.shape = shape_of(data.config)
        double = any(p.dtype == torch.float64 for p in model.parameters())
        self.weight_kind = "float64" if double else "float32"
        self.term = StopOnTerm()
        super().__init__(model=model, args=args, train_dataset=data, callbacks=[self.term])

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate takes up FSDP on GPUs only, and leaves it out in silence elsewhere: processors can do it too."""
        super().create_accelerator_and_postprocess()
        if self.args.deepspeed and not self.is_deepspeed_enabled:  # type: ignore[has-type]
            raise UserError(
                "deepspeed: accelerate leaves it out on processors", fix="set `parallel: fsdp` in its place"
            )
        if self.args.fsdp and not self.is_fsdp_enabled:  # type: ignore[has-type]
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            if self.accelerator.mixed_precision != "no":
                plugin.set_mixed_precision(self.accelerator.mixed_precision)
            state = self.accelerator.state
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            self.is_fsdp_enabled = True

    def train_on(self, checkpoint: Path | None) -> None:
        """Train to the end, from the checkpoint if there is one. Raises Stopped if it was asked to stop before."""
        self.first_step = global_step(checkpoint) if checkpoint else 0
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if is_sharding(self.section) != is_sharded(self.model):
            raise RuntimeError("the weights were to be sharded and were not, or the other way round")
        if self.term.stopped:
            raise Stopped(
                f"stopped after step {self.state.global_step} of {self.state.max_steps}, as asked; it is saved",
                fix="run the same command again to go on",
            )

    def rows_of(self, step: int) -> list[str]:
        """Ids of the rows of a step (0 is the first), on all ranks together."""
        return [row.id for row in self.train_dataset.of_step(step)]

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
        """One optimiser step's gradients over all passes; returns the step's loss, the same on every rank."""
        model.train()
        whole, passes = inputs
        ranks = self.args.world_size
        self._draw(self.state.global_step)
        total = torch.zeros((), device=self.args.device)
        for number, (batch, pixels) in enumerate(passes):
            with self._sending(model, last=number == len(passes) - 1):
                with self.compute_loss_context_manager():
                    loss = model(packed=self._on_device(batch, pixels)) / whole
                self._check(loss, batch)
                if loss.requires_grad:  # words alone reach nothing that learns while the language model is frozen
                    self.accelerator.backward(loss * ranks)  # ranks' gradients are averaged
            total += loss.detach()
            self.tokens_seen += len(batch.ids) if batch.rows else 0
            self.padded_seen += batch.padded_tokens
        done = flops_of_step(self.shape, self.section, StepTokens.of(batch for batch, _ in passes)).model
        both = torch.stack([total, total.new_tensor(done)])
        if ranks > 1:
            torch.distributed.all_reduce(both)
        total, self.step_flops = both[0], float(both[1])
        _none_without_gradient(self.model)
        return total

    def _draw(self, step: int) -> None:
        """Set torch's random state for a step: LoRA's dropout depends on seed, step and rank alone."""
        rng = stream(f"train.dropout.{step}.{self.args.process_index}", self.args.seed)
        torch.manual_seed(int(rng.integers(1 << 62)))

    @contextlib.contextmanager
    def _sending(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Gradients travel between ranks once a step, with its last pass."""
        if self.is_deepspeed_enabled:  # its engine steps at the last pass by itself
            self.accelerator.gradient_state._set_sync_gradients(last)
            yield
        elif last or self.args.world_size == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def _check(self, loss: Tensor, batch: Batch) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()}; samples: {', '.join(batch.rows)}",
                fix="look at these samples or lower the learning rate; the last checkpoint is kept",
            )

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The gradient's norm, clipped. A finite loss can have a gradient that is not: it never reaches the weights."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            raise UserError(
                f"step {self.state.global_step + 1}: the gradient is not finite; "
                f"samples: {', '.join(self.rows_of(self.state.global_step))}",
                fix="look at these samples or lower the learning rate; the last checkpoint is kept",
            )
        return norm

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        return list(itertools.islice(epoch_iterator, num_batches)), None

    def _on_device(self, batch: Batch, pixels: Tensor | None) -> dict[str, Any]:
        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(array).to(self.args.device)

        seen = "features" if self.section.feature_cache else "pixel_values"
        return {
            "ids": tensor(batch.ids),
            "targets": tensor(batch.targets),
            "weights": tensor(batch.weights.astype(self.weight_kind)),
            "positions": tensor(batch.positions),
            "features_at": tensor(batch.features_at),
            "segments": torch.from_numpy(batch.segments),  # read on the host
            seen: None if pixels is None else pixels.to(self.args.device),
        }

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what learns: `trained.safetensors`. Every rank calls it, one writes."""
        state = learning_state(self.model)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, folder / WEIGHTS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The optimiser's state by parameter name, whole: it fits any number of ranks, sharded or not."""
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = optimiser_state(self.model, self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMISER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        put_learning(model or self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint)
        load_optimiser(self.model, self.optimizer, torch.load(folder / OPTIMISER, map_location="cpu"))
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULE))

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing to save: every step sets its own random state."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load."""


def _none_without_gradient(model: nn.Module) -> None:
    """Zeros for what no row of the step reaches (the projector, in a step of words alone): its momentum moves it on.

    As in the original, which encodes an empty picture for such rows.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _only(items: list[Any]) -> Any:
    return items[0]
