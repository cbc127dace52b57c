"""`bunny data`: the published data sets of Bunny: which there are, what is missing, Bunny-695K from its sources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import show
from bunny.cli.guard import FAILED, guarded

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The published data sets: list, check, make.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Folder with pretrain/ and finetune/; default $BUNNY_DATA, else data.")
]


@data_app.command("list")
@guarded
def list_sets(json: Json = False) -> None:
    """The published data sets.

    \b
    bunny data list
    """
    from bunny.pipeline import datasets

    sets = datasets.table()
    if json:
        return show.as_json(sets)
    rows = [(one["name"], _about(one), f"{one['pictures'] or 'unknown'}", one["hub"]) for one in sets]
    show.table(("name", "rows", "pictures", "hub data set"), rows)
    return typer.echo(f"\nTry next: {show.command()} data check bunny-695k --root data")


@data_app.command("check")
@guarded
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `bunny data list`.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """What is missing of a data set here.

    Counts rows, looks up every picture they name, and says what to download.
    Exit code 1 if something is missing.

    \b
    bunny data check bunny-695k
    bunny data check bunny-llava-1.4m --root /big/disk/bunny --json
    """
    _start_log()
    from bunny.pipeline import datasets

    report = datasets.check(name, root)
    if json:
        show.as_json(report)
    else:
        _show(report)
    if not report["complete"]:
        raise typer.Exit(FAILED)


@data_app.command("make-695k")
@guarded
def make_695k(
    svit: Annotated[Path, typer.Option("--svit", metavar="FILE", help="SVIT-mix-665K (LLaVA JSON).")],
    wizard: Annotated[Path, typer.Option("--wizard", metavar="FILE", help="WizardLM-evol-instruct-70K (JSON).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    json: Json = False,
) -> None:
    """Bunny-695K from its two sources.

    SVIT-mix-665K without its rows without a picture, then WizardLM's rows.

    \b
    bunny data make-695k --svit SVIT_mix_665K.json --wizard alpaca_evol_instruct_70k.json \\
        -o data/finetune/bunny_695k.json
    """
    _start_log()
    from bunny.pipeline import datasets

    made = datasets.make_695k(svit, wizard, output)
    if json:
        return show.as_json(made)
    show.facts({key: value for key, value in made.items() if value})
    return typer.echo(f"\nTry next: {show.command()} data check bunny-695k --root {output.parent.parent}")


def _show(report: Mapping[str, Any]) -> None:
    """The report as tables, what to do last."""
    typer.echo(f"{report['title']} in {report['root']}{', from its parts' if report['from_parts'] else ''}")
    rows = [(file["path"], _count(file["rows"]), file["expected"], _bytes(file["bytes"])) for file in report["files"]]
    show.table(("file", "rows", "expected", "size"), rows)
    if report["folders"]:
        typer.echo("")
        header = ("folder", "pictures", "missing", "empty", "for example")
        lines = [
            (one["folder"], _count(one["named"]), _count(one["missing"]), _count(one["empty"]), _first(one["first"]))
            for one in report["folders"]
        ]
        show.table(header, lines)
    typer.echo("")
    for key in ("rows_without_picture", "repeated_ids"):
        typer.echo(f"{key.replace('_', ' ')}: {report[key]:,}")
    typer.echo(f"on disk: {_bytes(report['bytes'])}")
    for line in report["to_do"]:
        typer.echo(f"- {line}")
    if report["complete"]:
        typer.echo(f"\nall is there. Try next, in a recipe: {{use: published, name: {report['name']}}}")
    else:
        typer.echo(f"\nTry next: the lines above, then bunny data check {report['name']} --root {report['root']}")


def _about(one: Mapping[str, Any]) -> str:
    return f"{one['rows']}" if one["exact"] else f"~{one['rows']}"


def _count(value: int | None) -> str:
    return "missing" if value is None else f"{value}"


def _first(names: list[str]) -> str:
    return ", ".join(names)


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _start_log() -> None:
    from bunny.core.log import set_up

    set_up(os.environ.get("BUNNY_LOG", "INFO"))
