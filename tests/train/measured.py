"""Training steps of a made-up Bunny, with their operations counted and their memory measured.

`python -m tests.train.measured` prints the table of docs/doctor.md: estimated and measured memory, side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, PhiConfig, PretrainedConfig, Qwen3Config, SiglipVisionConfig

import bunny.model
from bunny.core.recipe import StageSection
from bunny.core.types import IGNORE
from bunny.model import attention
from bunny.model.config import BunnyConfig
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.train.checkpointing import apply
from bunny.train.cost import bytes_of_stage
from bunny.train.learn import set_learning
from bunny.train.shape import shape_of

IMAGE, TOKENS, SIDE = 5, 64, 112
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"num_key_value_heads": 4}),
    "phi": (PhiConfig, {}),
    "qwen3": (Qwen3Config, {"num_key_value_heads": 4, "head_dim": 32}),
}


def model_of(family: str, width: int, layers: int, words: int = 1000) -> Any:
    """A Bunny of random weights; its tower is a quarter as wide, with 64 patches a picture."""
    bunny.model.register()
    kind, more = FAMILIES[family]
    sizes = {"hidden_size": width, "intermediate_size": width * 11 // 4, "num_hidden_layers": layers}
    text = kind(vocab_size=words, num_attention_heads=8, pad_token_id=0, **sizes, **more)
    vision = SiglipVisionConfig(
        hidden_size=width // 4,
        intermediate_size=width // 2,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=14,
        vision_use_head=False,
    )
    config = BunnyConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    return BunnyForConditionalGeneration(config)


def section_of(way: str, **changes: Any) -> StageSection:
    lora = {"r": 16, "alpha": 32, "dropout": 0.05}
    return StageSection(
        **{"data": [], "language_model": way, "lora": lora, "learning_rate": 1e-4, "gradient_checkpointing": False}
        | changes
    )


def packed_pass(tokens: int, row: int = 256) -> dict[str, Any]:
    """Rows of `row` tokens about one picture each; the second half of a row is learnt."""
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 1000, tokens)
    place = np.arange(tokens) % row
    features = np.full(tokens, -1)
    shown = (place >= 8) & (place < 8 + TOKENS)
    ids[shown], features[shown] = IMAGE, np.arange(shown.sum())
    targets = np.where(place >= row // 2, ids, IGNORE)
    segments = np.array([(start, start + row, start, start) for start in range(0, tokens, row)])
    arrays = {
        "ids": ids,
        "targets": targets,
        "weights": (targets != IGNORE).astype(np.float32),
        "positions": place,
        "features_at": features,
        "segments": segments,
    }
    pixels = torch.randn(len(segments), 3, SIDE, SIDE)
    return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"pixel_values": pixels}


def stepper(model: Any, section: StageSection, choice: Any, tokens: int) -> Callable[[], None]:
    """A step of two passes: forward and backward twice, then AdamW."""
    model.model.language_model.set_attn_implementation(attention.NAME)
    learning = set_learning(model, section).train()
    apply(learning, choice)
    optimiser = torch.optim.AdamW([p for p in learning.parameters() if p.requires_grad], foreach=False)

    def step() -> None:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=section.precision == "bf16"):
                loss = learning(packed=packed_pass(tokens))
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def peak_bytes(model: Any, step: Callable[[], None]) -> float:
    """Weights and the most that torch had allocated beside them, over two steps."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        step()
        step()
    events = [e for e in watch.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(weights + max(itertools.accumulate(changes)))


def estimated_and_measured(
    family: str, way: str, choice: str, width: int, layers: int, tokens: int, **changes: Any
) -> tuple[float, float]:
    """Peak bytes of a stage's step: what `train.cost` says, and what was allocated."""
    model, section = model_of(family, width, layers), section_of(way, **changes)
    step = stepper(model, section, choice, tokens)
    found = bytes_of_stage(
        shape_of(model.config),
        section,
        tokens,
        pictures=tokens // 256,
        labels=tokens // 2,
        checkpointing=choice,
        gpu=False,
    )
    return found.total, peak_bytes(model, step)


def main() -> None:
    torch.set_num_threads(1)
    print("| layers | learns | precision | width | layers | tokens | recomputed | estimated MB | measured MB | ratio |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |")
    for family, way, precision, (width, layers, tokens) in itertools.product(
        FAMILIES, ("frozen", "lora", "full"), ("fp32", "bf16"), ((256, 4, 1024), (512, 6, 2048))
    ):
        for choice in ("off", "selective", "full"):
            if precision == "bf16" and (family, width) != ("llama", 256):
                continue  # slow on a CPU
            guess, seen = estimated_and_measured(family, way, choice, width, layers, tokens, precision=precision)
            sizes = f"{width} | {layers} | {tokens} | {choice} | {guess / 1e6:.0f} | {seen / 1e6:.0f}"
            print(f"| {family} | {way} | {precision} | {sizes} | {guess / seen:.2f} |", flush=True)


if __name__ == "__main__":
    main()
