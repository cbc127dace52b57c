"""EfficientNet-Lite as a vision tower: the `efficientnet_lite_pytorch` network behind transformers' interface.

In: (B, 3, H, W) pixels. Out: the last feature grid as (B, H/32 * W/32, 1280) tokens. It is the embedded default's
tower: real ImageNet weights in an ordinary Python package. Batch norms always use their stored statistics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

STRIDE = 32


class EfficientNetLiteConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped
    """variant: the package's model name. image_size: pixels. hidden_size: channels of the feature grid."""

    model_type = "efficientnet_lite"

    variant: str = "efficientnet-lite0"
    image_size: int = 224
    patch_size: int = STRIDE
    hidden_size: int = 1280


class EfficientNetLiteModel(PreTrainedModel):  # type: ignore[misc]
    """The network without its classifier."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"
    base_model_prefix = "network"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # there is no attention to object

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name(config.variant, image_size=config.image_size)
        self.network._fc = torch.nn.Identity()
        self.post_init()

    def train(self, mode: bool = True) -> EfficientNetLiteModel:
        """Never leaves evaluation mode: drop-connect and batch statistics would change a frozen tower's features."""
        return super().train(False)  # type: ignore[no-any-return]

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        grid = self.network.extract_features(pixel_values)  # (B, C, rows, columns)
        tokens = grid.flatten(2).transpose(1, 2)  # (B, rows * columns, C)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens, pooler_output=tokens.mean(1), hidden_states=(tokens,)
        )

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The package initialises its own layers."""


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
