"""`bunny export` as a user meets it: what it prints, what it leaves, what it refuses; and the way to the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from bunny.cli import app
from bunny.core.errors import UserError
from bunny.export import llava, verifying
from bunny.export.verifying import Agreement
from bunny.model.build import load
from bunny.pipeline.convert import import_model
from bunny.pipeline.exporting import Wishes, export
from bunny.pipeline.model_push import check_push, push_model
from tests.original_folders import make
from tests.pipeline.test_publishing import Hub

Bunny = Callable[..., Result]


@pytest.fixture
def bunny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    monkeypatch.chdir(tmp_path)
    make(Path(), "bunny-minicpm").save_whole(Path("model"))
    import_model(Path("model"), Path("ours"))
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


def agreed(*failures: str) -> Callable[..., Agreement]:
    return lambda *_: Agreement(6, 1e-6, 2e-6, 99, failures)


def test_it_ends_with_what_was_done_and_what_to_run(bunny: Bunny) -> None:
    ran = bunny("export", "ours", "--to", "llava", "-o", "out")
    assert ran.exit_code == 0, ran.output
    assert "folded: embedding_multiplier 12, residual_multiplier" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "Try next: vllm serve out"


def test_agreement_is_printed_and_gives_the_folder_its_name(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "verify_llava", agreed())
    ran = bunny("export", "ours", "--to", "llava", "-o", "out", "--verify")
    assert ran.exit_code == 0, ran.output
    assert "compared: 6 talks, 99 greedy tokens" in ran.stdout
    assert Path("out/model.safetensors").exists()
    assert not Path("out-unverified").exists()


def test_disagreement_is_exit_code_1_and_a_folder_that_says_so(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "verify_llava", agreed("talk 0: pixels differ"))
    ran = bunny("export", "ours", "--to", "llava", "-o", "out", "--verify")
    assert ran.exit_code == 1
    assert "not equal (1): talk 0: pixels differ" in ran.stdout
    assert "Not verified" in ran.stdout
    assert "Try next" not in ran.stdout
    assert not Path("out").exists()
    assert Path("out-unverified/model.safetensors").exists()


def test_merged_is_the_same_model_in_another_dtype(bunny: Bunny) -> None:
    ran = bunny("export", "ours", "--to", "merged", "-o", "out", "--dtype", "bfloat16", "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["dtype"] == "bfloat16"
    before, after = (load(folder)[0].state_dict() for folder in ("ours", "out"))
    assert all(torch.equal(after[name], tensor.bfloat16().float()) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ours", "--to", "lava", "-o", "out"], "did you mean `llava`?"),
        (["nowhere", "--to", "llava", "-o", "out"], "nowhere: no model there"),
        (["ours", "--to", "llava", "-o", "model"], "something already"),
        (["ours", "--to", "llava", "-o", "ours/out"], "lies inside ours"),
        (["ours", "--to", "gguf", "--type", "q5", "-o", "out"], "--type q5"),
        (["ours", "--to", "llava", "--type", "q8_0", "-o", "out"], "--type has no meaning for --to llava"),
        (["ours", "--to", "gguf", "--dtype", "float16", "-o", "out"], "--dtype has no meaning for --to gguf"),
        (["ours", "--to", "merged", "--verify", "-o", "out"], "--verify has no meaning for --to merged"),
        (["ours", "--to", "llava", "-o", "out", "--push-to-hub", "me"], "`me` is no repository"),
        (["ours", "--to", "llava", "-o", "out", "--push-to-hub", "me/it"], "under which licence?"),
    ],
)
def test_what_is_wrong_is_one_line_exit_code_2_and_nothing_written(bunny: Bunny, words: list[str], why: str) -> None:
    ran = bunny("export", *words)
    assert ran.exit_code == 2, ran.output
    assert ran.stderr.count("\n") == 1
    assert why in ran.stderr
    assert not Path("out").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out/model.safetensors")

    monkeypatch.setattr(llava, "write_tensors", full)
    ran = bunny("export", "ours", "--to", "llava", "-o", "out")
    assert ran.exit_code == 2
    assert "No space left on device" in ran.stderr
    assert [path.name for path in Path().iterdir() if "out" in path.name] == []


def test_a_push_writes_a_card_with_the_figures_and_uploads_the_folder(bunny: Bunny) -> None:
    Path("ours/README.md").write_text("---\nlicense: mit\nbase_model: [a/b]\ntags: [old]\n---\n\n# Mine\n\nWords.\n")
    facts = export(Path("ours"), Path("out"), "llava", Wishes())
    facts["agreement"] = {"probes": 6, "tokens": 99, "logits": 1e-6, "allowed": 2e-6, "failures": (), "figures": ()}
    hub = Hub()
    licence = check_push(Path("ours"), "lab/model", "")
    push_model(Path("ours"), facts, "lab/model", licence, True, api=hub)
    (_, made), (name, sent) = hub.calls
    assert made == {"repo_id": "lab/model", "repo_type": "model", "private": True, "exist_ok": True}
    assert (name, sent["repo_type"]) == ("upload_folder", "model")
    text = (Path(sent["folder_path"]) / "README.md").read_text()
    meta = yaml.safe_load(text.split("---")[1])
    assert (meta["license"], meta["base_model"], meta["library_name"]) == ("mit", ["a/b"], "transformers")
    assert meta["tags"] == ["old", "bunny-vlm", "vision-language", "llava"]
    assert "# Mine\n\nWords." in text
    assert "6 talks, 99 greedy tokens; logits differ by 1e-06 at most" in text
    assert facts["url"] == "https://huggingface.co/lab/model"


def test_a_hub_that_refuses_is_one_line(bunny: Bunny) -> None:
    facts = export(Path("ours"), Path("out"), "llava", Wishes())
    with pytest.raises(UserError, match="cannot be reached"):
        push_model(Path("ours"), facts, "lab/model", "mit", False, api=Hub(OSError("no network")))
