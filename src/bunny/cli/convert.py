"""`bunny import`: models of the original Bunny in. Their way out: `cli/export.py`.

In: a folder of the original's. Out: a folder of ours, with one line for what was done and one for what to do next.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import show
from bunny.cli.guard import guarded

Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write; new or empty.")]
Tower = Annotated[
    str | None,
    typer.Option("--vision-tower", metavar="TOWER", help="Folder, EVA .pt file or hub name of the vision tower."),
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; default: as stored.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@guarded
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that the original Bunny wrote.")],
    output: Out,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help="Folder or hub name of the language model (LoRA, projector)."),
    ] = None,
    vision_tower: Tower = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Take over a model of the original Bunny.

    Reads whole checkpoints, LoRA folders (with their base), projector-only
    folders, S2 and EVA models; no remote code is run. Every tensor is
    accounted for. Paths that its config names and that do not exist here
    are replaced with --base and --vision-tower.

    \b
    bunny import bunny-phi-2-siglip -o runs/bunny-3b
    bunny import bunny-lora-phi-2 --base microsoft/phi-2 -o runs/bunny-3b --dtype bfloat16
    bunny import bunny-pretrain --base models/phi-2 --vision-tower models/siglip -o runs/aligned
    """
    start()
    from bunny.pipeline.convert import import_model

    facts = import_model(folder, output, base, vision_tower, dtype)
    if json:
        show.as_json(facts)
        return
    tell(facts, {"taken over": f"{facts['tensors']} tensors ({facts['kind']} checkpoint, {facts['dtype']})"})
    typer.echo(f'\nTry next: {show.command()} chat {output} PICTURE "What is in the picture?"')


def start() -> None:
    """Words for people go to standard error."""
    from bunny.core.log import set_up

    set_up(os.environ.get("BUNNY_LOG", "INFO"))


def tell(facts: dict[str, Any], more: dict[str, str]) -> None:
    """What was done and where it is."""
    if left_out := facts.get("left_out"):
        more["left out"] = f"{len(left_out)} tensors that no picture token depends on, e.g. {left_out[0]}"
    show.facts({**more, "model": facts["out"]})
