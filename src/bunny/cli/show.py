"""Prints results, plans and facts: a table for people, or one JSON document (`--json`) on standard output."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns set in line; the first one flush left, the others flush right if they hold figures."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    figures = [i > 0 and all(_is_figure(row[i]) for row in rows) for i in range(len(header))]
    for row in (header, *rows):
        cells = [
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(row, widths, figures, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def results(content: Mapping[str, Any], folder: Path, model_hint: bool = True) -> None:
    """The end of a run: scores with their intervals beside the baselines, minutes per stage, paths, what to try next.

    content: what `results.json` holds (`tasks`, `seconds`, `model`; `report` and `chat` where known).
    """
    tasks: Mapping[str, Any] = content.get("tasks", {})
    names = list(dict.fromkeys(name for task in tasks.values() for name in task.get("baselines", {})))
    if tasks:
        rows = [_task_row(name, task, names) for name, task in tasks.items()]
        table(("task", "score %", "95 % interval", "questions", *names), rows)
        typer.echo("")
    for said in content.get("chat", ()):
        typer.echo(f"{said['picture']}  {said['question']} -> {said['answer']}")
    if content.get("chat"):
        typer.echo("")
    seconds: Mapping[str, float] = content.get("seconds", {})
    if seconds:
        spent = ", ".join(f"{stage} {_duration(value)}" for stage, value in seconds.items())
        typer.echo(f"time     {spent}; {_duration(sum(seconds.values()))} in all")
    for name in ("report", "model"):
        if content.get(name):
            typer.echo(f"{name:<8} {content[name]}")
    typer.echo(f"figures  {folder / 'results.json'}")
    if content.get("model") and model_hint:
        first: Mapping[str, str] = next(iter(content.get("chat", ())), {})
        picture, question = first.get("picture", "PICTURE"), first.get("question", "What is this?")
        typer.echo(f'\nTry next: {command()} chat {content["model"]} {picture} "{question}"')


def plan(stages: Sequence[Mapping[str, Any]]) -> None:
    """What a run would do: one line per stage with its state, its settings below it."""
    for stage in stages:
        typer.echo(f"{stage['stage']:<10} {stage['state']}")
        for key, value in stage.get("settings", {}).items():
            text = json.dumps(value, ensure_ascii=False, default=str)
            typer.echo(f"  {key}: {text if len(text) <= 100 else text[:99] + '…'}")


def facts(content: Mapping[str, Any], indent: int = 0) -> None:
    """Nested facts, one per line."""
    for key, value in content.items():
        pad = "  " * indent
        if isinstance(value, Mapping):
            typer.echo(f"{pad}{key}:")
            facts(value, indent + 1)
        else:
            typer.echo(f"{pad}{key}: {value}")


def command() -> str:
    """How this program was started, so that the next command works as printed; `make` leaves `bunny` off the path."""
    if shutil.which("bunny") or Path(sys.argv[0]).name != "bunny":
        return "bunny"
    return os.path.relpath(sys.argv[0])


def _task_row(name: str, task: Mapping[str, Any], baselines: Sequence[str]) -> list[str]:
    others = [_score(task.get("baselines", {}).get(baseline)) for baseline in baselines]
    interval = f"{task['low']:.1f} to {task['high']:.1f}"
    return [name, _score(task["score"]), interval, str(task["n"]), *others]


def _score(value: Any) -> str:
    """A score, alone or with its interval, as the table shows it."""
    if isinstance(value, Mapping):
        value = value.get("score")
    return "-" if value is None else f"{float(value):.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _is_figure(word: str) -> bool:
    return word.replace(".", "", 1).lstrip("-").isdigit() or word == "-"
