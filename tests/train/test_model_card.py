"""The card of a trained model: what the Hub reads, what people read, and nothing that text can break."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from bunny.core.errors import UserError
from bunny.train.model_card import Card, Data, Part, add_scores, cell, write_card

SCORES: dict[str, Any] = {
    "pope": {
        "score": 84.321,
        "low": 80.0,
        "high": 88.0,
        "n": 3000,
        "baseline_intervals": {"majority": {"score": 50.0, "low": 48.0, "high": 52.0}},
    },
    "gqa": {"score": 40.0, "low": 30.0, "high": 50.0, "n": 90, "baseline_intervals": {}},
}
CARD = Card(
    name="tiny",
    stage="tune",
    title="Tiny Bunny",
    parts=[
        Part("language model", "microsoft/phi-2", "microsoft/phi-2", "MIT"),
        Part("vision tower", "bundled:vit-s14", "", "mit"),
    ],
    recipe={"name": "tiny", "tune": {"learning_rate": 2e-4, "data": [{"use": "captions"}]}},
    data=[Data("Bunny-695K", 694610, 600000, "BoyaWu10/Bunny-v1_0-data", "apache-2.0"), Data("captions", 10, 5)],
    facts={"steps": 1200, "rows": 5, "cut": 0, "train_seconds": 12.3},
    curation={"kept": 2_000_000, "seen": 2_300_000_000},
    versions={"torch": "2.13"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    training = tmp_path / "training"
    training.mkdir()
    row = {"seconds": 2.0, "samples_per_second": 2.0, "tokens": 100, "times_fewer_tokens": 1.5, "memory_gb": 3.25}
    lines = [json.dumps({"step": step, "loss": 4.0 / step, **row}) for step in (1, 2)]
    (training / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "lo')
    (training / "left_out.jsonl").write_text(
        '{"id": "a", "reason": "no answer"}\n' * 3 + '{"id": "b", "reason": "cut"}\n'
    )
    tasks = {"pope": {"score": 61.0, "low": 55.0, "high": 67.0, "n": 300}}
    (training / "evaluations.jsonl").write_text(json.dumps({"step": 2, "tasks": tasks}) + "\n")
    (training / "curves.png").write_bytes(b"png")
    return tmp_path


def test_the_hub_reads_it(folder: Path) -> None:
    write_card(folder, CARD)
    add_scores(folder, SCORES)
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "mit"
    assert data["base_model"] == ["microsoft/phi-2"]
    assert data["datasets"] == ["BoyaWu10/Bunny-v1_0-data"]
    assert (data["pipeline_tag"], data["library_name"]) == ("image-text-to-text", "transformers")
    assert "bunny-vlm" in data["tags"]
    found = {one.dataset_name: one.metric_value for one in card.data.eval_results or []}
    assert found == {"pope": 84.32, "gqa": 40.0}


def test_people_read_it(folder: Path) -> None:
    text = write_card(folder, CARD).read_text(encoding="utf-8")
    for said in (
        "# Tiny Bunny",
        "| language model | [microsoft/phi-2](https://huggingface.co/microsoft/phi-2) | MIT |",
        "| captions | 10 | 5 | not known here |",
        "2,000,000 of 2,300,000,000 stayed",
        "4 rows could not be used:\n- 3: no answer\n- 1: cut",
        "| optimiser steps | 1,200 |",
        "| samples per second | 2.00 |",
        "| tokens per second | 50 |",
        "| times fewer tokens than the rows by themselves | 1.50 |",
        "(training/curves.png)",
        "| 2 | pope | 61.0 [55.0, 67.0] | 300 |",
        "bunny chat",
        "import bunny",
        "## Limits",
    ):
        assert said in text
    block = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(block) == CARD.recipe
    assert "How well it answers" not in text
    assert "\n\n\n" not in text


def test_scores_come_later(folder: Path) -> None:
    before = write_card(folder, CARD).read_text(encoding="utf-8")
    add_scores(folder, SCORES)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| pope | 84.3 [80.0, 88.0] | 50.0 [48.0, 52.0] | 3,000 |" in text
    assert "| gqa | 40.0 [30.0, 50.0] | – | 90 |" in text
    assert add_scores(folder, {}) is not None
    assert (folder / "README.md").read_text(encoding="utf-8") == before


def test_a_model_without_our_card_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert add_scores(tmp_path, SCORES) is None
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        add_scores(tmp_path, SCORES)


@pytest.mark.parametrize(
    ("licences", "want"),
    [
        (("MIT", "mit"), "mit"),
        (("Apache-2.0", "mit"), "other"),
        (("mit", ""), ""),
        (("Gemma Terms of Use", "Gemma Terms of Use"), "other"),
    ],
)
def test_the_licence_is_the_parts_own_or_none(tmp_path: Path, licences: tuple[str, str], want: str) -> None:
    card = replace(CARD, parts=[Part("part", "x", licence=licence) for licence in licences])
    assert card.licence == want
    found = ModelCard.load(write_card(tmp_path, card)).data.to_dict()
    assert found.get("license", "") == want


@pytest.mark.parametrize("stage", ["align", "tune", "second", "merge"])
def test_every_stage_has_a_card(tmp_path: Path, stage: str) -> None:
    """Also one without any figure."""
    card = Card(name="x", stage=stage, parts=[], recipe={}, merged={"tune": 0.5, "second": 0.5})
    text = write_card(tmp_path, card).read_text(encoding="utf-8")
    assert ("bunny chat" in text) == (stage != "align")
    assert ("tune × 0.5, second × 0.5" in text) == (stage == "merge")
    assert "\n\n\n" not in text


def test_hostile_text_breaks_no_table_and_no_block(tmp_path: Path) -> None:
    bad = "a|b\n<script>alert(1)</script>\n```\n# {{ 7*7 }} [x](javascript:alert(1))"
    card = replace(
        CARD, title=bad, parts=[Part("p", bad, licence=bad)], data=[Data(bad, 1, 1)], recipe={"name": bad}, versions={}
    )
    text = write_card(tmp_path, card).read_text(encoding="utf-8")
    outside = text.split("The recipe:")[0] + text.split("## How to use it")[1]
    assert "<script" not in outside.split("---", 2)[2]
    assert "](javascript" not in outside.replace("\\[x](javascript", "")
    assert "49" not in outside
    body = text.split("The recipe:\n\n")[1]
    fence = body.split("yaml", 1)[0]
    assert yaml.safe_load(body.split(f"{fence}yaml\n", 1)[1].split(f"\n{fence}\n", 1)[0]) == {"name": bad}
    rows = [line for line in outside.splitlines() if line.startswith("| p |")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 4
    assert cell(" a\n b ") == "a b"
