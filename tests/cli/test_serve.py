"""`bunny serve`: what is wrong with its words is said before anything is loaded; what it does, in one go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bunny.cli import app
from tests.infer.test_generate import generator, parts  # noqa: F401  # a fixture
from tests.serve.hostile import question
from tests.serve.sending import ask, get

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUNNY_API_KEY", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What looks like a model's folder from outside."""
    made = tmp_path / "run" / "model"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"")
    return made


def refusal(*words: str) -> str:
    ran = CliRunner().invoke(app, ["serve", *words])
    assert ran.exit_code == 2, ran.output
    return " ".join(ran.stderr.split())


def test_the_help_shows_examples() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).stdout
    assert "bunny serve runs/demo/model" in shown and "--backend openai" in shown


def test_without_a_model_it_says_what_to_give() -> None:
    assert "bunny serve runs/demo/model" in refusal()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert "no config.json" in refusal(str(tmp_path))


def test_weights_that_could_run_code_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no weights in safetensors" in refusal(str(folder))


def test_two_models_of_one_name_are_told_apart(folder: Path) -> None:
    assert "two models are called `run`" in refusal(str(folder), str(folder))


def test_an_address_for_others_demands_a_key(folder: Path) -> None:
    assert "without a key" in refusal(str(folder), "--host", "0.0.0.0")


def test_a_key_that_can_be_guessed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_API_KEY", "secret")
    told = refusal(str(folder))
    assert "16 plain letters" in told and "secret" not in told


def test_a_key_file_without_keys_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n\n")
    assert "no key in it" in refusal(str(folder), "--api-key-file", str(file))


def test_folders_to_look_at_do_not_go_with_a_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_API_KEY", KEY)
    assert "to everybody" in refusal(str(folder), "--evaluation", str(folder))


def test_a_folder_without_a_report_is_named(folder: Path) -> None:
    assert "compare.html" in refusal(str(folder), "--evaluation", str(folder))


def test_a_media_folder_that_is_none_is_named(folder: Path) -> None:
    assert "no such folder" in refusal(str(folder), "--media-root", str(folder / "nothing"))


@pytest.mark.parametrize("words", [["--backend", "openai"], ["--url", "http://x/v1"], ["--backend", "other"]])
def test_a_server_behind_needs_both_words(words: list[str]) -> None:
    assert "--backend openai --url URL" in refusal(*words)


def test_a_server_behind_that_is_not_there_is_named() -> None:
    assert "check --url" in refusal("--backend", "openai", "--url", "http://127.0.0.1:9/v1")


@pytest.mark.slow
def test_it_serves_a_model_and_a_page_and_ends_well(parts: Path, tmp_path: Path) -> None:  # noqa: F811
    maker = generator(parts)
    for made in (maker.model, maker.processor):
        made.save_pretrained(tmp_path / "tiny")
    (tmp_path / "compare.html").write_text("<script>1</script>")
    words = [str(tmp_path / "tiny"), "--port", "0", "--evaluation", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bunny", "serve", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        told = ""
        while "ready: tiny" not in told and (line := process.stderr.readline()):
            told += line
        address = str(re.search(r"http://127.0.0.1:\d+", told)[0])  # type: ignore[index]
        assert "not needed" in told and f"curl {address}/v1/chat/completions" in told
        status, said = ask(address, {**question("what is this?", max_tokens=3), "model": "tiny"})
        assert status == 200 and said["usage"]["completion_tokens"] > 0
        config: dict[str, Any] = json.loads(get(address, "/page/config.json")[2])
        assert config["links"] == [{"title": "Evaluation", "href": "evaluation/"}]
        _, headers, body = get(address, "/evaluation/")
        assert b"<script>" in body and "sandbox allow-scripts" in headers["content-security-policy"]
        assert get(address, "/evaluation/tiny/config.json")[0] == 404
        reading = threading.Thread(target=process.stderr.read)
        reading.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        reading.join()
