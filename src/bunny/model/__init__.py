"""The model: vision tower ▸ projector ▸ language model, as an ordinary transformers model.

Each module here puts its classes into transformers' Auto registries when it is imported, as transformers expects of
code outside it. All of them are imported at once, after the modules of transformers that they extend: those import
each other in circles, and a class registered with a half-imported registry would be lost.
"""

from __future__ import annotations

import importlib
import logging

from bunny import AWAITED

REGISTERED = ("config", "efficientnet_lite", "eva_vision", "eva_image", "modeling", "processor", "attention")


def register() -> None:
    """Make transformers' Auto classes know Bunny, its processor, the demo's and EVA's tower, and packed attention."""
    for name in (*AWAITED, *(f"bunny.model.{name}" for name in REGISTERED)):
        importlib.import_module(name)


def quiet() -> None:
    """Turn the libraries' chatter and bars off: what goes wrong in a load is raised, and long work has bars of ours."""
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()


logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)  # peft imports it, and it tells what it could not find
register()
