"""A comparison as Markdown and as one self-contained HTML page: every flip with its picture, to filter and to search.

In: a `Comparison` and a callable that makes thumbnails. Out: text. The page needs no network; what models said is put
into it as data and shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.seeds import stream
from bunny.core.types import ImageRef
from bunny.evaluate.compare import Comparison, Pair, Row, flip
from bunny.evaluate.report import Thumbnail, show
from bunny.evaluate.verdict import chance_text

TEMPLATE = "compare.html.j2"
SHOWN = 200  # questions of each kind of flip and benchmark that the page holds; all are counted


def markdown(comparison: Comparison) -> str:
    """The table of paired differences, a sentence each, and the categories."""
    lines = [
        f"A: {comparison.a}  ",
        f"B: {comparison.b}",
        "",
        "Score in %, with 95 % interval; p corrected by Holm.",
        "",
    ]
    lines += ["| task | n | A | B | B − A | p | detectable | won | lost | both wrong |", "|---|" + "---:|" * 9]
    lines += ["| " + " | ".join(cells(pair)) + " |" for pair in comparison.pairs]
    lines += ["", *(f"- {pair.task}: {pair.verdict.words()}" for pair in comparison.pairs)]
    for pair in comparison.pairs:
        if pair.categories:
            lines += ["", f"## {pair.task}", "", "| category | n | A | B | B − A |", "|---|" + "---:|" * 4]
            lines += ["| " + " | ".join(category_cells(each)) + " |" for each in pair.categories]
    return "\n".join([*lines, *notes(comparison)]) + "\n"


def cells(pair: Pair) -> list[str]:
    """One benchmark's row of the table."""
    verdict, flips = pair.verdict, pair.flips()
    figures = [show(pair.a.headline), show(pair.b.headline), show(verdict.gap)]
    reach = f"{verdict.detectable:.1f}" if verdict.detectable < float("inf") else "–"
    counts = [str(flips[kind]) for kind in ("won", "lost", "both wrong")]
    return [pair.task, str(len(pair.rows)), *figures, chance_text(verdict.corrected).removeprefix("= "), reach, *counts]


def category_cells(each: Mapping[str, Any]) -> list[str]:
    """One category's row."""
    gap = each["difference"]
    figures = [f"{each['a']:.1f}", f"{each['b']:.1f}", f"{gap['score']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]"]
    return [each["category"], str(each["n"]), *figures]


def notes(comparison: Comparison) -> list[str]:
    """What was left out, and why."""
    said = [f"Only one of both has {task}." for task in comparison.alone]
    for pair in comparison.pairs:
        if any(pair.only):
            said.append(f"{pair.task}: {pair.only[0]} question(s) only in A and {pair.only[1]} only in B are left out.")
        other = sum(a.get("prompt") != b.get("prompt") for a, b in pair.rows)
        if other:
            said.append(f"{pair.task}: {other} question(s) were put in other words.")
    return ["", *said] if said else []


def html(comparison: Comparison, thumbnail: Thumbnail | None = None, shown: int = SHOWN) -> str:
    """The page. shown: at most so many questions of each kind of flip and benchmark, drawn with a fixed seed."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures: dict[str, str] = {}
    questions = [
        _question(pair.task, a, b, pictures, thumbnail) for pair in comparison.pairs for a, b in _drawn(pair, shown)
    ]
    unread = sum(not picture for picture in pictures.values())
    if unread:
        log.warning("compare: %d of %d pictures cannot be read, and are not on the page", unread, len(pictures))
    return environment.get_template(TEMPLATE).render(
        comparison=comparison,
        rows=[(pair.verdict.mark, cells(pair), pair.verdict.words()) for pair in comparison.pairs],
        categories=[(pair.task, [category_cells(each) for each in pair.categories]) for pair in comparison.pairs],
        notes=[note for note in notes(comparison) if note],
        data={"questions": questions, "pictures": pictures},
        total=sum(a["points"] < 1 or b["points"] < 1 for pair in comparison.pairs for a, b in pair.rows),
    )


def _drawn(pair: Pair, shown: int) -> list[tuple[Row, Row]]:
    """Won, lost and both wrong, at most `shown` of each, in the benchmark's order."""
    chosen: list[int] = []
    for kind in ("won", "lost", "both wrong"):
        rows = [row for row, both in enumerate(pair.rows) if flip(*both) == kind]
        order = stream("evaluate.flips", 0).permutation(len(rows))[:shown]
        chosen += [rows[at] for at in order.tolist()]
    return [pair.rows[row] for row in sorted(chosen)]


def _question(task: str, a: Row, b: Row, pictures: dict[str, str], thumbnail: Thumbnail | None) -> dict[str, Any]:
    """What the page's script shows of one question; pictures are kept once each."""
    names = [str(name) for name in a.get("images", ())] if thumbnail else []
    for name in names:
        if thumbnail and name not in pictures:
            pictures[name] = _picture(name, thumbnail)
    return {
        "task": task,
        "id": a["id"],
        "kind": flip(a, b),
        "category": a["category"],
        "prompt": a.get("prompt", ""),
        "gold": ", ".join(dict.fromkeys(map(str, a.get("gold", ())))),
        "a": _said(a),
        "b": _said(b),
        "images": names,
    }


def _picture(name: str, thumbnail: Thumbnail) -> str:
    """The thumbnail, or nothing where the picture cannot be read; the page says how many are missing."""
    try:
        return thumbnail(_ref(name))
    except (UserError, OSError, ValueError) as error:
        log.debug("compare: no thumbnail of %s: %s", name, error)
        return ""


def _said(row: Row) -> dict[str, Any]:
    text = str(row.get("answer", "")) or f"({row.get('error') or 'empty'})"
    return {"text": text[:600], "points": row["points"], "status": str(row.get("status", "ok"))}


def _ref(name: str) -> ImageRef:
    """The picture that `str(ImageRef)` named."""
    path, mark, rest = name.rpartition("#")
    if not mark or Path(name).is_file():
        return ImageRef(name)
    member, at, column = rest.rpartition("@") if path.endswith(".parquet") else (rest, "", "")
    return ImageRef(path, member, column) if at else ImageRef(path, rest)
