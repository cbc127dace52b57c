"""Bunny: small vision-language models through better data.

`import bunny` is light (no torch). `bunny.load(PATH)` gives a model to chat with; importing it also registers Bunny
with transformers' Auto classes the moment transformers' own registries are imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from bunny.pipeline.chat import Chat

__version__ = "0.1.0"


def load(path: str | Path) -> Chat:
    """A trained model, ready to chat: `bunny.load(PATH).chat([picture], question)`."""
    from bunny.pipeline.chat import Chat

    return Chat(path)


def _register(module: Any) -> None:
    from bunny.model import register

    register()


register_post_import_hook(_register, "transformers.models.auto.processing_auto")
register_post_import_hook(_register, "transformers.models.auto.modeling_auto")
