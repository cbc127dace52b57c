"""huggingface/nanoVLM's published training loop on the rows of bench/training.py.

Its own files do the work, imported from a copy of its repository: `models.*` (VisionLanguageModel), `data.collators`,
`data.advanced_datasets` (knapsack packing). Its `data.processors` wants torchvision and a tokenizer from the network,
so a stand-in with the two ids that the model asks for takes its place. The loop is that of `train()` in its `train.py`
(batch size 2, accumulation, autocast, clipping, AdamW at three rates) without logging and evaluation.

Two of its settings depend on the data: sequences are as long as an eighth of a step's tokens, so that its buffer of
eight sequences holds one step (with the published 4096 and its own data it is the same share), and a step's batches are
accumulated. Cross-attention between the samples of a sequence is what it does; its gradients are not the padded ones.
"""

from __future__ import annotations

import contextlib
import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from training_pulse import Pulse

BATCH = 2  # its published batch size, in sequences
SEQUENCES = 4 * BATCH  # of its buffer


def train(work: Any, pulse: Pulse, tight: bool) -> list[float]:
    """Its loss of every step: the mean over the batches of the mean over their labels.

    tight: without the five spare sequences that its packing opens for every buffer (kinder to it than its own code).
    """
    tokenizer = SimpleNamespace(image_token_id=5, pad_token_id=0)
    stand_in: Any = ModuleType("data.processors")
    stand_in.get_tokenizer = lambda *_: tokenizer
    sys.modules["data.processors"] = stand_in
    sys.path.insert(0, work.nanovlm)
    from data.collators import VQACollator
    from models.vision_language_model import VisionLanguageModel

    torch.manual_seed(0)
    random.seed(42)
    model = VisionLanguageModel(_config(work), load_backbone=False).to(work.device).train()
    groups = [
        {"params": list(model.MP.parameters()), "lr": 0.00512},
        {"params": list(model.vision_encoder.parameters()), "lr": 5e-5},
        {"params": list(model.decoder.parameters()), "lr": 5e-5},
    ]
    optimiser = torch.optim.AdamW(groups)
    everything = [p for group in groups for p in group["params"]]
    steps = [_batches(work, step, tokenizer, VQACollator, tight) for step in range(work.steps)]
    pulse.begin()
    losses = []
    for batches in steps:
        total = 0.0
        for batch in batches:
            ids, labels = batch["input_ids"].to(work.device), batch["labels"].to(work.device)
            mask = batch["attention_mask"].to(work.device)
            with torch.autocast(work.device, torch.bfloat16) if work.bf16 else contextlib.nullcontext():
                _, loss = model(ids, batch["images"], attention_mask=mask, targets=labels)
            loss = loss / len(batches)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(everything, max_norm=1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(total)
        pulse.step()
    return losses


def _config(work: Any) -> Any:
    from models.config import VLMConfig

    vision, text = work.shape.vision, work.shape.text
    return VLMConfig(
        vit_hidden_dim=vision["hidden_size"],
        vit_inter_dim=vision["intermediate_size"],
        vit_patch_size=vision["patch_size"],
        vit_img_size=vision["image_size"],
        vit_n_heads=vision["num_attention_heads"],
        vit_n_blocks=vision["num_hidden_layers"],
        lm_hidden_dim=text["hidden_size"],
        lm_inter_dim=text["intermediate_size"],
        lm_vocab_size=text["vocab_size"],
        lm_n_heads=text["num_attention_heads"],
        lm_n_kv_heads=text["num_key_value_heads"],
        lm_n_blocks=text["num_hidden_layers"],
        lm_tie_weights=False,
        mp_pixel_shuffle_factor=1,
        mp_image_token_length=work.shape.image_tokens,
    )


def _batches(work: Any, step: int, tokenizer: Any, collator: Any, tight: bool) -> list[dict[str, Any]]:
    """The step's rows through its own packing and collator: batches of two sequences."""
    from data.advanced_datasets import ConstantLengthDataset

    rows = work.of_step(step)
    length = max(sum(len(row.ids) + 1 for row in rows) // SEQUENCES + 1, max(len(row.ids) for row in rows) + 2)
    samples = [
        {
            "input_ids": torch.from_numpy(row.ids),
            "attention_mask": torch.ones(len(row.ids), dtype=torch.long),
            "labels": torch.cat([torch.from_numpy(row.labels)[1:], torch.tensor([-100])]),  # it shifts in its dataset
            "images": [work.pictures[ref][None] for ref in row.images],
        }
        for row in rows
    ]
    stream = _Samples(samples, tokenizer, work.shape.image_tokens)
    dataset = ConstantLengthDataset(stream, False, length, length, SEQUENCES)
    if tight:
        knapsack = dataset._balanced_greedy_knapsack
        dataset._balanced_greedy_knapsack = lambda rows, length, delta, **limits: knapsack(rows, length, 0, **limits)
    packed = list(dataset)
    if sum(int((one["labels"] != -100).sum()) for one in packed) != sum(row.learns for row in rows):
        raise SystemExit("nanoVLM's packing left labels out: the comparison would not be fair")
    collate = collator(tokenizer, length)
    return [collate(packed[first : first + BATCH]) for first in range(0, len(packed), BATCH)]


class _Samples:
    """What its ConstantLengthDataset asks of a dataset."""

    def __init__(self, samples: list[dict[str, Any]], tokenizer: Any, image_tokens: int) -> None:
        self.dataset, self.tokenizer, self.mp_image_token_length = samples, tokenizer, image_tokens

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return dict(self.dataset[place])
