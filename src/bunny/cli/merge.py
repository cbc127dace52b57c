"""`bunny merge`: the words of the command, and what it says at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import show
from bunny.cli.guard import guarded
from bunny.core.errors import UserError, nearest

DTYPES = ("float32", "bfloat16", "float16")


@guarded
def merge(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="Model folders of one architecture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the merged model.")],
    weights: Annotated[
        list[str] | None, typer.Option("--weight", "-w", metavar="W,W,…", help="One per model; default: equal shares.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; default: the widest of the inputs.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="The language model that LoRA folders go with.")
    ] = None,
    vision_tower: Annotated[
        str | None, typer.Option("--vision-tower", metavar="MODEL", help="The vision tower that LoRA folders go with.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")] = False,
) -> None:
    """Average models into one.

    Every tensor becomes the weighted sum of theirs. They are streamed, so models of
    any size need less than one gigabyte of memory. Config, tokenizer and processor
    are those of the last model.

    \b
    bunny merge runs/a/model runs/b/model -w 0.3,0.7 -o merged --dtype bfloat16
    bunny merge runs/a/model runs/b/model -o merged
    bunny merge bunny-lora-r1 bunny-lora-r2 -w 0.5 -w 0.5 --base phi-2 -o merged
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: no such kind of number", fix=nearest(dtype, DTYPES))
    from bunny.core.log import set_up
    from bunny.pipeline import merging

    set_up(os.environ.get("BUNNY_LOG", "INFO"))
    record = merging.merge(models, _numbers(weights, len(models)), output, dtype, base, vision_tower)
    if json:
        return show.as_json({**record, "model": str(output)})
    return _say(record, output)


def _numbers(words: Sequence[str] | None, models: int) -> list[float]:
    """The weights: `-w 0.3,0.7` and `-w 0.3 -w 0.7` mean the same; equal shares without them."""
    if not words:
        return [1 / models] * models
    try:
        return [float(word) for group in words for word in group.split(",") if word.strip()]
    except ValueError:
        raise UserError(f"weights {' '.join(words)}: not numbers", fix="e.g. -w 0.3,0.7") from None


def _say(record: Mapping[str, Any], output: Path) -> None:
    for path, weight in zip(record["inputs"], record["weights"], strict=True):
        typer.echo(f"{weight:<8g} {path}")
    typer.echo(f"{'model':<8} {output}" + (f" ({record['dtype']})" if record["dtype"] else ""))
    kind = str(record["model_type"])
    if kind == "bunny":
        typer.echo(f'\nTry next: {show.command()} chat {output} PICTURE "What is this?"')
    elif kind.startswith("bunny-"):  # the original's layout
        typer.echo(f"\nTry next: {show.command()} import {output} -o {output}-bunny")
