"""`bunny eval score`, `audit` and `doctor`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bunny.cli.app import app
from tests.evaluate.golden import HERE

Bunny = Callable[..., Result]
POPE = HERE / "pope" / "a"


@pytest.fixture
def bunny() -> Bunny:
    return lambda *words: CliRunner().invoke(app, ["eval", *map(str, words)])  # type: ignore[return-value]


def test_score_prints_the_table_with_the_rates_beside_it(bunny: Bunny) -> None:
    shown = bunny("score", "pope", POPE / "preds/answers.jsonl", "--data", POPE / "data").stdout
    assert "pope, profile bunny: no if No" in shown
    assert "pope_average_f1_pct          66.7511" in shown
    for kind in ("unparsed", "guessed", "missing", "unknown ids", "duplicate ids", "unread lines"):
        assert f"\n{kind}" in shown


def test_score_as_json_has_the_scripts_keys(bunny: Bunny) -> None:
    ran = bunny(
        "score", "pope", POPE / "preds/answers.jsonl", "--data", POPE / "data", "--profile", "official", "--json"
    )
    tree = json.loads(ran.stdout)
    assert tree["headline"] == {"pope_average_f1_pct": 66.7511}
    assert {"numbers", "scores", "reading", "joined_by_id", "profile", "n"} <= tree.keys()


def test_score_writes_the_submission(bunny: Bunny, tmp_path: Path) -> None:
    folder = HERE / "seedbench" / "a"
    target = tmp_path / "new" / "submission.jsonl"
    ran = bunny("score", "seedbench", folder / "preds/answers.jsonl", "--data", folder / "data", "--submission", target)
    assert ran.exit_code == 0 and len(target.read_text().splitlines()) == 600


def test_audit_shows_the_readings_and_where_they_part(bunny: Bunny) -> None:
    shown = bunny("audit", POPE / "preds/answers.jsonl", "-t", "pope", "--data", POPE / "data", "--limit", "2").stdout
    assert "The readings differ on " in shown
    assert "vlmevalkit: exactly one of the words yes and no occurs" in shown
    assert shown.count(", gold ") == 2


def test_doctor_says_what_is_missing_and_where_to_get_it(bunny: Bunny, tmp_path: Path) -> None:
    ran = bunny("doctor", "--root", tmp_path, "-t", "pope,gqa")
    assert ran.exit_code == 1
    assert "- gqa: https://github.com/BAAI-DCAI/Bunny/tree/main/eval/gqa" in ran.stdout
    assert f"8 of 8 to mend below {tmp_path}" in ran.stdout
    tree = json.loads(bunny("doctor", "--root", tmp_path, "--json").stdout)
    assert len({file["task"] for file in tree["files"]}) == 13 and tree["problems"] == len(tree["files"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score", "pope", "nothing.jsonl", "--data", "."], "nothing.jsonl: no such file or folder"),
        (["score", "popes", "nothing.jsonl", "--data", "."], "did you mean `pope`?"),
        (["score", "easy_vqa", "nothing.jsonl", "--data", "."], "makes its own questions"),
        (["score", "pope", "a", "--data", ".", "--profile", "oficial"], "did you mean `official`?"),
        (["score", "pope", "a", "--data", "nowhere"], "nowhere: no such folder"),
        (["doctor"], "BUNNY_EVAL_ROOT is not set"),
    ],
)
def test_mistakes_are_named_in_one_line(
    bunny: Bunny, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BUNNY_EVAL_ROOT", raising=False)
    ran = bunny(*words)
    assert ran.exit_code == 2 and said in ran.stderr and len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["score", "audit", "doctor", "model"])
def test_each_verb_has_help_with_an_example(bunny: Bunny, verb: str) -> None:
    assert "bunny eval" in bunny(verb, "--help").stdout.split("Usage:")[1].split("\n", 1)[1]
