"""Trackers: the right figures in the right places, and a clear word where a package is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from transformers.integrations import integration_utils

from bunny.core.errors import UserError
from bunny.train import trackers
from bunny.train.stage import train_stage
from bunny.train.trackers import check_trackers
from bunny.train.watchers import Lent
from tests.train.job import model_of, open_image, samples, section, train
from tests.train.test_watchers import score


class Stub(ModuleType):
    """wandb's and trackio's functions as transformers uses them; remembers all calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.run: Any = None
        self.rows: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.config: Any = Config()
        self.context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))

    def init(self, **settings: Any) -> Any:
        self.calls.append(("init", settings))
        self.run = SimpleNamespace(id=settings.get("id") or "made-up", summary={}, _label=lambda **_: None)
        return self.run

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.calls.append(("finish", {}))
        self.run = None


class Config(dict[str, Any]):
    def update(self, *args: Any, allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(*args)


@pytest.fixture(params=["wandb", "trackio"])
def stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """A stand-in for the package, which is installed nowhere near."""
    made = Stub(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    config_util = ModuleType("wandb.sdk.lib.config_util")
    config_util.ConfigError = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", config_util)
    monkeypatch.setattr(integration_utils, f"is_{request.param}_available", lambda: True)
    monkeypatch.setattr(trackers, "_installed", lambda name: name in (request.param, "tensorboard"))
    return made


def test_every_figure_and_score_arrives(parts: Path, tmp_path: Path, stub: Stub) -> None:
    folder = tmp_path / "demo" / ".model.9f86d081884c7d65" / "training"
    folder.mkdir(parents=True)
    settings = section(max_steps=2, trackers=[stub.__name__], evaluate=[{"use": "x"}])
    lent = Lent(score=score)
    train_stage(settings, *model_of(parts), samples(), open_image, folder, seed=3, name="tune", lent=lent)
    steps = [row for row in stub.rows if "train/loss" in row]
    assert [row["train/global_step"] for row in steps] == [1, 2]
    assert {"train/tokens_per_second", "train/grad_norm", "train/learning_rate", "train/memory_gb"} <= steps[0].keys()
    assert [(row["eval/shapes"], row["train/global_step"]) for row in stub.rows if "eval/shapes" in row] == [(52.0, 2)]
    (first, begun), (last, _) = stub.calls
    assert (first, last) == ("init", "finish")
    assert (begun["project"], begun["name"], begun["resume"]) == ("bunny", "demo/tune 9f86d081", "allow")
    assert not (folder / "tensorboard").exists()


def test_a_run_cut_short_is_finished_there_too(parts: Path, tmp_path: Path, stub: Stub) -> None:
    def fails(*_: Any) -> Any:
        raise KeyboardInterrupt

    settings = section(max_steps=1, trackers=[stub.__name__], evaluate=[{"use": "x"}])
    with pytest.raises(KeyboardInterrupt):
        train_stage(
            settings, *model_of(parts), samples(), open_image, tmp_path, seed=3, name="tune", lent=Lent(score=fails)
        )
    assert stub.calls[-1] == ("finish", {})


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_stops_the_run_before_it_starts(
    parts: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_installed", lambda other: other != name)
    with pytest.raises(UserError) as error:
        train(parts, tmp_path, trackers=["tensorboard", name])
    assert str(error.value) == (
        f"trackers: the Python package `{name}` is not installed; pip install 'bunny-vlm[{name}]', "
        f"or leave {name} out of `trackers`"
    )
    assert not (tmp_path / "left_out.jsonl").exists()


def test_tensorboard_may_be_missing_unless_it_was_asked_for(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_installed", lambda name: False)
    train(parts, tmp_path, max_steps=1)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    check_trackers(section(trackers=[]))


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_has_every_step_once_after_a_second_run(parts: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(parts, tmp_path, max_steps=4)
    (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
    train(parts, tmp_path, max_steps=4)  # from the beginning: no whole checkpoint is left
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shown = events.Scalars("train/loss")
    assert [one.step for one in shown] == [1, 2, 3, 4]
    assert [one.value for one in shown] == pytest.approx(losses)
