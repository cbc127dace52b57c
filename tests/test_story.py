"""The whole story in seconds: raw pairs to a curated set, an aligned projector, a tuned model, scores, a chat."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageDraw

import bunny
from bunny.core.errors import UserError
from bunny.core.recipe import Recipe, Section
from bunny.core.types import Embedded
from bunny.pipeline.flow import plan, run
from tests.tiny import save_language_model, save_tower

COLOURS = ["red", "green", "blue", "yellow"]
SHAPES = ["circle", "square"]


class Colours(Section):
    """A ten-line embedder: a picture's corners and middle; a caption's colour and shape words."""

    @property
    def name(self) -> str:
        return "colours"

    @property
    def dim(self) -> int:
        return 6

    def embed(self, pictures: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> Embedded:
        image = np.stack([np.r_[p[16, 16] / 255, p[0, 0] / 255] + 0.01 for p in pictures]).astype(np.float32)
        words = [*COLOURS, *SHAPES]
        text = np.array([[word in text for word in words] for text in texts], dtype=np.float32) + 0.01
        return Embedded(*(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (image, text)))


def drawing(colour: str, shape: str, seed: int) -> bytes:
    """A PNG of one shape of that colour, moved a little by the seed."""
    picture = Image.new("RGB", (32, 32), (seed % 5 * 40, 90, 120))
    x, y = 6 + seed % 4, 6 + seed // 4 % 4
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if shape == "circle" else pen.rectangle)((x, y, x + 15, y + 15), fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def pictures(path: Path, seeds: range, copies: int = 0) -> None:
    """A Parquet file of drawings with captions and words; the first `copies` rows are there twice, one is damaged."""
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        colour, shape = COLOURS[seed % 4], SHAPES[seed // 4 % 2]
        words = [colour, shape]
        image = drawing(colour, shape, seed)
        rows.append({"id": f"p{seed}", "image": image, "caption": f"a {colour} {shape}", "words": words})
    rows += [row | {"id": f"{row['id']}-again"} for row in rows[:copies]]
    if copies:
        rows.append({"id": "torn", "image": rows[0]["image"][:50], "caption": "a torn one", "words": []})
    pq.write_table(pa.Table.from_pylist(rows), path)


def recipe_file(folder: Path) -> Path:
    """Everything a run needs, in one folder."""
    save_tower(folder / "tower")
    save_language_model(folder / "llm")
    pictures(folder / "pool.parquet", range(40), copies=6)
    pictures(folder / "held.parquet", range(40, 56))
    stage = {"rows_per_step": 8, "max_steps": 4, "epochs": 9, "save_every_steps": 2}
    tree = {
        "name": "story",
        "pool": {"source": {"use": "table", "path": "pool.parquet"}},
        "curate": {
            "embedder": {"use": "tests.test_story:Colours"},
            "steps": [{"use": "exact"}, {"use": "cluster", "groups": 4}, {"use": "sample", "count": 30}],
            "threads": 1,
        },
        "model": {
            "language_model": str(folder / "llm"),
            "vision_tower": str(folder / "tower"),
            "projector": "spp_v1",
            "template": "chatml",
        },
        "align": {
            "data": [{"use": "captions", "plain": True}],
            "language_model": "frozen",
            "learning_rate": 1e-2,
            "template": "plain",
            **stage,
        },
        "tune": {
            "data": [{"use": "captions"}],
            "language_model": "lora",
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
            "learning_rate": 1e-3,
            **stage,
        },
        "evaluate": {
            "tasks": [{"use": "picture_yes_no", "name": "shapes", "path": "held.parquet", "per_picture": 2}],
            "max_new_tokens": 3,
        },
        "fast": {"tune.max_steps": 1},
    }
    path = folder / "story.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(recipe file, run folder, results) of a finished run."""
    folder = tmp_path_factory.mktemp("story")
    path = recipe_file(folder)
    return path, folder / "run", run(Recipe.load(path), folder / "run")


Told = tuple[Path, Path, dict[str, Any]]


def made_at(output: Path) -> dict[str, int]:
    return {name: (output / name / "manifest.json").stat().st_mtime_ns for name in FOLDERS}


FOLDERS = ("curated", "aligned", "model", "scores")


def test_results_have_the_promised_shape(told: Told) -> None:
    _, output, results = told
    assert json.loads((output / "results.json").read_text()) == results
    assert set(results["tasks"]) == {"shapes"}
    scores = results["tasks"]["shapes"]
    assert scores["low"] <= scores["score"] <= scores["high"]
    assert scores["n"] > 0
    assert set(scores["baselines"]) == {"majority", "blind", "untrained"}
    assert set(results["seconds"]) == {"curate", "align", "tune", "evaluate"}
    assert Path(results["model"]) == output / "model"
    assert Path(results["report"]).exists()
    assert Path(results["curation_report"]).exists()


def test_curation_drops_the_copies_and_names_a_reason_for_every_row(told: Told) -> None:
    _, output, _ = told
    rows = pq.read_table(output / "curated" / "decisions.parquet").to_pylist()
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows) >= 46
    kept = set(pq.read_table(output / "curated" / "samples.parquet").column("id").to_pylist())
    assert len(kept) == 30
    assert "torn" not in kept
    for number in range(6):
        assert not {f"p{number}", f"p{number}-again"} <= kept


def test_every_stage_leaves_what_it_promises(told: Told) -> None:
    _, output, _ = told
    assert (output / "aligned" / "projector.safetensors").exists()
    for name in ("aligned", "model"):
        assert (output / name / "training" / "curves.png").exists()
        assert len((output / name / "training" / "metrics.jsonl").read_text().splitlines()) == 4
    assert (output / "model" / "model.safetensors").exists()
    assert not [path for path in output.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_a_second_run_does_nothing(told: Told) -> None:
    path, output, results = told
    before = made_at(output)
    assert [stage["state"] for stage in plan(Recipe.load(path), output)] == ["done"] * 4
    assert run(Recipe.load(path), output) == results
    assert made_at(output) == before


def test_the_model_answers(told: Told) -> None:
    path, output, _ = told
    chat = bunny.load(output / "model")
    picture = path.parent / "one.png"
    picture.write_bytes(drawing("red", "circle", 77))
    answer = chat.chat([picture], "What is this?")
    assert isinstance(answer, str)
    assert chat.chat([picture], "What is this?") == answer
    assert isinstance(chat.chat([], "Hello?"), str)
    with pytest.raises(UserError, match=r"nowhere.png"):
        chat.chat([path.parent / "nowhere.png"], "What is this?")


def test_a_changed_tune_setting_redoes_tune_and_evaluate_only(told: Told) -> None:
    path, output, _ = told
    before = made_at(output)
    changed = Recipe.load(path, ["tune.max_steps=2"])
    assert [stage["state"] for stage in plan(changed, output)] == ["done", "done", "to do", "to do"]
    run(changed, output)
    after = made_at(output)
    assert {name for name in FOLDERS if after[name] != before[name]} == {"model", "scores"}
    assert len((output / "model" / "training" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_run_killed_in_tuning_goes_on_there(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bunny.train.trainer import StepTrainer

    path, _, _ = told
    recipe, steps = Recipe.load(path), []
    step = StepTrainer.training_step

    def watched(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 7:  # four of align, then the third of tune
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", watched)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path, only=["tune"])
    run(recipe, tmp_path, only=["tune"])
    assert steps == [0, 1, 2, 3, 0, 1, 2, 2, 3]
    assert (tmp_path / "model" / "model.safetensors").exists()
