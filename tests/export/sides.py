"""Both sides of an export, measured in this process: the tests' quick way. `--verify` itself uses a fresh process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from bunny.export import measuring
from bunny.export.llava import Written, write_llava
from bunny.export.opened import open_model
from bunny.export.verifying import Agreement, compare, measure_ours, write_probes


def exported(folder: Path, out: Path, dtype: torch.dtype | None = None) -> Written:
    out.mkdir()
    return write_llava(open_model(folder), out, dtype)


def stock_model(folder: Path) -> tuple[Any, Any]:
    """(model, processor) of an exported folder, as transformers reads them: classes of its own."""
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(model) is LlavaForConditionalGeneration
    assert type(processor) is LlavaProcessor
    assert not info["missing_keys"]
    return model.eval(), processor


def agreement(folder: Path, out: Path, work: Path, dtype: torch.dtype | None = None) -> Agreement:
    """What `--verify` would find of the model in `folder` and its export in `out`."""
    probes = work / "probes"
    probes.mkdir()
    write_probes(probes)
    words = measure_ours(folder, probes, work / "ours", dtype)
    measuring.measure(*stock_model(out), probes, work / "theirs")
    return compare(work / "ours", work / "theirs", words, torch.finfo(torch.float32).eps)
