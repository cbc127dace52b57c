"""What a training stage costs: floating-point operations of a step and bytes of memory, from sizes and counts alone.

In: a `Shape`, the stage's section, counts of tokens. Out: `Flops` and `Bytes` by part. All formulas of such estimates
stand here. How near they come to what was counted and measured: tests/train/test_cost.py and docs/doctor.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

from bunny.core.recipe import StageSection
from bunny.train.shape import Shape, Stack

FP32, BF16 = 4, 2
QUANTISED = {"nf4": 0.516, "int8": 1.01}  # bytes of a weight, scales included (QLoRA: blocks of 64, scales in 8 bits)
LOGIT_ROWS = 2048  # as in `model.modeling`
TEXT_TOKENS = 64  # of a picture's rows, where nothing is known of the data
WIDEST = 1280  # channels of a convolutional tower's last grid
CONTEXT = 2048  # tokens of an answer's whole context


@dataclass(frozen=True, slots=True)
class StepTokens:
    """What a step computes. pairs: (query, key) pairs that see each other; labels: positions with logits.

    chunked: labels of passes so large that their logits are computed again in the backward pass.
    """

    tokens: int = 0
    pairs: int = 0
    labels: int = 0
    pictures: int = 0
    chunked: int = 0

    @staticmethod
    def of(batches: Iterable[Any]) -> StepTokens:
        """Of a step's `text.pack.Batch`es."""
        counts = [0, 0, 0, 0, 0]
        for batch in batches:
            own = batch.segments[:, 1] - batch.segments[:, 0]
            before = batch.segments[:, 3] - batch.segments[:, 2]
            labels = int((batch.weights > 0).sum())
            found = (
                len(batch.ids),
                int((own * (own + 1) // 2 + own * before).sum()),
                labels,
                len(batch.images),
                labels if labels > LOGIT_ROWS else 0,
            )
            counts = [old + new for old, new in zip(counts, found, strict=True)]
        return StepTokens(*counts)


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of one step (a multiplication and an addition are two), by part, forward and backward.

    recomputed: what checkpointing computes a second time, of all parts.
    """

    tower: float
    projector: float
    linears: float
    attention: float
    adapters: float
    head: float
    recomputed: float

    @property
    def model(self) -> float:
        """What the step needs at least: the numerator of MFU."""
        return self.total - self.recomputed

    @property
    def total(self) -> float:
        """What is executed: the numerator of HFU."""
        return sum(float(getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Bytes:
    """Memory of one rank at the peak of a step, by part.

    activations: kept from forward to backward pass. work: what is needed for a while, the largest of one layer with
    its gradients, a chunk of logits, and the tower. gathered: copies that precision and several ranks need.
    """

    weights: float
    gradients: float
    moments: float
    activations: float
    work: float
    gathered: float

    @property
    def total(self) -> float:
        return sum(float(getattr(self, field.name)) for field in fields(self))


def flops_of_step(shape: Shape, section: StageSection, step: StepTokens, checkpointing: str = "off") -> Flops:
    """Operations of one optimiser step of one rank (or of all, for the counts of all)."""
    text, way = shape.text, section.language_model
    tower_learns, projector_learns = section.vision_tower == "train", section.projector == "train"
    reached = way != "frozen" or projector_learns or tower_learns  # gradients flow through the language model
    backward = (1 if reached else 0) + (1 if way == "full" else 0)
    tower = 0.0 if section.feature_cache else step.pictures * sum(shape.squares) * shape.tower_flops
    linears = 2.0 * step.tokens * text.layers * text.weights_of_layer
    attention = 4.0 * step.pairs * text.layers * text.queries
    adapters = 2.0 * step.tokens * section.lora.r * text.adapter_sides if way == "lora" else 0.0
    head = 2.0 * step.labels * text.width * shape.vocabulary
    again = 0.0
    if checkpointing != "off" and reached:
        again = _recomputed(shape, section, step, checkpointing == "full")
        again += tower if tower_learns and checkpointing == "full" else 0.0
    if reached:
        again += 2.0 * step.chunked * text.width * shape.vocabulary
    return Flops(
        tower=tower * (3 if tower_learns else 1),
        projector=_projector(shape, step, projector_learns, tower_learns),
        linears=linears * (1 + backward),
        attention=attention * (3 if reached else 1),
        adapters=3 * adapters,
        head=head * (1 + backward),
        recomputed=again,
    )


def _recomputed(shape: Shape, section: StageSection, step: StepTokens, full: bool) -> float:
    """Operations of the language model's layers that run again: until the last result that the backward pass needs.

    A layer's last linear layer is not such a result; with LoRA its adapter's first half is, which comes behind it.
    """
    text, lora, rank = shape.text, section.language_model == "lora", section.lora.r
    last_in, last_out = text.linears[-1]
    first_halves = rank * sum(inputs for inputs, _ in text.linears)
    second_halves = rank * (sum(outputs for _, outputs in text.linears) - last_out)
    per_token = 0 if not full else text.weights_of_layer - (0 if lora else last_in * last_out)
    per_token += second_halves + (first_halves if full else 0) if lora else 0
    attention = 4.0 * step.pairs * text.queries if full else 0.0
    return text.layers * (2.0 * step.tokens * per_token + attention)


def _projector(shape: Shape, step: StepTokens, learns: bool, tower_learns: bool) -> float:
    total, tokens = 0.0, step.pictures * shape.image_tokens
    for number, (inputs, outputs) in enumerate(shape.projector):
        onward = tower_learns or (learns and number > 0)
        total += 2.0 * tokens * inputs * outputs * (1 + learns + onward)
    return total


def bytes_of_stage(
    shape: Shape,
    section: StageSection,
    tokens: int,
    *,
    pictures: int | None = None,
    labels: int | None = None,
    checkpointing: str = "off",
    ranks: int = 1,
    sharded: bool = False,
    gpu: bool = True,
) -> Bytes:
    """Memory of one rank for passes of `tokens` tokens.

    pictures, labels: of one pass; by default as many pictures as fit beside short texts, and labels for all chunks.
    sharded: weights, gradients and moments are cut up over the ranks (FSDP2); else every rank has all (DDP).
    gpu: dropout's masks take a byte there, and a float32 on the CPU. Not in it: what driver and allocator take.
    """
    if pictures is None:
        pictures = max(1, tokens // (shape.image_tokens + TEXT_TOKENS))
    rows = min(tokens if labels is None else labels, LOGIT_ROWS)
    learning, frozen = _weights(shape, section)
    pieces = ranks if sharded else 1
    half = section.precision == "bf16"
    gathered = 0.0
    if sharded and ranks > 1:  # two layers, the embedding and the head are whole at a time
        whole = 2 * shape.text.weights_of_layer + 2 * shape.text.width * shape.vocabulary
        gathered = whole * (BF16 if half else FP32)
    elif ranks > 1:
        gathered = FP32 * learning  # the buckets in which gradients are averaged
    if half:
        gathered += BF16 * learning / pieces  # autocast's copies of what learns
    kept, layer = _language_model(shape, section, tokens, checkpointing, gpu)
    logits = rows * shape.vocabulary * (3 * FP32 + (2 * BF16 if half else 0))
    seen, tower = _tower(shape, section, pictures, checkpointing)
    return Bytes(
        weights=(FP32 * learning + frozen) / pieces,
        gradients=FP32 * learning / pieces,
        moments=2 * FP32 * learning / pieces,
        activations=kept + seen,
        work=max(layer, logits, tower - kept),
        gathered=gathered,
    )


def _weights(shape: Shape, section: StageSection) -> tuple[float, float]:
    """(weights that learn, bytes of those that do not)."""
    size: float = BF16 if section.precision == "bf16" else FP32
    learning, frozen = 0.0, 0.0
    parts = (
        (section.vision_tower == "train", shape.tower_parameters),
        (section.projector == "train", shape.projector_parameters),
        (section.language_model == "full", shape.language_model_parameters),
    )
    for learns, count in parts:
        learning += count if learns else 0
        frozen += 0 if learns else count * size
    if section.language_model == "lora":
        learning += section.lora.r * shape.text.adapter_sides
        if section.lora.quantise:
            layers = shape.text.layers * shape.text.weights_of_layer
            frozen -= layers * (size - QUANTISED[section.lora.quantise])
    return learning, frozen


def _language_model(
    shape: Shape, section: StageSection, tokens: int, checkpointing: str, gpu: bool
) -> tuple[float, float]:
    """Bytes that its layers keep for the backward pass, and those of the layer at work."""
    text, lora = shape.text, section.language_model == "lora"
    size = BF16 if section.precision == "bf16" else FP32
    stream = size if section.language_model != "full" else FP32
    layer = _layer(text, section, gpu)
    work = size * (text.width + 2 * text.inner)  # gradients of the layer at work
    ends = 3 * stream * text.width  # embeddings, with pictures put in, and the last norm
    if checkpointing == "off":
        return tokens * (text.layers * layer + ends), tokens * work
    kept: float = stream * text.width
    if checkpointing == "selective":
        kept += size * (sum(outputs for _, outputs in text.linears) + text.queries) + FP32 * text.heads
        kept += size * (section.lora.r * len(text.linears) if lora else -text.width)
    return tokens * (text.layers * kept + ends), tokens * (layer + work)


def _layer(stack: Stack, section: StageSection, gpu: bool) -> float:
    """Bytes per token that autograd keeps of one layer without checkpointing (eager transformers, one by one)."""
    way, family, half = section.language_model, stack.family, section.precision == "bf16"
    size = BF16 if half else FP32
    full = way == "full"
    norms = FP32 * family.norms * stack.width * (2 if full else 1)
    if family.head_norms:
        norms += FP32 * (stack.queries + stack.keys) * (2 if full else 1)
    attention = size * (2 * stack.queries + 2 * stack.keys) + FP32 * stack.heads
    mlp = size * family.activation * stack.inner
    inputs = [inputs for inputs, _ in stack.linears]
    linears = 0.0
    if full:  # their inputs, for the gradients of weights; bf16: a copy for each, cast by itself
        linears = size * (sum(inputs) if half else family.norms * stack.width + stack.queries + stack.inner)
    elif way == "lora":
        mask = (1 if gpu else FP32) if section.lora.dropout else 0
        linears = (size + mask) * sum(inputs) + size * section.lora.r * len(inputs)
    return norms + attention + mlp + linears


def _tower(shape: Shape, section: StageSection, pictures: int, checkpointing: str) -> tuple[float, float]:
    """Bytes that tower and projector keep of a pass's pictures, and those of the tower at work.

    A frozen tower still holds all its hidden states until it returns. S2: one scale's squares are seen together.
    """
    size = BF16 if section.precision == "bf16" else FP32
    learns = section.vision_tower == "train"
    kept: float = FP32 * 3 * shape.side**2 * pictures
    if learns or section.projector == "train":
        kept += size * pictures * shape.image_tokens * sum(inputs + outputs for inputs, outputs in shape.projector)
    if section.feature_cache:
        return kept, 0.0
    together, stack = pictures * max(shape.squares) * shape.patches, shape.vision
    if stack is None:
        return kept, together * 8 * WIDEST * size
    layer = _layer(stack, section.model_copy(update={"language_model": "full" if learns else "frozen"}), gpu=True)
    states = size * stack.width * (stack.layers + 1)
    if learns:
        return kept + together * (stack.layers * layer if checkpointing == "off" else states), together * layer
    return kept, together * (states + layer)


def bytes_to_run(shape: Shape) -> float:
    """Memory to answer about one picture in bfloat16: weights, keys and values of 2048 tokens, one layer at work."""
    text, vision = shape.text, shape.vision
    cache = 2 * text.layers * text.keys * CONTEXT * BF16
    work = CONTEXT * (8 * text.width + 3 * text.inner) * BF16
    if vision:
        work = max(work, shape.patches * max(shape.squares) * (8 * vision.width + 3 * vision.inner) * BF16)
    return float(shape.parameters * BF16 + cache + work + shape.vocabulary * FP32)


@lru_cache(maxsize=4)
def gemm_peak(precision: Literal["fp32", "bf16"] = "fp32", seconds: float = 1.0, cpu: bool = False) -> float:
    """FLOP/s of this machine's fastest large matrix product, measured: the denominator of MFU here."""
    import torch

    gpu = torch.accelerator.is_available() and not cpu
    device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for side in (4096, 8192) if gpu else (512, 1024):
        left = torch.randn(side, side, device=device, dtype=kind)
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds / 2:
            start = time.perf_counter()
            left @ left
            if gpu:
                torch.accelerator.synchronize()
            best = max(best, 2.0 * side**3 / (time.perf_counter() - start))
    return best
