"""`BunnyConfig`: transformers' Llava configuration plus what a Bunny adds (projector kind, S2 scales)."""

from __future__ import annotations

from transformers import AutoConfig, LlavaConfig


class BunnyConfig(LlavaConfig):  # type: ignore[misc]  # transformers is untyped
    """Vision tower, projector and language model of a Bunny.

    projector_type: `linear`, `mlpNx_gelu`, `spp_v1|v2|v3`, `ldp`, `minigpt`, `vanilla`, `identity` (the original's
    names). s2_scales: side lengths in pixels of S2 multi-scale features, smallest first; empty: the tower's own size.
    words: ids the tokenizer can write; logits of rows beyond them are closed when answering (0: all rows are words).
    head_rows: rows the language model came with; the training loss knows no others (0: all rows).
    image_seq_length: tokens one picture takes, after the projector. The other fields are LlavaConfig's.
    """

    model_type = "bunny"

    projector_type: str = "mlp2x_gelu"
    s2_scales: tuple[int, ...] | list[int] = ()
    words: int = 0
    head_rows: int = 0

    @property
    def feature_width(self) -> int:
        """Channels that go into the projector."""
        return int(self.vision_config.hidden_size) * max(1, len(self.s2_scales))


AutoConfig.register("bunny", BunnyConfig, exist_ok=True)
