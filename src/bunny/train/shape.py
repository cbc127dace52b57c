"""The sizes of a model that cost time and memory, read from its configuration: nothing is loaded, torch is not needed.

In: the fields of a language model's and a vision tower's config.json (or transformers' objects of them). Out: `Shape`:
layers, widths, linear layers, numbers of weights. What a family does otherwise than Llama is a row of `FAMILIES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between families of layers.

    gated: the MLP multiplies two linear layers (SwiGLU). fused: q, k, v are one linear layer, gate and up another.
    norms: as wide as the model, per layer. head_norms: queries and keys are normed, too. activation: tensors as wide as
    the MLP that stay for the backward pass between its linear layers. biases: the linear layers have them.
    """

    gated: bool = True
    fused: bool = False
    norms: int = 2
    head_norms: bool = False
    activation: int = 3
    biases: bool = False


FAMILIES: Mapping[str, Family] = {
    "phi": Family(gated=False, norms=1, activation=4, biases=True),
    "phi3": Family(fused=True),
    "gpt_neox": Family(gated=False, fused=True, activation=1, biases=True),
    "starcoder2": Family(gated=False, activation=1, biases=True),
    "gemma2": Family(norms=4),
    "gemma3_text": Family(norms=4, head_norms=True),
    "qwen3": Family(head_norms=True),
    "olmo2": Family(head_norms=True),
    "siglip_vision_model": Family(gated=False, activation=1, biases=True),
    "siglip2_vision_model": Family(gated=False, activation=1, biases=True),
    "clip_vision_model": Family(gated=False, activation=2, biases=True),
    "dinov2": Family(gated=False, activation=1, biases=True),
    "eva02_vision": Family(norms=4, biases=True),
}
"""By `model_type`; a type that is not here is taken for a Llama."""

CONVOLUTIONAL: Mapping[str, tuple[int, float]] = {"efficientnet_lite": (3_371_008, 15_300.0)}
"""Towers without transformer layers: weights, and FLOPs per pixel of a picture (counted on EfficientNet-Lite0)."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Equal transformer layers. width: of the stream; inner: of the MLP; queries, keys: heads times head size."""

    layers: int
    width: int
    inner: int
    heads: int
    queries: int
    keys: int
    family: Family

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's linear layers, in the order in which they run."""
        width, inner, family = self.width, self.inner, self.family
        if family.fused:
            first = [(width, self.queries + 2 * self.keys)]
        else:
            first = [(width, self.queries), (width, self.keys), (width, self.keys)]
        if family.gated:
            second = [(width, 2 * inner)] if family.fused else [(width, inner), (width, inner)]
        else:
            second = [(width, inner)]
        return [*first, (self.queries, width), *second, (inner, width)]

    @property
    def weights_of_layer(self) -> int:
        """Weights of one layer's linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def parameters(self) -> int:
        """All weights of the layers, biases and norms included."""
        biases = sum(outputs for _, outputs in self.linears) if self.family.biases else 0
        return self.layers * (self.weights_of_layer + biases + self.family.norms * self.width)

    @property
    def adapter_sides(self) -> int:
        """Inputs + outputs of all linear layers: LoRA of rank r has r times as many weights."""
        return self.layers * sum(inputs + outputs for inputs, outputs in self.linears)


@dataclass(frozen=True, slots=True)
class Shape:
    """A Bunny. text: the language model's layers. vision: the tower's; None for a convolutional one.

    patches: positions that the tower computes per square, class token included. squares: of each S2 scale, how many
    the tower sees. projector: its linear layers' (inputs, outputs), in order. image_tokens: that a picture takes.
    """

    text: Stack
    vocabulary: int
    tied: bool
    vision: Stack | None
    tower_flops: float  # of one square's forward pass
    patches: int
    squares: tuple[int, ...]
    projector: tuple[tuple[int, int], ...]
    image_tokens: int
    side: int
    language_model_parameters: int
    tower_parameters: int

    @property
    def projector_parameters(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in self.projector)

    @property
    def parameters(self) -> int:
        return self.language_model_parameters + self.tower_parameters + self.projector_parameters


def shape_of(config: Any) -> Shape:
    """Of a `BunnyConfig`."""
    return shape_from(
        config.text_config,
        config.vision_config,
        projector=config.projector_type,
        scales=tuple(config.s2_scales),
        image_tokens=config.image_seq_length,
    )


def shape_from(
    text: Any,
    vision: Any,
    *,
    projector: str = "mlp2x_gelu",
    scales: Sequence[int] = (),
    image_tokens: int | None = None,
    parameters: tuple[int, int] | None = None,
) -> Shape:
    """Of two configurations, as mappings or objects. parameters: (language model, tower), where they were counted.

    A tower whose counted weights hold fewer layers than its configuration says has been trimmed: the last block, which
    nobody reads, is not there.
    """
    words, width = int(_of(text, "vocab_size")), int(_of(text, "hidden_size"))
    layers = _stack(text)
    tied = bool(_of(text, "tie_word_embeddings", _of(text, "model_type") in ("gemma2", "gemma3_text", "minicpm")))
    tower = _stack(vision) if _of(vision, "num_hidden_layers") else None
    side, patch = int(_of(vision, "image_size")), int(_of(vision, "patch_size", 32))
    grid = (side // patch) ** 2
    if tower and parameters:
        fit = parameters[1] // tower.weights_of_layer
        tower = _with_layers(tower, min(tower.layers, fit))
    seen = grid + (0 if "siglip" in str(_of(vision, "model_type")) else 1)
    if tower:
        embedding = 3 * patch**2 * tower.width
        own = tower.parameters + embedding + seen * tower.width
        flops = 2.0 * grid * embedding + tower.layers * _layer_flops(tower, seen)
    else:
        own, per_pixel = CONVOLUTIONAL.get(str(_of(vision, "model_type")), (0, 0.0))
        seen, flops = grid, per_pixel * side**2
    inputs = int(_of(vision, "hidden_size")) * max(1, len(scales))
    return Shape(
        text=layers,
        vocabulary=words,
        tied=tied,
        vision=tower,
        tower_flops=flops,
        patches=seen,
        squares=tuple((scale // scales[0]) ** 2 for scale in scales) or (1,),
        projector=projector_linears(projector, inputs, width),
        image_tokens=image_tokens or tokens_out(projector, grid),
        side=scales[-1] if scales else side,
        language_model_parameters=parameters[0]
        if parameters
        else layers.parameters + words * width * (1 if tied else 2),
        tower_parameters=parameters[1] if parameters else own,
    )


def projector_linears(kind: str, inputs: int, outputs: int) -> tuple[tuple[int, int], ...]:
    """Linear layers of a projector: N for mlpNx, one for linear; two, the usual number, for any other kind."""
    found = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    layers = int(found.group(1)) if found else {"linear": 1, "identity": 0}.get(kind, 2)
    return tuple((inputs if number == 0 else outputs, outputs) for number in range(layers))


def tokens_out(kind: str, patches: int) -> int:
    """Tokens of a picture behind the projector: a quarter of the patches for those that pool."""
    return patches // 4 if kind.startswith("spp_") or kind in ("ldp", "minigpt", "vanilla") else patches


def _stack(config: Any) -> Stack:
    width, heads = int(_of(config, "hidden_size")), int(_of(config, "num_attention_heads"))
    size = int(_of(config, "head_dim") or width // heads)
    return Stack(
        layers=int(_of(config, "num_hidden_layers")),
        width=width,
        inner=int(_of(config, "intermediate_size") or width * _of(config, "mlp_ratio", 4)),
        heads=heads,
        queries=heads * size,
        keys=int(_of(config, "num_key_value_heads") or heads) * size,
        family=FAMILIES.get(str(_of(config, "model_type")), Family()),
    )


def _with_layers(stack: Stack, layers: int) -> Stack:
    return Stack(layers, stack.width, stack.inner, stack.heads, stack.queries, stack.keys, stack.family)


def _layer_flops(stack: Stack, positions: int) -> float:
    """Forward FLOPs of one layer in which every position sees all others."""
    return 2.0 * positions * stack.weights_of_layer + 4.0 * positions**2 * stack.queries


def _of(config: Any, name: str, default: Any = None) -> Any:
    value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    return default if value is None else value
