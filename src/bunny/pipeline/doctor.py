"""`bunny doctor RECIPE`: memory, time and disk of each stage on a machine, what is missing, and what to change to fit.

In: a recipe, the name of a machine, devices. Out: facts and `problems`, one line each. Nothing is loaded, no network is
asked; estimates are those of `train.cost`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunny.core.recipe import Recipe, StageSection
from bunny.pipeline import needs
from bunny.pipeline.machines import Machine, machine
from bunny.pipeline.needs import Rows

if TYPE_CHECKING:
    from bunny.train.cost import Bytes
    from bunny.train.shape import Shape

USABLE = 0.9  # of a device's memory: the rest goes to the driver, the allocator's gaps and the estimate's error
DRIVER = 1e9  # bytes of a GPU that its driver and libraries take
CHOICES = ("off", "selective", "full")
PASSES = (16384, 8192, 4096, 2048, 1024)
RANKS = (2, 4, 8, 16)


def examine(recipe: Recipe, name: str = "here", gpus: int = 1, folder: Path | None = None) -> dict[str, Any]:
    """Facts of every training stage, disk, and `problems` (empty: it can start)."""
    on, sections = machine(name), _sections(recipe)
    shape, why = needs.shape_of_recipe(recipe)
    problems = [why] if why else []
    weights = needs.missing_weights(recipe)
    problems += [line for line, _ in weights] + needs.missing_packages(recipe, sections)
    stages = []
    for stage, section in sections.items():
        problems += needs.missing_data(recipe, stage, section)
        rows = needs.rows_of(recipe, stage, section)
        facts = _stage(stage, section, shape, rows, on, gpus)
        if facts.get("fits") is False:
            ways = "; or ".join(facts["changes"]) or "no change known to Bunny is enough"
            problems.append(f"{stage}: {facts['memory_gb']} GB needed, {facts['usable_gb']} GB usable: {ways}")
        stages.append(facts)
    disk = _disk(shape, sections, sum(size for _, size in weights), folder or Path())
    if disk["needed_gb"] > disk["free_gb"]:
        problems.append(f"disk: {disk['needed_gb']} GB needed, {disk['free_gb']} GB free: make room, or use `--output`")
    return {
        "recipe": recipe.name,
        "machine": {
            "title": on.title,
            "devices": gpus,
            "memory_gb": round(on.memory / 1e9, 1),
            "tflops": {precision: round(speed / 1e12, 2) for precision, speed in on.speed.items()},
            "efficiency": on.efficiency,
            "source": on.source,
        },
        "stages": stages,
        "disk": disk,
        "problems": list(dict.fromkeys(problems)),
    }


def _sections(recipe: Recipe) -> dict[str, StageSection]:
    found = {"align": recipe.align, "tune": recipe.tune, "second": recipe.second}
    return {name: section for name, section in found.items() if section is not None}


def _stage(name: str, section: StageSection, shape: Shape | None, rows: Rows, on: Machine, gpus: int) -> dict[str, Any]:
    """Rows, steps, memory and hours of a stage; what is unknown is None."""
    per_epoch = None if rows.count is None else math.ceil(rows.count / section.rows_per_step)
    steps = section.max_steps if per_epoch is None else max(1, round(per_epoch * section.epochs))
    steps = steps if steps is None or section.max_steps is None else min(steps, section.max_steps)
    facts: dict[str, Any] = {"stage": name, "rows": rows.count, "rows_exact": rows.exact, "steps": steps}
    if shape is None:
        return facts
    choice, found = _memory(section, shape, on, gpus)
    usable = _usable(on)
    fits = found.total <= usable
    facts |= {
        "precision": section.precision,
        "tokens_per_pass": section.tokens_per_pass,
        "checkpointing": choice,
        "memory_gb": _gb(found.total),
        "memory": {part: _gb(getattr(found, part)) for part in found.__dataclass_fields__},
        "usable_gb": _gb(usable),
        "fits": fits,
        "changes": [] if fits else list(_changes(name, section, shape, on, gpus)),
    }
    return facts | _time(section, shape, rows, on, gpus, steps, choice)


def _usable(on: Machine) -> float:
    return USABLE * on.memory - (DRIVER if on.gpu else 0)


def _memory(section: StageSection, shape: Shape, on: Machine, gpus: int) -> tuple[str, Bytes]:
    """The checkpointing that would be chosen and its memory on one device."""
    from bunny.train.cost import bytes_of_stage

    sharded = gpus > 1 and (section.parallel == "fsdp" or (section.parallel == "auto" and _full(section)))
    asked = section.gradient_checkpointing
    choices = CHOICES if asked == "auto" else ("selective" if asked == "selective" else "full" if asked else "off",)
    found = [
        bytes_of_stage(
            shape, section, section.tokens_per_pass, checkpointing=each, ranks=gpus, sharded=sharded, gpu=on.gpu
        )
        for each in choices
    ]
    best = next((place for place, item in enumerate(found) if item.total <= _usable(on)), len(found) - 1)
    return choices[best], found[best]


def _full(section: StageSection) -> bool:
    return section.language_model == "full"


def _changes(name: str, section: StageSection, shape: Shape, on: Machine, gpus: int) -> Iterator[str]:
    """Words to type after the command that make the stage fit, from the mildest on; each is enough by itself."""
    mild: dict[str, Any] = {}
    words: list[str] = []
    if section.gradient_checkpointing != "auto":
        mild["gradient_checkpointing"] = "auto"
        words.append(f"--set {name}.gradient_checkpointing=auto")
    if section.precision == "fp32" and on.gpu:
        mild["precision"] = "bf16"
        words.append(f"--set {name}.precision=bf16")
    milder = section.model_copy(update=mild)
    if words and _fits(milder, shape, on, gpus):
        yield " ".join(words)
        return
    smallest = milder
    for tokens in PASSES:
        if max(section.max_length, tokens) < section.tokens_per_pass:
            smallest = milder.model_copy(update={"tokens_per_pass": max(section.max_length, tokens)})
            if _fits(smallest, shape, on, gpus):
                yield " ".join([*words, f"--set {name}.tokens_per_pass={smallest.tokens_per_pass}"])
                break
    if smallest is not milder:
        words = [*words, f"--set {name}.tokens_per_pass={smallest.tokens_per_pass}"]
    if on.gpu:
        for ranks in RANKS:
            cut = smallest.model_copy(update={"parallel": "fsdp"})
            if ranks > gpus and _fits(cut, shape, on, ranks):
                yield " ".join([*words, f"--set {name}.parallel=fsdp", f"on {ranks} devices (--gpus {ranks})"])
                break
    if section.language_model == "full":
        lora = smallest.model_copy(update={"language_model": "lora"})
        if _fits(lora, shape, on, gpus):
            yield " ".join([*words, f"--set {name}.language_model=lora"])
    elif section.language_model == "lora" and section.lora.quantise is None and on.gpu:
        less = smallest.model_copy(update={"lora": section.lora.model_copy(update={"quantise": "nf4"})})
        if _fits(less, shape, on, gpus):
            yield " ".join([*words, f"--set {name}.lora.quantise=nf4"])


def _fits(section: StageSection, shape: Shape, on: Machine, gpus: int) -> bool:
    return _memory(section, shape, on, gpus)[1].total <= _usable(on)


def _time(
    section: StageSection, shape: Shape, rows: Rows, on: Machine, gpus: int, steps: int | None, choice: str
) -> dict[str, Any]:
    """Tokens and operations of a row, and hours of the stage at the assumed efficiency; nothing for unknown rows."""
    from bunny.train.cost import StepTokens, flops_of_step

    if rows.known == "unknown":
        return {"row_lengths": rows.known, "hours": None}

    count = 1000  # rows of which each kind is counted
    shown, own = rows.shown * count, rows.text
    pictures = shown / rows.per_picture
    front = shape.image_tokens
    pairs = pictures * front**2 / 2 + shown * (own * front + own**2 / 2) + (count - shown) * own**2 / 2
    tokens = pictures * front + count * own
    step = StepTokens(int(tokens), int(pairs), int(count * rows.learnt), round(pictures))
    work = flops_of_step(shape, section, step, choice).total / count
    speed = on.speed[section.precision] * on.efficiency * gpus
    total = None if steps is None else steps * section.rows_per_step
    if total is not None and rows.count is not None:
        total = min(total, round(rows.count * max(section.epochs, 1)))
    return {
        "tokens_per_row": round(tokens / count),
        "row_lengths": rows.known,
        "tflop_per_row": round(work / 1e12, 4),
        "rows_per_second": round(speed / work, 2),
        "hours": None if total is None else round(total * work / speed / 3600, 2),
    }


def _disk(
    shape: Shape | None, sections: Mapping[str, StageSection], download_gb: float, folder: Path
) -> dict[str, Any]:
    """GB that downloads, checkpoints and the finished model take, and what is free."""
    from bunny.train.cost import bytes_of_stage

    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    checkpoints, models = 0.0, 0.0
    for section in sections.values() if shape else ():
        assert shape
        parts = bytes_of_stage(shape, section, 1)
        kept = section.keep_checkpoints + 1  # the newest is whole before the oldest goes
        checkpoints = max(checkpoints, kept * (parts.gradients + parts.moments))
        if section.language_model != "frozen":
            models += shape.parameters * (2 if section.precision == "bf16" else 4)
    return {
        "download_gb": round(download_gb, 1),
        "checkpoints_gb": _gb(checkpoints),
        "models_gb": _gb(models),
        "needed_gb": round(download_gb + (checkpoints + models) / 1e9, 1),
        "free_gb": _gb(shutil.disk_usage(existing).free),
    }


def _gb(count: float) -> float:
    return round(count / 1e9, 1)
