"""Training traces: four steps of each stage from the original's starting point, loss by loss.

The rows are those that the original learnt from (it masks some samples whole: they add nothing to its loss). Where a
stage starts from random weights, only the finished ones are stored. They lie within the sum of the learning rates of
the first ones, and those are a stretch of the uniform numbers that torch draws from the seed of the golden runs: so the
stretch is found, and training starts from exactly these numbers.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bunny.core.recipe import LoraSection, ModelSection, StageSection
from bunny.core.types import Sample
from bunny.model.build import build, load_projector
from bunny.model.original import TEMPLATES
from bunny.model.tensors import open_tensors
from bunny.text.template import Template
from bunny.train import stage
from tests.parity.checks import opened, read_samples, wrongly_handled
from tests.parity.row import Row, inside

TRACE = 1e-4
"""Relative difference of a loss."""


def training(folder: Path, work: Path) -> Iterator[Row]:
    """A row for each stage whose trace the folder has."""
    facts = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    for kind in ("pretrain", "model", "lora"):
        path = folder / kind / "training_trace.json"
        if path.exists():
            trace = json.loads(path.read_text(encoding="utf-8"))
            with inside(folder):
                mine = _losses(folder, kind, trace, facts, work)
            wanted = trace["losses"]
            worst = max(abs(a - b) / abs(b) for a, b in zip(mine, wanted, strict=True))
            yield Row(folder.name, f"training trace, {kind}", worst, TRACE, len(wanted))


def _losses(folder: Path, kind: str, trace: dict[str, Any], facts: dict[str, Any], work: Path) -> list[float]:
    words = trace["argv"]
    said = {words[at].removeprefix("--"): words[at + 1] for at in range(0, len(words), 2)}
    fields = json.loads((folder / kind / "config.json").read_text(encoding="utf-8"))
    template = Template.named(TEMPLATES.get(fields["model_type"], "bunny"))
    scales = fields.get("s2_scales", "") if fields.get("use_s2") else ""
    parts = ModelSection(
        language_model=said["model_name_or_path"],
        vision_tower=said["vision_tower"],
        projector=said["mm_projector_type"],
        s2_scales=tuple(int(side) for side in scales.split(",") if side),
        image_aspect="pad" if said["image_aspect_ratio"] == "pad" else "square",
    )
    section = _section(kind, said)
    samples = _learnt(folder / said["data_path"], folder, facts)
    model, processor = build(parts, template.model_dump(), template.jinja(), seed=0)
    reach = sum(trace["learning_rates"]) * 1.2
    if kind == "pretrain":
        load_projector(model, folder / "pretrain" / "mm_projector.bin")
        _rewind(dict(model.model.multi_modal_projector.named_parameters()), reach)
    else:
        load_projector(model, Path(said["pretrain_mm_mlp_adapter"]))
    with _with_its_adapters(folder, reach) if kind == "lora" else contextlib.nullcontext():
        return _train(model, processor, section, samples, work / f"trace-{kind}")


def _train(model: Any, processor: Any, section: StageSection, samples: list[Sample], out: Path) -> list[float]:
    """The losses of the stage, step by step."""
    out.mkdir()
    stage.train_stage(section, model, processor, samples, opened, out, seed=0, name=out.name)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


SEEDS = (1234, *range(2048))
"""What the golden runs set just before training (their README: 1234), and others that a run may have set."""

DRAWS = 1 << 20


def _rewind(finished: dict[str, torch.nn.Parameter], reach: float) -> None:
    """Put in the numbers that torch drew for these weights of linear layers. reach: how far each may have moved."""
    for seed in SEEDS:
        stream = torch.empty(DRAWS).uniform_(generator=torch.Generator().manual_seed(seed))
        places: dict[str, int] = {}
        for name, parameter in finished.items():
            bound = _bound(finished, name)
            place = _place(stream, (parameter.detach().flatten() + bound) / (2 * bound), reach / (2 * bound))
            if place is None:
                break
            places[name] = place
        if len(places) == len(finished):
            break
    else:
        raise ValueError(f"the first weights of {', '.join(finished)} are of no known seed")
    for name, parameter in finished.items():
        generator = torch.Generator().manual_seed(seed)
        torch.empty(places[name]).uniform_(generator=generator)
        with torch.no_grad():
            parameter.uniform_(-_bound(finished, name), _bound(finished, name), generator=generator)


def _bound(weights: dict[str, torch.nn.Parameter], name: str) -> float:
    """nn.Linear and LoRA's A are drawn from ± this: kaiming_uniform with a = sqrt(5); biases have their weight's."""
    weight = weights[re.sub(r"\bbias$", "weight", name)]
    return float(weight[0].numel() ** -0.5)


def _place(stream: torch.Tensor, wanted: torch.Tensor, reach: float) -> int | None:
    """Where the stretch begins whose numbers all lie within `reach` of the wanted ones."""
    places = torch.arange(len(stream) - len(wanted))
    for step, number in enumerate(wanted):
        places = places[(stream[places + step] - number).abs() <= reach]
        if not len(places):
            return None
    return int(places[0])


def _section(kind: str, said: dict[str, str]) -> StageSection:
    """The original's command line as a stage."""
    lora = said.get("lora_enable") == "True"
    main, projector = float(said["learning_rate"]), said.get("mm_projector_lr")
    return StageSection(
        data=[],
        language_model="frozen" if kind == "pretrain" else "lora" if lora else "full",
        vision_tower="train" if said.get("unfreeze_vision_tower") == "True" else "frozen",
        template="plain" if said["version"] == "plain" else None,
        lora=LoraSection(
            r=int(said.get("lora_r", 64)),
            alpha=int(said.get("lora_alpha", 16)),
            dropout=float(said.get("lora_dropout", 0)),
        ),
        learning_rate=main,
        projector_learning_rate=float(projector) if projector else None,
        weight_decay=float(said["weight_decay"]),
        warmup_ratio=float(said["warmup_ratio"]),
        epochs=float(said["num_train_epochs"]),
        rows_per_step=int(said["per_device_train_batch_size"]),
        max_length=int(said["model_max_length"]),
    )


def _learnt(path: Path, folder: Path, facts: dict[str, Any]) -> list[Sample]:
    """The file's samples less those that the original masked whole."""
    samples = read_samples(path, folder)
    known = facts["plain_samples"] if path.name == "pretrain.json" else facts["samples"]
    masked = {fact["id"] for fact in known if wrongly_handled(fact, samples)}
    return [sample for id, sample in samples.items() if id not in masked]


@contextlib.contextmanager
def _with_its_adapters(folder: Path, reach: float) -> Iterator[None]:
    """LoRA that starts from the original's own A."""
    adapter = open_tensors(folder / "lora")
    set_learning: Callable[..., Any] = stage.set_learning

    def started(*asked: Any) -> Any:
        learning = set_learning(*asked)
        parameters = dict(learning.named_parameters())
        names = {name: name.replace(".model.model.", ".model.model.language_model.", 1) for name in adapter.info}
        drawn = {old: parameters[new.replace(".weight", ".default.weight")] for old, new in names.items()}
        drawn = {name: parameter for name, parameter in drawn.items() if ".lora_A." in name}
        with torch.no_grad():
            for name, parameter in drawn.items():
                parameter.copy_(adapter.read(name))
        _rewind(drawn, reach)
        return learning

    with patch.object(stage, "set_learning", started):
        yield
