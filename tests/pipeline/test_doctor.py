"""Whether a recipe can run: memory, time and disk on a named machine, what is missing, and words that make it fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.errors import UserError
from bunny.core.recipe import Recipe
from bunny.pipeline import doctor, machines, needs, zoo
from bunny.pipeline.machines import machine

NAMED = [name for name in machines.names() if name not in machines.HERE]


def stage(name: str, words: tuple[str, ...], on: str, gpus: int = 1, which: str = "tune") -> dict[str, Any]:
    content = doctor.examine(zoo.load(name, words), on, gpus)
    return next(facts for facts in content["stages"] if facts["stage"] == which)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_machine_has_figures_and_a_source(name: str) -> None:
    found = machine(name)
    assert found.memory >= 24e9
    assert found.speed["bf16"] > found.speed["fp32"] > 1e13
    assert found.source.startswith("https://")


def test_an_unknown_machine_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no machine is called `h10`"):
        machine("h10")


@pytest.mark.parametrize("name", zoo.names())
def test_every_recipe_of_the_zoo_is_examined_offline(name: str) -> None:
    content = doctor.examine(zoo.load(name), "h200")
    assert content["disk"]["download_gb"] > 1
    for facts in content["stages"]:
        assert facts["memory_gb"] > 4
        assert facts["hours"] is None or facts["hours"] > 0


def test_what_does_not_fit_comes_with_words_that_make_it_fit() -> None:
    facts = stage("bunny-v1.0-3b-full", (), "4090")
    assert not facts["fits"]
    assert facts["changes"]
    for change in facts["changes"]:
        parts = change.split(" on ")[0].split("--set ")[1:]
        gpus = int(change.rpartition("--gpus ")[2].rstrip(")")) if "--gpus" in change else 1
        assert stage("bunny-v1.0-3b-full", tuple(part.strip() for part in parts), "4090", gpus)["fits"], change


def test_a_quantised_model_takes_less_and_shards_take_less_still() -> None:
    plain = stage("bunny-llama-3-8b-v", (), "h100")
    small = stage("bunny-llama-3-8b-v", ("tune.lora.quantise=nf4",), "h100")
    assert small["memory"]["weights"] < 0.5 * plain["memory"]["weights"]
    full = ("tune.language_model=full", "tune.parallel=fsdp")
    alone, cut = stage("bunny-v1.0-3b", full, "h100"), stage("bunny-v1.0-3b", full, "h100", 8)
    assert cut["memory"]["moments"] == pytest.approx(alone["memory"]["moments"] / 8, abs=0.1)


def test_more_devices_take_less_time() -> None:
    one, eight = stage("bunny-v1.0-3b", (), "h100"), stage("bunny-v1.0-3b", (), "h100", 8)
    assert eight["hours"] == pytest.approx(one["hours"] / 8, rel=0.02)
    assert one["rows"] == 694610  # as published: the file is not here
    assert one["row_lengths"] == "assumed"


def recipe_of(folder: Path, **tune: Any) -> Recipe:
    """A recipe of local parts whose data, three rows, are beside it."""
    rows = [
        {"id": f"r{n}", "conversations": [{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a cat"}]}
        for n in range(3)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    tree = {
        "name": "small",
        "model": {"language_model": "microsoft/phi-2", "vision_tower": "google/siglip-so400m-patch14-384"},
        "tune": {
            "data": [{"use": "llava_json", "path": "rows.json", "images": "."}],
            "language_model": "lora",
            "learning_rate": 1e-4,
        }
        | tune,
    }
    (folder / "small.yaml").write_text(json.dumps(tree))
    return Recipe.load(folder / "small.yaml")


def test_rows_at_hand_are_counted(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    rows = needs.rows_of(recipe, "tune", recipe.tune)
    assert (rows.count, rows.exact, rows.known, rows.shown) == (3, True, "measured", 0.0)


def test_missing_packages_files_and_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = recipe_of(tmp_path, lora={"quantise": "nf4"}, trackers=["wandb"])
    problems = " ".join(doctor.examine(recipe, "h100")["problems"])
    for words in ("pip install bitsandbytes", "bunny-vlm[wandb]", "hf download microsoft/phi-2"):
        assert words in problems


def test_a_part_that_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    model = recipe.model.model_copy(update={"language_model": "nobody/nothing-7b"})
    content = doctor.examine(recipe.model_copy(update={"model": model}), "h100")
    assert any("nobody/nothing-7b" in line and "does not know" in line for line in content["problems"])
    assert "memory_gb" not in content["stages"][0]


def test_the_command_shows_a_table_and_tells_by_its_exit_code() -> None:
    ran = CliRunner().invoke(app, ["doctor", "bunny-v1.0-3b", "--machine", "a100-40"])
    assert ran.exit_code == 1  # weights and data are not here
    assert "memory GB" in ran.stdout
    assert "~694610" in ran.stdout
    tree = json.loads(CliRunner().invoke(app, ["doctor", "bunny-v1.0-3b", "--machine", "h100", "--json"]).stdout)
    assert [facts["stage"] for facts in tree["stages"]] == ["align", "tune"]
