"""A whole run that is watched: previews and scores by the usual path of inference, the card, the last words."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bunny.core.recipe import Recipe
from bunny.pipeline.flow import run
from bunny.train.trainer import StepTrainer
from tests.test_story import recipe_file

WATCHED = [
    "tune.preview_every_steps=2",
    "align.preview_every_steps=4",
    "tune.evaluate_every_steps=2",
    "tune.evaluate=[{use: picture_yes_no, name: shapes, path: held.parquet, per_picture: 2}]",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """(run folder unwatched, run folder watched, the log of the second)."""
    folder = tmp_path_factory.mktemp("story")
    path = recipe_file(folder)
    run(Recipe.load(path), folder / "plain")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("bunny")
    level = log.level
    log.addHandler(handler)
    log.setLevel("INFO")
    run(Recipe.load(path, WATCHED), folder / "watched")
    log.removeHandler(handler)
    log.setLevel(level)
    yield folder / "plain", folder / "watched", "\n".join(lines)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_model_is_the_same_file(runs: tuple[Path, Path, str]) -> None:
    plain, watched, _ = runs
    for name in ("aligned/projector.safetensors", "model/model.safetensors"):
        assert (plain / name).read_bytes() == (watched / name).read_bytes()


def test_previews_are_of_both_kinds_of_rows(runs: tuple[Path, Path, str]) -> None:
    _, watched, _ = runs
    for stage, steps in (("aligned", {0, 4}), ("model", {0, 2, 4})):
        told = rows(watched / stage / "training" / "previews.jsonl")
        assert {row["step"] for row in told} == steps
        assert {row["held_out"] for row in told} == {False, True}
        page = (watched / stage / "training" / "previews" / "step-000004.html").read_text(encoding="utf-8")
        assert page.count("data:image/webp;base64,") >= 6
        assert "cannot be read" not in page
        assert not any(row["answer"].startswith("(") for row in told)


def test_the_last_score_while_learning_is_the_finished_models(runs: tuple[Path, Path, str]) -> None:
    _, watched, _ = runs
    during = rows(watched / "model" / "training" / "evaluations.jsonl")
    assert [row["step"] for row in during] == [2, 4]
    final = json.loads((watched / "scores" / "scores.json").read_text(encoding="utf-8"))["tasks"]["shapes"]
    last = during[-1]["tasks"]["shapes"]
    assert {key: last[key] for key in ("score", "low", "high", "n")} == {
        key: final[key] for key in ("score", "low", "high", "n")
    }


def test_the_cards_tell_what_was_done(runs: tuple[Path, Path, str]) -> None:
    plain, watched, _ = runs
    card = (watched / "model" / "README.md").read_text(encoding="utf-8")
    for said in ("| captions | 30 | 30 |", "30 of 47 stayed", "## Scores while it learnt", "## How well it answers"):
        assert said in card
    assert str(watched.parent) not in card  # nothing of this machine
    assert "## Scores while it learnt" not in (plain / "model" / "README.md").read_text(encoding="utf-8")
    assert "| captions | 30 | 30 |" in (watched / "aligned" / "README.md").read_text(encoding="utf-8")


def test_the_last_words_of_a_stage_say_where_its_result_is(runs: tuple[Path, Path, str]) -> None:
    _, watched, log = runs
    assert f"tune: the model: {watched / 'model'}; next: bunny chat {watched / 'model'} PICTURE" in log
    assert f"align: the aligned projector: {watched / 'aligned'}/projector.safetensors" in log
    assert log.splitlines()[-1].endswith(f"scores: {watched / 'scores'}/report.html")


@pytest.mark.slow
def test_a_run_killed_between_indexing_and_training_still_knows_its_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load(recipe_file(tmp_path), WATCHED)

    def fails(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StepTrainer, "training_step", fails)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run", ["align"])
    run(recipe, tmp_path / "run", ["align"])
    assert "| captions | 30 | 30 |" in (tmp_path / "run" / "aligned" / "README.md").read_text(encoding="utf-8")
    told = rows(tmp_path / "run" / "aligned" / "training" / "previews.jsonl")
    assert {row["step"] for row in told} == {0, 4}
