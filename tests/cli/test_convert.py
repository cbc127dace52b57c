"""`bunny import` and `bunny export`: words in; what was done, what to try next, or one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bunny.cli import app
from tests.original_folders import Twin, make

Bunny = Callable[..., Result]


@pytest.fixture
def bunny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    return make(tmp_path)


def test_it_ends_with_what_was_done_and_what_to_try(bunny: Bunny, twin: Twin) -> None:
    twin.save_whole(Path("model"))
    ran = bunny("import", "model", "-o", "out")
    assert ran.exit_code == 0, ran.output
    shown = ran.stdout.splitlines()
    assert shown[0].startswith("taken over")
    assert "(whole checkpoint, float32)" in shown[0]
    assert "that no picture token depends on" in shown[1]
    assert "bunny chat out PICTURE" in shown[-1]
    ran = bunny("export", "out", "-o", "back", "--to", "original")
    assert ran.exit_code == 0, ran.output
    assert "vision tower as released" in ran.stdout
    assert "bunny import back -o AGAIN" in ran.stdout.replace("python -m ", "")


def test_json_is_one_document_that_names_what_is_left_out_once(bunny: Bunny, twin: Twin) -> None:
    twin.save_projector(Path("pretrain"))
    ran = bunny("import", "pretrain", "-o", "out", "--dtype", "bfloat16", "--json")
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout)
    assert (facts["kind"], facts["dtype"], facts["template"]) == ("projector", "bfloat16", "bunny")
    assert len(facts["left_out"]) == len(set(facts["left_out"]))
    record = json.loads(Path("out/import.json").read_text())
    assert record["left_out"] == facts["left_out"]
    assert record["fields"] == twin.config()


def test_base_and_tower_are_given_where_the_folder_names_others(bunny: Bunny, twin: Twin) -> None:
    twin.changes = {"mm_vision_tower": "/data/design/siglip"}
    twin.save_lora(Path("lora"), twin.add_adapters(lambda _: 2.0), base_model_name_or_path="/data/models/phi-2")
    words = ["import", "lora", "-o", "out"]
    for option, place in ([], []), (["--base", "base_llm"], []):
        ran = bunny(*words, *option, *place)
        assert ran.exit_code == 2
        assert ran.stderr.count("\n") == 1
    ran = bunny(*words, "--base", "base_llm", "--vision-tower", "tower")
    assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere", "-o", "out"], "nowhere: no such folder"),
        (["base_llm", "-o", "out"], "not of the original Bunny"),
        (["tower/config.json", "-o", "out"], "no such folder"),
        (["model", "-o", "model/out"], "inside model"),
        (["model", "-o", "tower"], "something already"),
        (["model", "-o", "out", "--dtype", "int8"], "--dtype int8"),
        (["model", "-o", "out", "--vision-tower", "no/where"], "--vision-tower"),
        (["model", "-o", "/proc/out"], "-o"),
        (["model", "-o", "/dev/null/out"], "-o"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(bunny: Bunny, twin: Twin, words: list[str], why: str) -> None:
    twin.save_whole(Path("model"))
    ran = bunny("import", *words)
    assert ran.exit_code == 2, ran.output
    assert ran.stdout == ""
    assert ran.stderr.startswith("bunny: ")
    assert ran.stderr.count("\n") == 1
    assert why in ran.stderr
    assert not Path("out").exists()
