"""Models averaged into one; adapters of the original are turned into whole models first.

In: model or LoRA folders, a weight per folder. Out: one model folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.store import write_atomic


def merge(
    models: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    dtype: str | None = None,
    base: str | None = None,
    vision_tower: str | None = None,
) -> dict[str, Any]:
    """What was merged into `out` (`inputs`, `weights`, `dtype`, `model_type`). Raises UserError for what does not fit.

    base, vision_tower: what LoRA folders of the original were trained on. dtype: None keeps the widest of the inputs.
    """
    from bunny.model.merge import RECORD, average, check_output, check_weights

    check_output(out)
    check_weights(models, weights)
    adapters = [model for model in models if (model / "adapter_config.json").exists()]
    if not adapters and (base or vision_tower):
        raise UserError("--base and --vision-tower go with LoRA folders, and none is given", fix="leave them out")
    if not adapters:
        return average(models, weights, out, dtype)
    from bunny.pipeline.convert import import_model

    if len(models) == 1 and weights[0] == 1:
        done = import_model(models[0], out, base=base, vision_tower=vision_tower, dtype=dtype)
        return {"inputs": [str(models[0])], "weights": [1.0], "dtype": done["dtype"], "model_type": "bunny"}
    beside = out.with_name(f".{out.name}.whole")
    shutil.rmtree(beside, ignore_errors=True)  # of a killed attempt
    whole = [beside / str(i) if model in adapters else model for i, model in enumerate(models)]
    try:
        for path, model in zip(whole, models, strict=True):
            if path != model:  # its sums stay in float32, so that the average is rounded once
                import_model(model, path, base=base, vision_tower=vision_tower)
        record = average(whole, weights, out, dtype)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    named = dict(zip(map(str, whole), map(str, models), strict=True))
    record |= {"inputs": [str(model) for model in models], "config_from": named[record["config_from"]]}
    write_atomic(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return record
