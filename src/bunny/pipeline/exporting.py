"""A model goes out in another layout, is compared with itself, and perhaps to the Hub.

In: a model folder and a layout. Out: a folder, and what was done. With `verify` the folder bears `-unverified` in its
name until both sides have agreed; if they do not, it keeps that name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.pipeline.convert import dtype_named, export_model

UNVERIFIED = "-unverified"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an export was asked for beyond its layout. base, vision_tower: folders or hub names of the released parts.

    kind: of numbers in a GGUF file. verify: compare both sides before it is called done.
    """

    dtype: str | None = None
    vision_tower: str | None = None
    base: str | None = None
    kind: str | None = None
    verify: bool = False


def export(folder: Path, out: Path, to: str, wishes: Wishes) -> dict[str, Any]:
    """Write the model to `out` in the layout `to`; the facts say what was written and whether it agrees.

    Raises UserError for what the layout cannot express; then, and after any failure, nothing is left at `out`.
    """
    from bunny.model.importing import check_out

    if to not in LAYOUTS:
        raise UserError(f"--to {to}: no such layout", fix=nearest(to, LAYOUTS))
    for option, layouts in ONLY_FOR.items():
        if getattr(wishes, option) and to not in layouts:
            words = option.replace("_", "-").replace("kind", "type")
            raise UserError(f"--{words} has no meaning for --to {to}", fix=f"it goes with {', '.join(layouts)}")
    check_out(out, folder)
    if not wishes.verify:
        return {"folder": str(folder), "out": str(out), "to": to, **LAYOUTS[to](folder, out, wishes)}
    beside = out.with_name(out.name + UNVERIFIED)
    shutil.rmtree(beside, ignore_errors=True)
    facts = {"folder": str(folder), "out": str(out), "to": to, **LAYOUTS[to](folder, beside, wishes)}
    return _settled(facts, beside, out)


def _settled(facts: dict[str, Any], beside: Path, out: Path) -> dict[str, Any]:
    """Give the folder its name if both sides agree."""
    from bunny.core.store import publish

    agreed = facts["agreement"]
    facts["verified"] = not agreed["failures"]
    if facts["verified"]:
        publish(beside, out)
    else:
        facts["out"] = str(beside)
        log.warning("%s: both sides do not agree; it is left as %s", out, beside)
    return facts


def _llava(folder: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    from bunny.export.llava import write_llava
    from bunny.export.opened import open_model
    from bunny.model.importing import published

    dtype = dtype_named(wishes.dtype)
    with published(out) as work:
        work.mkdir(parents=True)
        written = write_llava(open_model(folder), work, dtype)
    facts = asdict(written)
    if wishes.verify:
        from bunny.export.verifying import verify_llava

        facts["agreement"] = asdict(verify_llava(folder, out, dtype, bool(written.folded)))
    return facts


def _gguf(folder: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    from bunny.export.gguf_folder import write_gguf_folder
    from bunny.export.llama_engine import check_installed
    from bunny.export.opened import open_model
    from bunny.model.importing import published

    kind = wishes.kind or "f16"
    if wishes.verify:
        check_installed("--verify of GGUF files")
    with published(out) as work:
        work.mkdir(parents=True)
        files = write_gguf_folder(open_model(folder), work, kind)
    facts: dict[str, Any] = {**asdict(files), "kind": kind}
    if wishes.verify:
        from bunny.export.verifying_gguf import verify_gguf

        facts["agreement"] = asdict(verify_gguf(folder, out, files, kind))
    return facts


def _adapter(folder: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    from bunny.export.adapter import write_adapter
    from bunny.export.opened import open_model
    from bunny.model.importing import published

    if wishes.base is None:
        raise UserError("--to adapter needs the language model it goes with", fix="name its folder: --base FOLDER")
    opened = open_model(folder)
    with published(out) as work:
        return asdict(write_adapter(opened, wishes.base, work))


def _merged(folder: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    from bunny.pipeline.merging import merge

    return merge([folder], [1.0], out, wishes.dtype, wishes.base, wishes.vision_tower)


def _original(folder: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    return export_model(folder, out, "original", wishes.vision_tower, wishes.dtype)


Layout = Callable[[Path, Path, Wishes], dict[str, Any]]
LAYOUTS: dict[str, Layout] = {
    "llava": _llava,
    "gguf": _gguf,
    "adapter": _adapter,
    "merged": _merged,
    "original": _original,
}
ONLY_FOR = {
    "vision_tower": ("merged", "original"),
    "base": ("merged", "adapter"),
    "verify": ("llava", "gguf"),
    "kind": ("gguf",),
    "dtype": ("llava", "merged", "original"),
}
"""Option -> the layouts it has a meaning for."""
