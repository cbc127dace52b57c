"""A killed run goes on and ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bunny.core.errors import UserError
from bunny.core.store import Store
from bunny.train import checkpoints, trainer
from bunny.train.checkpoints import last_checkpoint
from bunny.train.trainer import StepTrainer, Stopped
from tests.train.job import state, train

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wanted(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that nobody disturbed."""
    return state(train(parts, tmp_path_factory.mktemp("whole")))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    do = StepTrainer.training_step

    def watched(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == step:
            raise error
        return do(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", watched)


def test_two_undisturbed_runs_end_alike_and_something_was_learnt(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor]
) -> None:
    assert same(state(train(parts, tmp_path / "again")), wanted)
    other = state(train(parts, tmp_path / "other", max_steps=5))
    assert not same(other, wanted)


@pytest.mark.parametrize("step", [1, 4, 5, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 3, 6))])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patched:
        stop_at(step, patched, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(parts, tmp_path)
    found = last_checkpoint(tmp_path)
    assert (found.name if found else None) == (f"checkpoint-{(step - 1) // 2 * 2}" if step > 2 else None)
    np.random.seed(step)  # what happened before does not matter
    torch.manual_seed(step)
    assert same(state(train(parts, tmp_path)), wanted)


def test_a_run_interrupted_after_its_last_step_only_finishes(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(parts, tmp_path)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
    stop_at(7, monkeypatch, AssertionError("no step is left"))
    assert same(state(train(parts, tmp_path)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("step", [int(np.random.default_rng(0).integers(3, 7))])
def test_a_killed_process_goes_on_to_the_same_weights(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], step: int
) -> None:
    def job(*more: str) -> int:
        command = [sys.executable, "-m", "tests.train.job", str(parts), str(tmp_path), *more]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode

    assert job(str(step)) == -signal.SIGKILL
    assert last_checkpoint(tmp_path) is not None
    assert not (tmp_path / "final.safetensors").exists()
    assert job() == 0
    assert same(load_file(tmp_path / "final.safetensors"), wanted)


def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    do = StepTrainer.training_step

    def asked(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return do(self, *args, **kwargs)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(StepTrainer, "training_step", asked)
        with pytest.raises(Stopped, match=r"stopped after step 3 of 6, as asked; it is saved.*run the same command"):
            train(parts, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert same(state(train(parts, tmp_path)), wanted)


@pytest.mark.parametrize("harm", ["no state", "torn state", "empty state"])
def test_a_half_written_checkpoint_is_not_used(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    with monkeypatch.context() as patched:
        stop_at(5, patched, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(parts, tmp_path)
    half = Path(shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-5"))
    (half / checkpoints.WEIGHTS).write_bytes(b"half")
    if harm == "no state":
        (half / checkpoints.LAST_WRITTEN).unlink()
    else:
        (half / checkpoints.LAST_WRITTEN).write_text("" if harm == "empty state" else '{"global_step": 5')
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert not half.exists()
    assert same(state(train(parts, tmp_path)), wanted)


def test_a_checkpoint_of_another_model_is_refused(parts: Path, tmp_path: Path) -> None:
    train(parts, tmp_path)
    with pytest.raises(UserError, match=r"saved tensors do not fit the model, e.g.") as error:
        train(parts, tmp_path, lora={"r": 2, "alpha": 8})
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    parts: Path, tmp_path: Path, wanted: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    got: list[dict[str, torch.Tensor]] = []

    def build(folder: Path) -> None:
        got.append(state(train(parts, folder)))

    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "save_file", full)
        with pytest.raises(UserError, match="No space left on device; make room there") as error:
            store.make("model", build, settings={})
    assert "\n" not in str(error.value)
    store.make("model", build, settings={})
    assert same(got[0], wanted)
