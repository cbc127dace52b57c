"""`bunny eval` on whatever can answer; two processes give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model.build import build
from bunny.pipeline import flow
from bunny.text.template import Template
from tests.infer.foreign import save_llava
from tests.infer.test_endpoint import says, serving
from tests.pipeline.stub_tasks import Squares
from tests.tiny import save_language_model, save_tower

REPOSITORY = Path(__file__).parents[2]
TASK = "tests.pipeline.stub_tasks:Squares"


def save_bunny(folder: Path) -> Path:
    parts = folder / "parts"
    section = ModelSection(
        language_model=str(save_language_model(parts / "llama")), vision_tower=str(save_tower(parts / "siglip"))
    )
    template = Template.named("chatml")
    model, processor = build(section, template.model_dump(), template.jinja(), seed=0)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


def answers_of(folder: Path) -> dict[str, str]:
    """Key -> text, over all files of the cache."""
    lines = [line for file in sorted(folder.glob("answers*.jsonl")) for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return {row["key"]: row["text"] for row in rows}


def test_another_familys_folder_is_scored_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_llava(tmp_path / "llava")
    scored = flow.evaluate("llava", [{"use": TASK}], tmp_path / "out")
    assert scored["tasks"]["squares"]["n"] == 15
    assert scored["tasks"]["squares"]["answerer"].startswith("llava:")
    assert set(scored["tasks"]["squares"]["baselines"]) == {"majority", "blind"}
    assert (tmp_path / "out" / "report.html").exists()


def test_an_endpoint_is_scored_with_the_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: dict[str, Any], before: int) -> tuple[int, Any]:
        assert request["max_tokens"] == Squares().max_new_tokens  # the benchmark's own
        return says("yes" if len(request["messages"][0]["content"]) == 2 else "no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNNY_API_KEY", "mine")
    with serving(reply) as (server, url):
        scored = flow.evaluate("m", [{"use": TASK}], tmp_path / "out", endpoint=url)
        asked = len(server.seen)
        again = flow.evaluate("m", [{"use": TASK}], tmp_path / "out", endpoint=url)
    assert scored["tasks"]["squares"]["score"] == pytest.approx(100 / 3)
    assert scored["tasks"]["squares"]["baselines"]["blind"] == pytest.approx(200 / 3)
    assert server.keys == {"Bearer mine"}
    assert len(server.seen) == asked == 15 + 3  # blind: each text once; the second time nothing
    assert again["tasks"] == scored["tasks"]


def test_a_folder_without_a_model_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name in ("missing", "broken"):
        with pytest.raises(UserError):
            flow.evaluate(str(tmp_path / name), [{"use": TASK}], tmp_path / "out")


@pytest.mark.slow
def test_two_processes_answer_as_one_does_and_go_on_where_they_were_killed(tmp_path: Path) -> None:
    model = save_bunny(tmp_path)

    def bunny(output: str, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "bunny", "eval", str(model), "-t", TASK, "--output", output, "--json", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout))  # one answer, not two

    one, two = bunny("one"), bunny("two", "--processes", "2")
    assert one["tasks"] == two["tasks"]
    files = sorted(file.name for file in (tmp_path / "two").glob("answers*.jsonl"))
    assert files == ["answers.1.jsonl", "answers.jsonl"]
    lines = {file: (tmp_path / "two" / file).read_bytes().splitlines(keepends=True) for file in files}
    assert all(len(some) > 10 for some in lines.values())  # both took part
    assert answers_of(tmp_path / "two") == answers_of(tmp_path / "one")

    for file, some in lines.items():  # as a kill leaves them
        (tmp_path / "two" / file).write_bytes(b"".join(some[:4]) + some[4][:20])
    assert bunny("two", "--processes", "2")["tasks"] == one["tasks"]
    assert all((tmp_path / "two" / file).read_bytes().startswith(b"".join(lines[file][:4])) for file in files)
