"""`bunny study`: cross selections, shares, seeds and sizes, and say what can be trusted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bunny.cli import show
from bunny.cli.guard import guarded

RUN = "run"


class RunFirst(TyperGroup):
    """A group whose first word may also be a study's file: `bunny study STUDY` is `bunny study run STUDY`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The named subcommand, or `run`."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else [RUN, *args])


study_app = typer.Typer(
    cls=RunFirst,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help=(
        "Does better data beat more data? Train on many selections under one budget, and compare.\n\n"
        "\b\n"
        "bunny study plan recipes/studies/natural.yaml\n"
        "bunny study recipes/studies/natural.yaml\n"
        "bunny study report recipes/studies/natural.yaml\n"
    ),
)

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="A study's file (YAML).")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Study folder; default runs/NAME.")]
Cells = Annotated[
    str, typer.Option("--cells", metavar="PATTERN", help="Only these, e.g. 'random.*,all.*' or '*.s0.*'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]


@study_app.command(RUN)
@guarded
def run(study: StudyPath, output: Output = None, cells: Cells = "*", json: Json = False) -> None:
    """Make all cells that are not there, then the report.

    Stopped and started again, it goes on. Started twice or more, on one machine
    or several that see the same folder, the processes share the cells.

    \b
    bunny study recipes/studies/natural.yaml
    bunny study recipes/studies/natural.yaml --cells '*.s0.*'
    """
    _start_log()
    from bunny.study.run import run as run_study

    content = run_study(study, output, cells)
    return show.as_json(content) if json else _say(content)


@study_app.command("plan")
@guarded
def plan(study: StudyPath, output: Output = None, cells: Cells = "*", json: Json = False) -> None:
    """Hours and disk, before anything is done.

    Times two training steps and some answers on this machine.

    \b
    bunny study plan recipes/studies/natural.yaml
    """
    _start_log("WARNING")
    from bunny.study.planning import plan as plan_study

    content = plan_study(study, output, cells)
    if json:
        return show.as_json(content)
    states = Counter(content["cells"].values())
    typer.echo(f"cells    {', '.join(f'{count} {state}' for state, count in states.items())}")
    typer.echo(f"asked    {content['questions']} questions in each")
    hours = content["hours"]
    typer.echo(
        f"hours    {sum(hours.values()):.1f}: " + ", ".join(f"{name} {spent:.2f}" for name, spent in hours.items())
    )
    if rates := content["measured"]:
        typer.echo(f"measured {rates['step']:.2f} s a step, {1000 * rates['question']:.0f} ms a question")
    disk = content["disk_gb"]
    return typer.echo(
        f"disk     {sum(disk.values()):.1f} GB: " + ", ".join(f"{k} {size:.2f}" for k, size in disk.items())
    )


@study_app.command("report")
@guarded
def report(study: StudyPath, output: Output = None, json: Json = False) -> None:
    """The report of the cells that are there.

    \b
    bunny study report recipes/studies/natural.yaml
    """
    _start_log()
    from bunny.study.recipe import Study
    from bunny.study.report import report as write_report

    content = write_report(study, output or Path("runs") / Study.load(study).name)
    return show.as_json(content) if json else _say(content)


def _say(content: dict[str, Any]) -> None:
    for line in content["conclusion"]:
        typer.echo(line)
    busy = [name for name, state in content.get("states", {}).items() if state == "in work"]
    typer.echo(
        f"\ncells    {content['finished']} of {content['cells']} finished"
        + (f", {len(busy)} in work elsewhere" * bool(busy))
    )
    typer.echo(f"report   {content['report']}")


def _start_log(level: str = "INFO") -> None:
    from bunny.core.log import set_up

    set_up(os.environ.get("BUNNY_LOG", level))
