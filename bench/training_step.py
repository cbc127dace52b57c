"""One tuning step of the demo, three ways, on the same rows: what packing and sharing save.

    python bench/training_step.py --model runs/demo/model --curated runs/demo/curated --threads 1 --json

In: a tuned model folder and a curated set (both from `make demo`). Measured in one run, alternating, after a warm-up:
`padded` (a Llava batch padded to its longest row, logits everywhere: what a plain training loop does), `packed` (no
padding, logits at labels only) and `shared` (ours: one copy of what rows about one picture have in common). LoRA as in
the recipe. Prints seconds per step, the ratio to `padded`, and tokens computed. Losses must agree or it stops.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from bunny.core.recipe import Recipe
from bunny.core.sample_table import read_samples
from bunny.core.types import TokenRow
from bunny.data.images import open_image
from bunny.data.mixture import make_mixture
from bunny.model import attention
from bunny.model.build import load
from bunny.text.pack import pack
from bunny.text.template import Template, Writer
from bunny.train.learn import set_learning

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny-cpu.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/model"))
    parser.add_argument("--curated", type=Path, default=Path("runs/demo/curated"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe.load(RECIPE, ["tune.lora.dropout=0"])  # random masks would hide a wrong loss
    model, processor = load(args.model)
    rows = step_rows(recipe, args.curated, model, processor)
    learning = set_learning(model, recipe.tune).train()
    ways: dict[str, Callable[[], tuple[torch.Tensor, int]]] = {
        "padded": lambda: padded(learning, model, processor, rows),
        "packed": lambda: packed(learning, model, processor, rows, share=False),
        "shared": lambda: packed(learning, model, processor, rows, share=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses, tokens = {}, {}
    for turn in range(args.repeats + 1):  # the first turn warms up
        for name, way in ways.items():
            torch.manual_seed(turn)
            start = time.perf_counter()
            loss, tokens[name] = way()
            loss.backward()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            losses[name] = loss.item()
            learning.zero_grad()
    spread = max(losses.values()) - min(losses.values())
    if spread > 1e-3 * losses["padded"]:
        raise SystemExit(f"the losses differ: {losses}")
    report(args, rows, seconds, tokens, losses)


def step_rows(recipe: Recipe, curated: Path, model: Any, processor: Any) -> list[TokenRow]:
    """The rows of the recipe's first tuning step."""
    pairs = read_samples(curated / "samples.parquet")
    mixture, _ = make_mixture(recipe.tune.data, pairs, seed=0, folder=recipe.locate("."), by_picture=True)
    template = Template.model_validate(processor.template)
    writer = Writer(template, processor.tokenizer, model.config.image_token_id, model.config.image_seq_length)
    return [writer.row(sample) for sample in mixture.samples[: recipe.tune.rows_per_step]]


def padded(learning: Any, model: Any, processor: Any, rows: list[TokenRow]) -> tuple[torch.Tensor, int]:
    """transformers' own forward on right-padded rows, every row with its own picture."""
    model.model.language_model.set_attn_implementation("sdpa")
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size], mask[number, :size] = torch.from_numpy(row.ids), 1
        labels[number, :size] = torch.from_numpy(row.labels)
    pictures = processor.pixels([open_image(ref) for row in rows for ref in row.images])
    return learning(input_ids=ids, attention_mask=mask, pixel_values=pictures, labels=labels).loss, ids.numel()


def packed(learning: Any, model: Any, processor: Any, rows: list[TokenRow], share: bool) -> tuple[torch.Tensor, int]:
    """The training engine's own step."""
    model.model.language_model.set_attn_implementation(attention.NAME)
    config = model.config
    (batch,) = pack(rows, config.image_token_id, config.image_seq_length, 1 << 30, share=share)
    arrays = ("ids", "targets", "weights", "positions", "features_at", "segments")
    tensors: dict[str, Any] = {name: torch.from_numpy(getattr(batch, name)) for name in arrays}
    tensors["pixel_values"] = processor.pixels([open_image(ref) for ref in batch.images])
    return learning(packed=tensors) / batch.weight, len(batch.ids)


def report(args: Any, rows: list[TokenRow], seconds: dict[str, list[float]], tokens: Any, losses: Any) -> None:
    base = statistics.median(seconds["padded"])
    outcome = {
        "rows": len(rows),
        "pictures": len({ref for row in rows for ref in row.images}),
        "threads": args.threads,
        "machine": f"{platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}",
        "ways": {
            name: {
                "seconds": round(statistics.median(times), 3),
                "times_faster": round(base / statistics.median(times), 2),
                "tokens": tokens[name],
                "loss": losses[name],
            }
            for name, times in seconds.items()
        },
    }
    if args.json:
        print(json.dumps(outcome, indent=1))
        return
    for name, way in outcome["ways"].items():  # type: ignore[attr-defined]
        print(f"{name:8} {way['seconds']:8.2f} s  {way['times_faster']:5.2f} x  {way['tokens']:6d} tokens")


if __name__ == "__main__":
    main()
