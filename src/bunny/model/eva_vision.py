"""EVA02-CLIP as a vision tower, behind transformers' interface; `eva.py` reads the file that it was released as.

In: (B, 3, H, W) pixels. Out: hidden states (B, 1 + patches, width), class token first, then the patches row by row.
Pre-norm blocks with a norm inside attention and inside the SwiGLU, learnt positions, and rotary ones for the patches.
Paper: Fang et al., "EVA-02: A Visual Representation for Neon Genesis" (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import capture_outputs

THETA = 10000.0  # base of the rotary frequencies


class EvaVisionConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped
    """Geometry of the tower; the defaults are those of EVA02-CLIP-L/14-336, whole.

    image_size, patch_size: pixels. rope_grid: patches per side that the rotary positions were made for; those of
    another grid are interpolated to span the same range (`pt_hw_seq_len` of the release). rope_dtype: the precision
    that the rotary tables were released in. They are computed, then rounded to it: the weights have learnt with that.
    """

    model_type = "eva02_vision"

    hidden_size: int = 1024
    intermediate_size: int = 2730
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 336
    patch_size: int = 14
    rope_grid: int = 16
    rope_dtype: str = "float16"
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02


def rotary_tables(side: int, rope_grid: int, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the patches' angles, (side * side, head_width) each, float32 rounded to `dtype`.

    The first half of a head turns with the row, the second with the column; neighbouring channels share an angle.
    """
    steps = torch.arange(side, dtype=torch.float32) / side * rope_grid
    powers = torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2)
    angles = torch.outer(steps, 1.0 / THETA**powers).repeat_interleave(2, dim=1)  # (side, head_width / 2)
    rows, columns = angles[:, None].expand(side, side, -1), angles[None].expand(side, side, -1)
    both = torch.cat([rows, columns], dim=2).flatten(0, 1)  # (side * side, head_width)
    return both.cos().to(dtype).float(), both.sin().to(dtype).float()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring channels as a pair. heads: (B, heads, T, d); cos, sin: (T, d). Same shape and dtype out."""
    turned = torch.stack([-heads[..., 1::2], heads[..., ::2]], dim=-1).flatten(-2)
    return (heads * cos + turned * sin).to(heads.dtype)


class EvaRotary(nn.Module):
    """The rotary tables, one for all blocks. They follow from the config, so they are never saved."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__()
        self.config = config
        cos, sin = self.tables()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def tables(self) -> tuple[Tensor, Tensor]:
        """(cos, sin), (1 + patches, head width) float32: the class token, which comes first, is not turned."""
        config = self.config
        side, head_width = config.image_size // config.patch_size, config.hidden_size // config.num_attention_heads
        cos, sin = rotary_tables(side, config.rope_grid, head_width, getattr(torch, config.rope_dtype))
        return nn.functional.pad(cos, (0, 0, 1, 0), value=1.0), nn.functional.pad(sin, (0, 0, 1, 0))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.cos, self.sin


def eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Attention spelt out: query, key, value (B, heads, T, d) -> (B, T, heads, d), weights (B, heads, T, T)."""
    weights = (query @ key.transpose(2, 3) * scaling).softmax(dim=-1)
    return (weights @ value).transpose(1, 2), weights


class EvaAttention(nn.Module):
    """Self-attention of all tokens; keys have no bias, and a norm stands before the output projection."""

    is_causal = False

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.head_width = width // config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.o_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        query, key, value = (
            project(hidden).unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, heads, T, head width)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed, weights = attend(self, query, key, value, None, scaling=self.head_width**-0.5, dropout=0.0, **kwargs)
        return self.o_proj(self.norm(mixed.flatten(2))), weights


class EvaMLP(nn.Module):
    """SwiGLU with a norm before the last layer."""

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.norm = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        gate = nn.functional.silu(self.gate_proj(hidden))
        return self.down_proj(self.norm(gate * self.up_proj(hidden)))  # type: ignore[no-any-return]


class EvaLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """One pre-norm block."""

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = EvaAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = EvaMLP(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, **kwargs: Any) -> Tensor:
        hidden = hidden + self.attention(self.norm1(hidden), cos, sin, **kwargs)[0]
        return hidden + self.mlp(self.norm2(hidden))  # type: ignore[no-any-return]


class EvaEmbeddings(nn.Module):
    """Class token and patches, plus learnt positions."""

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embeddings = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, config.hidden_size))

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"pictures of {self.image_size} px are needed, not {tuple(pixel_values.shape[-2:])}")
        grid = self.patch_embeddings(pixel_values.to(self.patch_embeddings.weight.dtype))  # (B, C, rows, columns)
        patches = grid.flatten(2).transpose(1, 2)  # (B, rows * columns, C)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return tokens + self.position_embeddings  # type: ignore[no-any-return]


class EvaVisionModel(PreTrainedModel):  # type: ignore[misc]
    """The encoder without final norm and head. hidden_states: the embeddings, then the state after every block."""

    config_class = EvaVisionConfig
    base_model_prefix = "eva"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["EvaEmbeddings", "EvaLayer"]  # noqa: RUF012  # transformers reads a list
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": EvaLayer, "attentions": EvaAttention}  # noqa: RUF012
    _input_embed_layer = "patch_embeddings"

    def __init__(self, config: EvaVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = EvaEmbeddings(config)
        self.rotary = EvaRotary(config)
        self.layers = nn.ModuleList(EvaLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        hidden = self.embeddings(pixel_values)
        cos, sin = self.rotary()
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=hidden[:, 0])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EvaEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)
            init.normal_(module.position_embeddings, std=self.config.initializer_range)
        if isinstance(module, EvaRotary):
            for buffer, table in zip((module.cos, module.sin), module.tables(), strict=True):
                init.copy_(buffer, table)


AutoConfig.register("eva02_vision", EvaVisionConfig, exist_ok=True)
AutoModel.register(EvaVisionConfig, EvaVisionModel, exist_ok=True)
