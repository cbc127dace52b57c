"""Results for people: a terminal table, Markdown, one self-contained HTML page, and every answer as JSON lines.

In: one `Outcome` per benchmark, and a callable that makes thumbnails. Out: text and files. No network is needed to
look at the page: styles, charts and pictures are inside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.seeds import stream
from bunny.core.store import write_atomic
from bunny.core.types import ImageRef, Interval
from bunny.evaluate.published import beside
from bunny.evaluate.runner import Outcome
from bunny.evaluate.stats import Clusters, detectable

Thumbnail = Callable[[ImageRef], str]
"""A small picture as a `data:` address; may raise UserError or OSError for a picture that cannot be read."""

MARKS = {"better": "yes", "worse": "worse", "unsure": "no"}
RATES = ("unparsed", "guessed", "missing")
PUBLISHED = (
    "Published scores have no intervals and often another split, prompt or reading: for orientation only. "
    "§: measured by Bunny's authors, not by the model's."
)
TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(folder: Path, outcomes: Sequence[Outcome], thumbnail: Thumbnail | None = None) -> Path:
    """The path of `report.html`; beside it `report.md`, `tasks.json`, `answers/TASK[.BASELINE].jsonl`, `draws/TASK.npy`
    (what `compare` pairs), and `published.json` if a benchmark has published scores.

    thumbnail: shows some right and wrong answers with their pictures; without it there are none on the page.
    """
    (folder / "answers").mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        for ending, one in (("", outcome), *((f".{name}", other) for name, other in outcome.baselines.items())):
            write_atomic(folder / "answers" / f"{outcome.result.task}{ending}.jsonl", "\n".join(one.lines()) + "\n")
    (folder / "draws").mkdir(exist_ok=True)
    for outcome in outcomes:
        if outcome.result.draws is not None:
            np.save(folder / "draws" / f"{outcome.result.task}.npy", outcome.result.draws)
    if published := beside(outcomes):
        write_atomic(folder / "published.json", json.dumps(published.as_json(), indent=1) + "\n")
    write_atomic(folder / "tasks.json", json.dumps(as_json(outcomes), indent=1) + "\n")
    write_atomic(folder / "report.md", markdown(outcomes))
    write_atomic(folder / "report.html", html(outcomes, thumbnail))
    return folder / "report.html"


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Task name -> `Outcome.as_json()`: the `tasks` part of `results.json`."""
    return {outcome.result.task: outcome.as_json() for outcome in outcomes}


def table(outcomes: Sequence[Outcome]) -> Table:
    """Scores above their baselines, for a terminal of 80 columns (`rich.print`)."""
    grid = Table(title="Score in %, with 95 % intervals", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("task", "left"), ("who", "left"), ("score", "right"), ("model better by", "right")):
        grid.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # rich names the four words
    grid.add_column("sure?", no_wrap=True)
    for outcome in outcomes:
        result = outcome.result
        grid.add_section()
        grid.add_row(result.task, "model", f"[bold]{escape(show(result.headline))}", "", f"n = {result.n}")
        for name, gain in outcome.gains().items():
            grid.add_row("", name, escape(show(result.baselines[name])), escape(show(gain)), MARKS[_mark(gain)])
    return grid


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The same table, what the differences are worth in words, further scores, and how answers were read."""
    columns = _columns(outcomes)
    lines = ["Score in %, with 95 % interval.", "", "| task | " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    lines += [f"| {one.result.task} | " + " | ".join(_cells(one, columns)) + " |" for one in outcomes]
    for outcome in outcomes:
        result = outcome.result
        lines += ["", f"## {result.task}", ""]
        lines += [f"{result.n} questions about {result.clusters} pictures (or sets of them).", ""]
        lines += [f"- {sentence}" for sentence in verdicts(outcome)]
        lines += [f"- {name}: {show(value)}" for name, value in result.scores.items()]
        lines += [f"- {reading(outcome)}"]
        lines += [f"- {name} baseline: {other.answerer}" for name, other in outcome.baselines.items()]
    return "\n".join([*lines, *_published(outcomes)]) + "\n"


def verdicts(outcome: Outcome) -> list[str]:
    """One sentence per baseline: how far above or below it, and whether that can be trusted."""
    return [
        _verdict(name, gain, detectable(outcome.result, outcome.baselines[name].result))
        for name, gain in outcome.gains().items()
    ]


def reading(outcome: Outcome) -> str:
    """How many answers were read in which way; rates are over all questions."""
    n = outcome.result.n
    odd = {status: count for status, count in outcome.result.statuses.items() if count and status != "ok"}
    if not odd:
        return f"All {n} answers could be read."
    listed = ", ".join(f"{count} {status} ({100 * count / n:.1f} %)" for status, count in odd.items())
    return f"Of {n} answers, {listed}; the others could be read."


def rates(outcome: Outcome) -> dict[str, float]:
    """Of all questions, in %: answers that could not be read, that were drawn at random, and that never came."""
    counts = outcome.result.statuses
    kinds = {"unparsed": ("empty", "malformed"), "guessed": ("guessed",), "missing": ("missing", "error")}
    return {
        name: 100 * sum(counts.get(status, 0) for status in statuses) / outcome.result.n
        for name, statuses in kinds.items()
    }


def show(value: Interval) -> str:
    """`62.4 [58.1, 66.5]`."""
    return f"{value.score:.1f} [{value.low:.1f}, {value.high:.1f}]"


def html(outcomes: Sequence[Outcome], thumbnail: Thumbnail | None = None, examples: int = 8) -> str:
    """The page. examples: how many right and how many wrong answers of each task are shown, at most."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        columns=_columns(outcomes),
        published=beside(outcomes),
        tasks=[_task(outcome, _columns(outcomes), thumbnail, examples) for outcome in outcomes],
    )


def _columns(outcomes: Sequence[Outcome]) -> list[str]:
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.baselines)
    return ["model", *names, "n", *RATES]


def _cells(outcome: Outcome, columns: Sequence[str]) -> list[str]:
    values = {"model": outcome.result.headline, **outcome.result.baselines}
    return [show(values[name]) if name in values else "–" for name in columns[: columns.index("n")]] + [
        str(outcome.result.n),
        *(f"{rate:.1f} %" for rate in rates(outcome).values()),
    ]


def _published(outcomes: Sequence[Outcome]) -> list[str]:
    """Ours beside the published models, as Markdown; nothing if no benchmark has published scores."""
    found = beside(outcomes)
    if found is None:
        return []
    lines = ["", "## Beside published models", "", PUBLISHED, ""]
    lines += ["| model | " + " | ".join(column.label for column in found.columns) + " |"]
    lines += ["|---|" + "---:|" * len(found.columns)]
    lines += [f"| {name} | " + " | ".join(cell or "–" for cell in cells) + " |" for name, _, cells in found.rows]
    lines += ["", *(f"- {column.label}: {column.note}" for column in found.columns if column.note)]
    return lines + [f"- source: {source.what}, {source.where}" for source in found.sources]


def _verdict(name: str, gain: Interval, reach: float) -> str:
    way = "above" if gain.score >= 0 else "below"
    interval = f"95 % interval of the difference {gain.low:+.1f} to {gain.high:+.1f}"
    measured = f"{abs(gain.score):.1f} points {way} {name} ({interval})"
    if gain.low > 0 or gain.high < 0:
        return f"{measured}: the difference can be trusted."
    if 0 < reach < float("inf"):
        found = f"{reach:.1f} points in four of five cases"
        return f"{measured}: this could be chance; so many questions find a true difference of {found}."
    return f"{measured}: the difference could be chance."


def _mark(gain: Interval) -> str:
    """Surely better, surely worse, or neither: the sign before the sentence."""
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "unsure"


def _task(outcome: Outcome, columns: Sequence[str], thumbnail: Thumbnail | None, examples: int) -> dict[str, Any]:
    """What the template shows of one benchmark."""
    result = outcome.result
    bars = {"model": result.headline, **result.baselines}
    worst, right, wrong = _examples(outcome, thumbnail, examples) if thumbnail else ([], [], [])
    return {
        "name": result.task,
        "answerer": outcome.answerer,
        "n": result.n,
        "clusters": result.clusters,
        "cells": _cells(outcome, columns),
        "verdicts": list(zip(map(_mark, outcome.gains().values()), verdicts(outcome), strict=True)),
        "bars": [{"name": name, "text": show(value), "value": value} for name, value in bars.items()],
        "scores": [(name, show(value)) for name, value in result.scores.items()],
        "reading": reading(outcome),
        "baselines": [(name, other.answerer) for name, other in outcome.baselines.items()],
        "right": right,
        "wrong": wrong,
        "worst": worst,
    }


def _worst(outcome: Outcome, count: int) -> list[int]:
    """Rows of the worst questions, each about another picture: nothing right about them, most baselines are right on
    them, and least is right about their picture. Only where a baseline is better than the model: none, then nothing.
    """
    points = outcome.result.points
    others = [other.result.points for other in outcome.baselines.values() if other.result.points is not None]
    if points is None or not others:
        return []
    better = np.sum([other > points for other in others], axis=0)  # (N,)
    groups = [question.group or question.id for question in outcome.questions]
    lost = Clusters(groups).sums(1 - points)[Clusters(groups).index]  # (N,)
    order = np.lexsort((np.arange(len(points)), -lost, -better, points)).tolist()
    first: dict[str, int] = {}
    for row in order:
        if better[row]:
            first.setdefault(groups[row], row)
    return list(first.values())[:count]


def _examples(outcome: Outcome, thumbnail: Thumbnail, count: int) -> tuple[list[Any], list[Any], list[Any]]:
    """The worst questions; then right and wrong answers drawn at random with a fixed seed, each about another picture
    where possible."""
    points = outcome.result.points
    if points is None:
        return [], [], []
    worst = _worst(outcome, count)
    order = stream("evaluate.examples", 0).permutation(len(points)).tolist()
    chosen: tuple[list[int], list[int]] = ([], [])
    shown = {outcome.questions[row].group for row in worst}
    for fresh_only in (True, False):
        for row in order:
            pile = chosen[0] if points[row] >= 1 else chosen[1]
            group = outcome.questions[row].group
            if len(pile) < count and row not in (*pile, *worst) and not (fresh_only and group in shown):
                pile.append(row)
                shown.add(group)
    bad, right, wrong = ([_example(outcome, row, thumbnail) for row in pile] for pile in (worst, *chosen))
    return bad, right, wrong


def _example(outcome: Outcome, row: int, thumbnail: Thumbnail) -> dict[str, Any]:
    question, answer, parsed = outcome.questions[row], outcome.answers[row], outcome.parsed[row]
    return {
        "prompt": question.prompt,
        "gold": ", ".join(dict.fromkeys(question.gold)),
        "answer": answer.text or f"({answer.error or 'empty'})",
        "status": parsed.status,
        "pictures": [_picture(image, thumbnail) for image in question.images],
    }


def _picture(image: ImageRef, thumbnail: Thumbnail) -> str:
    """The thumbnail, or nothing (with a warning) where the picture cannot be read."""
    try:
        return thumbnail(image)
    except (UserError, OSError, ValueError) as error:
        log.warning("report: no thumbnail of %s: %s", image, error)
        return ""
