"""The model: vision tower ▸ projector ▸ language model, as an ordinary transformers model.

Each module here puts its classes into transformers' Auto registries when it is imported, as transformers expects of
code outside it; a hook in `bunny/__init__.py` imports them as soon as a program imports those registries.
"""

from __future__ import annotations

import importlib

REGISTERED = ("config", "efficientnet_lite", "modeling", "processor", "attention")


def register() -> None:
    """Make transformers' Auto classes know Bunny, its processor, the demo's tower and packed attention."""
    for name in REGISTERED:
        importlib.import_module(f"bunny.model.{name}")
