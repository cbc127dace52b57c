"""Training traces: four steps of each stage from the original's starting point, loss by loss.

The rows are those that the original learnt from (it masks some samples whole: they add nothing to its loss). Its LoRA
starts from random A and zero B; A is taken from its finished adapter, which lies within the sum of the learning rates
of where it began (B is zero at first, so A gets its first gradient in the third step).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bunny.core.recipe import LoraSection, ModelSection, StageSection
from bunny.core.types import Sample
from bunny.data.images import open_image
from bunny.model.build import build, load_projector
from bunny.model.original import TEMPLATES
from bunny.model.tensors import open_tensors
from bunny.text.template import Template
from bunny.train import stage
from tests.parity.checks import read_samples, wrongly_handled
from tests.parity.row import Row

TRACE = 1e-4
"""Relative difference of a loss."""


def training(folder: Path, work: Path) -> Iterator[Row]:
    """A row for each stage whose trace the folder has."""
    facts = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    for kind in ("pretrain", "model", "lora"):
        path = folder / kind / "training_trace.json"
        if path.exists():
            trace = json.loads(path.read_text(encoding="utf-8"))
            with contextlib.chdir(folder):
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
    model, processor = build(parts, template.model_dump(), template.jinja(), seed=0)
    if kind == "pretrain":
        _start_where_the_original_did(model, folder)
    else:
        load_projector(model, Path(said["pretrain_mm_mlp_adapter"]))
    section = _section(kind, said)
    samples = _learnt(folder / said["data_path"], folder, facts)
    out = work / f"trace-{kind}"
    adapters = _with_its_adapters(folder) if kind == "lora" else contextlib.nullcontext()
    with adapters:
        stage.train_stage(section, model, processor, samples, open_image, out, seed=0, name=kind)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


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
def _with_its_adapters(folder: Path) -> Iterator[None]:
    """LoRA that starts where the original's did, as nearly as its finished adapter tells."""
    adapter = open_tensors(folder / "lora")
    set_learning: Callable[..., Any] = stage.set_learning

    def started(model: Any, section: StageSection) -> Any:
        learning = set_learning(model, section)
        parameters = dict(learning.named_parameters())
        with torch.no_grad():
            for name in adapter.info:
                if ".lora_A." in name:
                    mine = name.replace(".model.model.", ".model.model.language_model.", 1)
                    parameters[mine.replace(".weight", ".default.weight")].copy_(adapter.read(name))
        return learning

    with patch.object(stage, "set_learning", started):
        yield


def _start_where_the_original_did(model: Any, folder: Path) -> None:
    """The projector's first weights: the original draws them; see `traces.projector_start`."""
