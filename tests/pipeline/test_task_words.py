"""`-t NAME:SETTING=VALUE`: blocks of a recipe, written on the command line."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.errors import UserError
from bunny.evaluate.made_up import named_pictures
from bunny.pipeline import task_words
from tests.pipeline.test_answering import save_bunny


def test_the_example_runs() -> None:
    failed, tried = doctest.testmod(task_words)
    assert tried and not failed


def test_names_with_a_colon_stay_whole_and_values_are_read_as_yaml() -> None:
    assert task_words.blocks(["my.tasks:Mine:count=3, pope ", "reading:written=zh:split=unseen"]) == [
        {"use": "my.tasks:Mine", "count": 3},
        {"use": "pope"},
        {"use": "reading", "written": "zh", "split": "unseen"},
    ]


@pytest.mark.parametrize("word", ["counting:sets=1:path", "counting:=3", ":a=1", "counting:sets=[1"])
def test_what_is_no_setting_is_named(word: str) -> None:
    with pytest.raises(UserError, match=r"-t .*; "):
        task_words.blocks([word])


def test_a_benchmark_on_named_pictures_is_asked_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, pictures = save_bunny(tmp_path), named_pictures(tmp_path)

    def bunny(task: str) -> tuple[int, str, str]:
        ran = CliRunner().invoke(app, ["eval", str(model), "-t", task, "--output", "out", "--json"])
        return ran.exit_code, ran.stdout, ran.stderr

    code, told, _ = bunny(f"choice:path={pictures.name}:sets=1")
    assert code == 0 and json.loads(told)["tasks"]["choice"]["n"] > 0
    code, _, told = bunny("choice")
    assert code == 2 and "path" in told and len(told.splitlines()) == 1
    code, _, told = bunny(f"choice:path={pictures.name}:set=1")
    assert code == 2 and "did you mean `sets`" in told
