"""`bunny zoo`: the recipes that come with Bunny, as a table, or everything of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from bunny.cli import completing, show
from bunny.cli.guard import guarded

HEADER = ("name", "language model", "vision tower", "B")
SCORES = {"mme_p": "MME-P", "mmbench_test": "MMB", "mmmu_val": "MMMU", "pope": "POPE"}
MEMORY = {"run_gb": "run", "align_gb": "align", "lora_gb": "LoRA", "full_gb": "full", "download_gb": "download"}
LEGEND = (
    "B: billions of parameters. MMB: MMBench test; MMMU: val. run … full: estimated GB of GPU memory, to answer in "
    "bfloat16 and to train on one GPU, a row at a time. download: GB."
)


@guarded
def zoo(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A recipe, for everything about it.", autocompletion=completing.zoo),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """List the recipes that come with Bunny.

    The original's published models with their settings and scores, and newer backbones. A name goes wherever a RECIPE
    is asked for.

    \b
    bunny zoo
    bunny zoo bunny-v1.0-3b
    bunny train bunny-v1.0-3b --dry-run
    """
    from bunny.pipeline import zoo as zoo_

    if name is None:
        rows = zoo_.summaries()
        return show.as_json(rows) if json else _list(rows)
    content = zoo_.details(name)
    return show.as_json(content) if json else _one(content)


def _list(rows: Sequence[Mapping[str, Any]]) -> None:
    show.table((*HEADER, *SCORES.values(), *MEMORY.values()), [cells(row) for row in rows])
    typer.echo(f"\n{LEGEND}\nEverything of one: bunny zoo NAME")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table: its last path parts, figures with one decimal, a dash for what nobody published."""
    parts = [str(row[key]).rpartition("/")[2] for key in ("language_model", "vision_tower")]
    scores = ["-" if row["scores"][key] is None else f"{row['scores'][key]:.1f}" for key in SCORES]
    return [row["name"], *parts, f"{row['parameters'] / 1e9:.1f}", *scores, *(f"{row[key]:.1f}" for key in MEMORY)]


def _one(content: Mapping[str, Any]) -> None:
    """A recipe in full; what is empty is left out."""
    known = {key: value for key, value in content.items() if value not in ("", None, [], {})}
    downloads, sets, commands = known.pop("download"), known.pop("data"), known.pop("commands")
    known["parameters"] = f"{known['parameters'] / 1e9:.2f} billion"
    known["memory_gb (estimated: to run; to train on one GPU, a row at a time)"] = known.pop("memory_gb")
    show.facts(known)
    typer.echo("download:")
    for item in downloads:
        typer.echo(f"  {item['name']}: {item['gb']} GB, {item['licence']}; {item['from']}")
        if item["note"]:
            typer.echo(f"    {item['note']}")
    for item in sets:
        files = ", ".join(f"{path} {size}" for path, size in item["files"].items())
        typer.echo(f"  {item['name']}: {files}; {item['from']}\n    pictures: {item['pictures']}")
    typer.echo("commands:")
    for command in commands:
        typer.echo(f"  {command}")
