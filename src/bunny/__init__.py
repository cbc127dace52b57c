"""Bunny: small vision-language models through better data.

`import bunny` is light (no torch). `bunny.load(PATH)` gives a model to chat with, `bunny.curate(FOLDER, …)` a coreset
of a folder of pairs; importing it also registers Bunny with transformers' Auto classes the moment transformers' own
registries are imported.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from bunny.pipeline.chat import Chat

__version__ = "0.1.0"


def load(path: str | Path) -> Chat:
    """A trained model, ready to chat: `bunny.load(PATH).chat([picture], question)`."""
    from bunny.pipeline.chat import Chat

    return Chat(path)


class _Curate(ModuleType):
    """The package `bunny.curate`, which can also be called: `bunny.curate(source, steps=…, output=…)`.

    A package may not import what stands above it, so the call is wired here, from outside."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        from bunny.pipeline.curating import curate

        return curate(*arguments, **settings)


def __getattr__(name: str) -> Any:
    if name == "curate":
        return importlib.import_module("bunny.curate")
    raise AttributeError(f"module `bunny` has no attribute `{name}`")


def _make_callable(module: Any) -> None:
    module.__class__ = _Curate


register_post_import_hook(_make_callable, "bunny.curate")


AWAITED = {
    "transformers.modeling_layers": "GenericForTokenClassification",
    "transformers.models.auto.modeling_auto": "AutoModelForImageTextToText",
    "transformers.models.auto.processing_auto": "AutoProcessor",
    "transformers.models.llava.configuration_llava": "LlavaConfig",
    "transformers.models.llava.modeling_llava": "LlavaForConditionalGeneration",
    "transformers.models.llava.processing_llava": "LlavaProcessor",
}
"""Modules that Bunny's classes are registered with or made from, each with a class it has when it is complete."""


def _register(module: Any) -> None:
    """Register Bunny unless one of those modules is half imported: when it is whole, its own hook comes back here."""
    if all(name not in sys.modules or hasattr(sys.modules[name], last) for name, last in AWAITED.items()):
        from bunny.model import register

        register()


for _name in AWAITED:
    register_post_import_hook(_register, _name)
