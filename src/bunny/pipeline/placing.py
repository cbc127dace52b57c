"""Where a model computes, and in which precision: what the user says, else what suits the machine and the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest

DTYPES = ("float32", "bfloat16", "float16")


def place(path: Path, device: str = "", dtype: str = "") -> tuple[Any, str]:
    """(device, name of the type) to compute with; of several processes each has an accelerator of its own.

    device: as torch names it, e.g. `cuda:1`; default: the accelerator, else processors. dtype: default: the folder's
    on accelerators, float32 on processors. Raises UserError for what this machine has not got.
    """
    chosen = _named(device) if device else _default()
    if dtype and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}", fix=nearest(dtype, DTYPES))
    if dtype or chosen.type == "cpu":
        return chosen, dtype or "float32"
    known = fields(path)
    return chosen, str(known.get("dtype") or known.get("torch_dtype") or "float32")


def fields(path: Path) -> dict[str, Any]:
    """The model's config.json; empty if there is none, which the loader explains."""
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: config.json cannot be read ({error})", fix="write or copy the model again") from None
    return found if isinstance(found, dict) else {}


def is_bunny(path: Path) -> bool:
    """Whether a folder is for our loader: a Bunny's, the original's, or none that says what it is."""
    kind = str(fields(path).get("model_type", ""))
    return kind == "" or "bunny" in kind


def _default() -> Any:
    import torch

    if not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


def _named(name: str) -> Any:
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    more = [f"{accelerator.type}:{number}" for number in range(torch.accelerator.device_count())] if accelerator else []
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or f"{device.type}:{device.index or 0}" not in ["cpu:0", *more]:
        raise UserError(f"--device {name}: no such device here", fix=f"this machine has {', '.join(['cpu', *more])}")
    return device
