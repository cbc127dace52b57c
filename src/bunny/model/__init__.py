"""The model: vision tower ▸ projector ▸ language model, as an ordinary transformers model."""

from __future__ import annotations


def register() -> None:
    """Make transformers' Auto classes know Bunny, its processor, the demo's tower and packed attention."""
    from bunny.model import attention, config, efficientnet_lite, modeling, processor

    for part in (config, efficientnet_lite, modeling, processor, attention):
        part.register()
