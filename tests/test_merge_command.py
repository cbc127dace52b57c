"""`bunny merge`: words in, an averaged folder and the next command out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from bunny.cli import app
from bunny.pipeline import convert

Bunny = Callable[..., Result]


@pytest.fixture
def bunny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["merge", *map(str, words)])


def model(name: str, value: float, kind: str = "bunny") -> str:
    """A folder (in the current one) whose only tensor holds one number."""
    folder = Path(name)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file({"w": torch.full((2, 2), float(value))}, folder / "model.safetensors")
    return name


def value(folder: str) -> float:
    return float(load_file(Path(folder) / "model.safetensors")["w"].mean())


@pytest.mark.parametrize("words", [["-w", "0.25,0.75"], ["-w", "0.25", "-w", "0.75"], ["--weight", " 0.25, 0.75"]])
def test_weights_come_with_commas_or_one_by_one(bunny: Bunny, words: list[str]) -> None:
    ran = bunny(model("a", 0), model("b", 4), *words, "-o", "out")
    assert ran.exit_code == 0, ran.output
    assert value("out") == 3


def test_without_weights_all_models_have_equal_shares(bunny: Bunny) -> None:
    assert bunny(model("a", 0), model("b", 3), model("c", 6), "-o", "out").exit_code == 0
    assert value("out") == 3


def test_it_ends_with_what_was_merged_and_what_to_try(bunny: Bunny) -> None:
    ran = bunny(model("a", 0), model("b", 4), "-w", "0.3,0.7", "-o", "out", "--dtype", "bfloat16")
    shown = ran.stdout.splitlines()
    assert shown[:3] == ["0.3      a", "0.7      b", "model    out (bfloat16)"]
    assert 'Try next: bunny chat out PICTURE "What is this?"' in shown[-1].replace("python -m ", "")


def test_a_merged_folder_of_the_original_is_imported_next(bunny: Bunny) -> None:
    ran = bunny(model("a", 0, "bunny-phi"), model("b", 4, "bunny-phi"), "-o", "out")
    assert "import out -o out-bunny" in ran.stdout.splitlines()[-1]


def test_json_is_the_record(bunny: Bunny) -> None:
    ran = bunny(model("a", 0), model("b", 4), "-w", "0.3,0.7", "-o", "out", "--json")
    content = json.loads(ran.stdout)
    assert (content["model"], content["inputs"], content["weights"]) == ("out", ["a", "b"], [0.3, 0.7])
    assert content["dtype"] == "float32"


def test_weights_that_do_not_sum_to_one_are_noted(bunny: Bunny) -> None:
    ran = bunny(model("a", 1), model("b", 1), "-w", "1,1", "-o", "out")
    assert ran.exit_code == 0
    assert "the weights sum to 2" in ran.stderr
    assert value("out") == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["a", "b", "-w", "0.5", "-o", "out"], "2 models, 1 weights"),
        (["a", "b", "-w", "half,half", "-o", "out"], "not numbers"),
        (["a", "b", "-o", "out", "--dtype", "bfloat"], "did you mean `bfloat16`"),
        (["a", "b", "-o", "a"], "something is there already"),
        (["a", "missing", "-o", "out"], "no model there"),
        (["a", "b", "-o", "out", "--base", "phi"], "go with LoRA folders"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(bunny: Bunny, words: list[str], why: str) -> None:
    for name in ("a", "b", "lora"):
        model(name, 1)
    Path("lora", "adapter_config.json").write_text("{}")
    ran = bunny(*words)
    assert ran.exit_code == 2
    assert why in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not Path("out").exists()


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands for `import_model`: a LoRA named `lora-N` becomes a model full of N."""
    calls: list[tuple[Any, ...]] = []

    def import_model(folder: Path, out: Path, base: Any, vision_tower: Any, dtype: Any = None) -> dict[str, Any]:
        calls.append((str(folder), base, vision_tower, dtype))
        out.parent.mkdir(parents=True, exist_ok=True)
        model(str(out), float(folder.name.split("-")[1]))
        return {"dtype": dtype or "float32"}

    monkeypatch.setattr(convert, "import_model", import_model)
    for name in ("lora-1", "lora-3"):
        Path(name).mkdir(exist_ok=True)
        Path(name, "adapter_config.json").write_text("{}")
    return calls


def test_loras_become_whole_models_and_then_one(bunny: Bunny, imported: list[tuple[Any, ...]]) -> None:
    words = ["--base", "phi", "--vision-tower", "siglip", "--dtype", "bfloat16"]
    ran = bunny("lora-1", "lora-3", "-w", "0.5,0.5", "-o", "out", *words)
    assert ran.exit_code == 0, ran.output
    assert imported == [("lora-1", "phi", "siglip", None), ("lora-3", "phi", "siglip", None)]
    assert value("out") == 2
    record = json.loads(Path("out", "merge.json").read_text())
    assert (record["inputs"], record["config_from"]) == (["lora-1", "lora-3"], "lora-3")
    assert sorted(path.name for path in Path().iterdir()) == ["lora-1", "lora-3", "out"]


def test_one_lora_is_imported_straight_into_its_place(bunny: Bunny, imported: list[tuple[Any, ...]]) -> None:
    ran = bunny("lora-3", "-o", "out", "--base", "phi", "--dtype", "float16")
    assert ran.exit_code == 0, ran.output
    assert imported == [("lora-3", "phi", None, "float16")]
    assert value("out") == 3
    assert "model    out (float16)" in ran.stdout


def test_help_shows_examples_and_brings_no_torch(bunny: Bunny) -> None:
    assert "bunny merge runs/a/model runs/b/model -w 0.3,0.7" in bunny("--help").stdout
