"""Prints what the commands of `bunny curate` found out, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from bunny.cli import show


def outcome(content: Mapping[str, Any]) -> None:
    """The end of a run: the funnel, where the result is, what to do next."""
    rows = [(one["step"], str(one["in"]), str(one["out"]), _most(one["reasons"])) for one in content["steps"]]
    if rows:
        show.table(("step", "in", "out", "why not"), rows)
        typer.echo("")
    kept, samples = content["kept"], content["samples"]
    typer.echo(f"kept     {kept} of {samples}{f' ({kept / samples:.1%})' if samples else ''}")
    typer.echo(f"time     {sum(content['seconds'].values()):.0f} s")
    typer.echo(f"result   {content['folder']}")
    typer.echo(f"report   {content['report']}")
    command, run = f"{show.command()} curate", content["run"]
    typer.echo(f"\nTry next: {command} view {run}")
    typer.echo(f"          {command} explain {run} ID")
    typer.echo(f"          {command} export {run} --to webdataset")


def planned(stages: Sequence[Mapping[str, Any]]) -> None:
    """What a run would do, and what that takes."""
    from bunny.pipeline.estimating import table

    show.plan(stages)
    for costs in (stage["estimate"] for stage in stages):
        job, machines = costs["job"], costs["machines"]
        rows = f"{'' if job['rows_are_exact'] else 'about '}{job['rows']:,} pairs"
        vectors = "with vectors" if job["vectors_exist"] else f"to embed with {job['embedder'] or 'nothing yet'}"
        lengths = ", ".join(f"{name} {length}" for name, length in job["dims"].items())
        typer.echo(f"\nestimate: {rows} {vectors} ({lengths})")
        rate = f"{machines['rate']:.0f} · 10⁹ 8-bit operations/s a core"
        typer.echo(f"machines: {machines['nodes']} × {machines['cores']} cores, {rate}")
        show.table(*table(costs))


def explained(content: Mapping[str, Any]) -> None:
    """A sample's fate in sentences."""
    why = "is kept" if content["kept"] else f"is dropped by {content['step']}: {content['reason']}"
    typer.echo(f"{content['id']} {why}")
    for key in ("caption", "source"):
        if content.get(key):
            typer.echo(f"  {key}: {_short(content[key])}")
    for twin in content.get("twins", ()):
        cosine = f" (cosine {twin['cosine']:.3f})" if "cosine" in twin else ""
        typer.echo(f"stands for it: {_fate(twin)}{cosine}")
    if stands := content.get("stands_for"):
        ids = ", ".join(one["id"] for one in stands["first"][:3])
        typer.echo(f"it stands for {stands['count']}: {ids}{', …' if stands['count'] > 3 else ''}")
    for rank in content.get("ranks", ()):
        typer.echo(_rank(rank))
    for name, group in content.get("groups", {}).items():
        what = "duplicate group" if name == "component" else name
        typer.echo(f"{what} {group['number']}: {group['size']} samples, {group['kept']} stay")
    for sentence in content.get("would_stay", ()):
        typer.echo(f"it would stay {sentence}")
    if near := content.get("neighbours"):
        typer.echo(f"nearest of {near['compared']} in {near['where']}:")
        for one in sorted([*near["kept"], *near["dropped"]], key=lambda one: -float(one["cosine"])):
            typer.echo(f"  {one['cosine']:.3f}  {_fate(one)}")


def difference(content: Mapping[str, Any]) -> None:
    """What two curations decide differently."""
    counts = content["counts"]
    for one in content["settings"]:
        name = ".".join(part for part in (one["step"], one["key"]) if part)
        typer.echo(f"{name}: {_value(one['a'])} -> {_value(one['b'])}")
    typer.echo(f"A  {content['a']}\nB  {content['b']}")
    names = {"both": "kept by both", "only_a": "by A only", "only_b": "by B only", "neither": "by neither"}
    show.table(tuple(names.values()), [tuple(str(counts[key]) for key in names)])
    if content["flow"]:
        typer.echo("")
        rows = [
            (_short(one["a"], 50), _short(one["b"], 50), str(one["count"]), one["first"][0]) for one in content["flow"]
        ]
        show.table(("in A", "in B", "samples", "for example"), rows[:15])
    changed = [one for one in content["sources"] if one["a"] != one["b"]]
    if changed and len(content["sources"]) > 1:
        typer.echo("")
        show.table(("source", "A", "B"), [(one["source"] or "?", str(one["a"]), str(one["b"])) for one in changed[:10]])
    if content.get("page"):
        typer.echo(f"\npage     {content['page']}")


def pushed(content: Mapping[str, Any], run: Path) -> None:
    """What went (or would go) up."""
    rows = [(one["path"], _bytes(one["bytes"])) for one in content["files"][:30]]
    show.table(("file", "size"), rows)
    if len(content["files"]) > len(rows):
        typer.echo(f"… and {len(content['files']) - len(rows)} more")
    done = "is up" if content["uploaded"] else "would go up; nothing was done"
    typer.echo(f"\n{len(content['files'])} files, {_bytes(content['bytes'])}, license {content['license']}: {done}")
    if not content["pictures"]:
        typer.echo(f"no pictures among them; write them first: {show.command()} curate export {run} --to parquet")
    if content["uploaded"]:
        typer.echo(content["url"])


def presets(found: Sequence[Mapping[str, Any]]) -> None:
    """One line a preset."""
    rows = [
        (one["name"], " > ".join(str(step.get("use")) for step in one["steps"]), _short(one["about"])) for one in found
    ]
    show.table(("preset", "steps", "what for"), rows)
    typer.echo(f"\nTry next: {show.command()} curate presets small-set")


def _fate(one: Mapping[str, Any]) -> str:
    why = "kept" if one["kept"] else f"dropped by {one['step']}: {one['reason']}"
    return f"{one['id']}{' «' + _short(one['caption'], 40) + '»' if one.get('caption') else ''}, {why}"


def _rank(rank: Mapping[str, Any]) -> str:
    value = f" ({rank['value']:.4f})" if "value" in rank else ""
    low, high = rank.get("low", 0.0), rank.get("high", 1.0)
    band = f"; {rank['step']} keeps {low:g} to {high:g}" if "low" in rank or "high" in rank else ""
    return f"{rank['by']}{value}: rank {rank['rank']:.4f}, 0 is the highest{band}"


def _most(reasons: Mapping[str, int]) -> str:
    first = [f"{count} {_short(reason, 60)}" for reason, count in list(reasons.items())[:1]]
    more = len(reasons) - 1
    return "".join(first) + (f" (and {more} more reason{'s' if more > 1 else ''})" if more > 0 else "")


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)


def _short(text: str, limit: int = 80) -> str:
    plain = " ".join(str(text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
