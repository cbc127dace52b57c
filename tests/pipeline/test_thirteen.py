"""All thirteen published benchmarks through a real model, as a user types it, and back from the answers it wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.recipe import find
from bunny.evaluate import BENCHMARKS
from bunny.evaluate.official.benchmark import ROOT
from bunny.pipeline.scoring import published
from tests.pipeline.test_answering import REPOSITORY, answers_of, save_bunny


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small made-up set of each benchmark, in its official layout, under one folder."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in published():
        (folder / name).mkdir()
        find(name, BENCHMARKS, "test").example(folder / name)  # type: ignore[attr-defined]
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bunny(tmp_path_factory.mktemp("model"))


def bunny(*words: object, code: int = 0) -> Any:
    """What `bunny eval … --json` prints."""
    ran = CliRunner().invoke(app, ["eval", *map(str, words), "--json"])
    assert ran.exit_code == code, ran.stderr
    return json.loads(ran.stdout)


def test_answers_of_a_real_model_score_the_same_when_read_back(
    root: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(root))
    monkeypatch.chdir(tmp_path)
    tasks = bunny(model, "-t", ",".join(published()), "--max-new-tokens", 3, "--output", tmp_path / "out")["tasks"]
    assert set(tasks) == set(published()) and len(tasks) == 13
    for name, task in tasks.items():
        again = bunny("score", name, tmp_path / "out" / "answers" / f"{name}.jsonl")
        assert (again["n"], again["joined_by_id"]["score"]) == (task["n"], pytest.approx(task["score"], abs=1e-9)), name
        assert again["reading"]["counts"]["missing"] == again["reading"]["counts"]["unknown_ids"] == 0
        assert {kind: again["reading"]["statuses"].get(kind) for kind in ("ok", "fallback", "malformed", "empty")} == {
            kind: task["statuses"].get(kind) for kind in ("ok", "fallback", "malformed", "empty")
        }, name


def test_the_doctor_sees_the_files_of_all_and_says_that_they_are_short(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(root))
    files = bunny("doctor", code=1)["files"]
    assert {file["task"] for file in files} == set(published())
    assert {file["task"] for file in files if file["state"] != "missing"} == set(published())
    assert any(" of 8910 rows" in file["detail"] for file in files if file["task"] == "pope")


@pytest.mark.slow
def test_a_run_that_was_killed_is_ended_by_two_processes_and_says_what_one_says(
    root: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(root))
    words = [model, "-t", "pope,mme", "--max-new-tokens", 3, "--batch-rows", 2]
    whole = bunny(*words, "--output", tmp_path / "whole")["tasks"]
    line = [sys.executable, "-m", "bunny", "eval", *map(str, words), "--output", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    started = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cache = tmp_path / "killed" / "answers.jsonl"
    while started.poll() is None and not (cache.exists() and cache.read_bytes().count(b"\n") >= 5):
        time.sleep(0.005)
    assert started.poll() is None, "it ended before it could be killed"
    started.send_signal(signal.SIGKILL)
    started.wait()
    before = cache.read_bytes()
    ended = subprocess.run(
        [*line, "--json", "--processes", "2"], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout)["tasks"] == whole
    assert cache.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert answers_of(tmp_path / "killed") == answers_of(tmp_path / "whole")
