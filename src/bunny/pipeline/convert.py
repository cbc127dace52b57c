"""Models of the original Bunny in, and out again.

In: a folder of one layout. Out: a folder of the other, and what was done.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")


def import_model(
    folder: Path, out: Path, base: str | None = None, vision_tower: str | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """A folder that the original Bunny wrote, as a folder of this Bunny. Raises UserError; see `model.importing`."""
    from bunny.model.importing import import_original
    from bunny.text.template import Template

    def template_of(name: str) -> tuple[dict[str, Any], str]:
        template = Template.named(name)
        return template.model_dump(), template.jinja()

    imported = import_original(folder, out, template_of, base, vision_tower, dtype_named(dtype))
    return {"folder": str(folder), "out": str(out), **asdict(imported)}


def export_model(
    folder: Path, out: Path, to: str, vision_tower: str | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """A folder of this Bunny in another layout: `original` is what BAAI-DCAI/Bunny loads. Raises UserError."""
    from bunny.model.exporting import export_original

    if to != "original":
        raise UserError(f"--to {to}: no such layout", fix="choose from original")
    return export_original(folder, out, vision_tower, dtype_named(dtype))


def dtype_named(name: str | None) -> Any:
    """torch's dtype of that name, None for None. Raises UserError."""
    import torch

    if name is None:
        return None
    if name not in DTYPES:
        raise UserError(f"--dtype {name}: not a kind of number for weights", fix=f"choose from {', '.join(DTYPES)}")
    return getattr(torch, name)
