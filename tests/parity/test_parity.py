"""Everything that the original Bunny computed on its tiny models, through the commands and classes that users have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parity.__main__ import check_folder, main

MODELS = [
    *("phi-1.5", "phi-2", "phi-2-clip", "phi-2-eva", "phi-3", "phi-3-s2", "stablelm-2"),
    *("qwen1.5-1.8b", "minicpm", "llama3-8b", "llama3-8b-s2"),
]
PARTS = ["projectors", "misc"]
CHECKS = {
    "pixels",
    "tower features",
    "projector features",
    "ids and labels",
    "ids and labels, plain",
    "expanded labels",
    "logits of the batch",
    "mean logits of the batch",
    "loss",
    "logits of a prompt",
    "generated ids, greedy_rp1.0",
    "generated ids, greedy_rp1.3",
    "generated ids, beam3",
    "generated ids, batched",
    "training trace, pretrain",
}
LORA = {
    "LoRA merged and apart, logits",
    "LoRA merged and apart, loss",
    "loss of the un-merged LoRA",
    "training trace, lora",
}
WHOLE = {"model: exported tensors", "model: exported config", "training trace, model"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *PARTS])
def test_a_folder_equals_the_original(goldens: Path, name: str) -> None:
    rows = list(check_folder(goldens / name))
    assert [row.line for row in rows if not row.ok] == []
    made = {row.check for row in rows}
    if name not in PARTS:
        assert made >= CHECKS
        assert made >= (LORA if (goldens / name / "lora").exists() else WHOLE)
    else:
        assert len(rows) >= 4


def test_the_command_prints_a_row_per_check_and_fails_where_one_does(
    goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(goldens / "misc"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"folder", "check", "difference", "tolerance", "compared", "note", "ok"} <= set(rows[0])
    facts = json.loads((goldens / "misc" / "sampler.json").read_text())
    key = next(iter(set(facts) - {"lengths", "even chunks"}))
    (goldens / "misc" / "sampler.json").write_text(json.dumps(facts | {key: facts[key][::-1]}))
    assert main([str(goldens / "misc")]) == 1
    assert "FAIL misc" in capsys.readouterr().out
