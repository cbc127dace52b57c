"""`BunnyConfig`: transformers' Llava configuration plus what a Bunny adds (projector kind, S2 scales)."""

from __future__ import annotations

from transformers import AutoConfig, LlavaConfig


class BunnyConfig(LlavaConfig):  # type: ignore[misc]  # transformers is untyped
    """Vision tower, projector and language model of a Bunny.

    projector_type: `linear`, `mlpNx_gelu`, `spp_v1|v2|v3`, `minigpt`, `vanilla`, `identity` (names of the original).
    image_seq_length: tokens one picture takes, after the projector. The other fields are LlavaConfig's.
    """

    model_type = "bunny"

    projector_type: str = "mlp2x_gelu"


AutoConfig.register("bunny", BunnyConfig, exist_ok=True)
