"""A run that is watched: it learns the same as one that is not, and leaves what it saw."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bunny.core.errors import UserError
from bunny.core.types import Answer, EvalResult, GenerationSettings, ImageRef, Interval, Question
from bunny.infer.answerer import ModelAnswerer
from bunny.infer.generate import Generator
from bunny.train import watchers
from bunny.train.learn import set_learning
from bunny.train.pausing import at_rest
from bunny.train.stage import train_stage
from bunny.train.trainer import StepTrainer
from bunny.train.watchers import Lent, _due, check_watching
from tests.train.job import model_of, open_image, samples, section, state, train

HELD_OUT = [Question("h0", "what colour?", (ImageRef("77"),), ("red",))]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(model: Any, processor: Any, questions: Sequence[Question]) -> list[str]:
    """The usual path of inference; and it spoils all random states, as a benchmark might."""
    answerer = ModelAnswerer(Generator(model, processor), "m", open_image, GenerationSettings(max_new_tokens=4))
    found: Mapping[str, Answer] = {one.id: one for one in answerer.answer(questions)}
    assert not any(one.error for one in found.values())
    torch.rand(3), np.random.rand(3), random.random()
    return [found[question.id].text for question in questions]


def score(model: Any, processor: Any, step: int) -> Mapping[str, EvalResult]:
    answer(model, processor, HELD_OUT)
    return {"shapes": EvalResult("shapes", Interval(50.0 + step, 40.0, 70.0), 12, statuses={"ok": 12, "empty": 0})}


def watch(parts: Path, folder: Path, **changes: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    lent = Lent(answer=answer, score=score, thumbnail=lambda ref: f"data:image/x;{ref}", held_out=HELD_OUT)
    settings = {"preview_every_steps": 2, "evaluate": [{"use": "x"}], "evaluate_every_steps": 4, **changes}
    return train_stage(
        section(**settings), *model_of(parts), samples(), open_image, folder, seed=3, name="tune", lent=lent
    )


@pytest.fixture(scope="module")
def seen(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """(folder, weights) of a watched run of six steps."""
    folder = tmp_path_factory.mktemp("watched") / "training"
    return folder, state(watch(parts, folder))


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_watched_run_ends_with_the_same_weights(
    parts: Path, tmp_path: Path, seen: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    assert same(state(train(parts, tmp_path)), seen[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"language_model": "full"}, {"language_model": "frozen"}, {"gradient_checkpointing": True}]
)
def test_so_does_every_kind_of_run(parts: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    want = state(train(parts, tmp_path / "plain", **changes))
    assert same(state(watch(parts, tmp_path / "watched", **changes)), want)


def test_an_interrupted_run_leaves_every_step_once(
    parts: Path,
    tmp_path: Path,
    seen: tuple[Path, dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do = StepTrainer.training_step

    def fails(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == 6:
            raise KeyboardInterrupt
        return do(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(StepTrainer, "training_step", fails)
        with pytest.raises(KeyboardInterrupt):
            watch(parts, tmp_path)
    assert (tmp_path / "curves.png").exists()  # a run that fails is looked at most
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # torn by the kill
    assert same(state(watch(parts, tmp_path)), seen[1])
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in lines(tmp_path / "evaluations.jsonl")] == [4, 6]
    told = [(row["step"], row["id"]) for row in lines(tmp_path / "previews.jsonl")]
    assert told == [(row["step"], row["id"]) for row in lines(seen[0] / "previews.jsonl")]


def test_figures_of_every_step(seen: tuple[Path, Any]) -> None:
    rows = lines(seen[0] / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert row["loss"] > 0
        assert row["grad_norm"] > 0
        assert row["seconds"] > 0
        assert row["tokens"] > 0
        assert row["samples_per_second"] == pytest.approx(4 / row["seconds"], rel=0.01)
        assert row["times_fewer_tokens"] > 1  # two rows share a picture
        assert row["memory_gb"] > 0
        assert row["mfu"] > 0
    assert (seen[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_answers_before_in_between_and_at_the_end(seen: tuple[Path, Any]) -> None:
    rows = lines(seen[0] / "previews.jsonl")
    assert sorted({row["step"] for row in rows}) == [0, 2, 4, 6]
    first = [row for row in rows if row["step"] == 0]
    assert [row["held_out"] for row in first] == [False] * 6 + [True]
    assert first[-1]["wanted"] == "red"
    assert {row["question"] for row in first} <= {"what colour?", "is it red?"}
    pages = sorted(path.name for path in (seen[0] / "previews").iterdir())
    assert pages == [f"step-{step:06d}.html" for step in (0, 2, 4, 6)]


def test_scores_in_between_and_at_the_end(seen: tuple[Path, Any]) -> None:
    rows = lines(seen[0] / "evaluations.jsonl")
    assert [row["step"] for row in rows] == [4, 6]
    assert rows[0]["tasks"] == {"shapes": {"score": 54.0, "low": 40.0, "high": 70.0, "n": 12, "statuses": {"ok": 12}}}


def test_the_same_modes_attention_and_randomness_after_a_pause(parts: Path) -> None:
    model, _ = model_of(parts)
    learning = set_learning(model, section())
    learning.train()
    model.model.vision_tower.eval()  # a mode of its own
    model.model.language_model.set_attn_implementation("bunny_packed")
    modes = [module.training for module in learning.modules()]
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="in between"), at_rest(learning, "sdpa") as inner:
        assert type(inner).__name__ == "BunnyForConditionalGeneration"
        assert not any(module.training for module in learning.modules())
        assert inner.model.language_model.config._attn_implementation == "sdpa"
        torch.rand(2), np.random.rand(2), random.random()
        raise RuntimeError("in between")
    assert [module.training for module in learning.modules()] == modes
    assert model.model.language_model.config._attn_implementation == "bunny_packed"
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_no_memory_to_ask_does_not_end_the_run(
    parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("all gone")

    lent = Lent(score=full)
    with caplog.at_level(logging.WARNING, "bunny"):
        train_stage(
            section(max_steps=1, evaluate=[{"use": "x"}]),
            *model_of(parts),
            samples(),
            open_image,
            tmp_path,
            seed=3,
            name="tune",
            lent=lent,
        )
    assert "no memory to ask after step 1: all gone" in caplog.text
    assert not (tmp_path / "evaluations.jsonl").exists()


def test_how_often_without_what_is_refused() -> None:
    with pytest.raises(UserError, match="`evaluate` names no benchmark"):
        check_watching(section(evaluate_every_steps=2))


@pytest.mark.parametrize(("every", "total", "steps"), [(2, 5, [2, 4, 5]), (2, 4, [2, 4]), (None, 3, [3]), (9, 3, [3])])
def test_asked_every_so_often_and_at_the_end(every: int | None, total: int, steps: Iterable[int]) -> None:
    assert [step for step in range(1, total + 1) if _due(step, every, step == total)] == steps


def test_curves_are_drawn_with_checkpoints_but_not_too_often(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(watchers, "draw_curves", lambda rows, path, name, evaluations: drawn.append(path))
    train(parts, tmp_path / "a")
    assert len(drawn) == 1
    monkeypatch.setattr(watchers, "DRAW_SECONDS", 0.0)
    train(parts, tmp_path / "b")
    assert len(drawn) == 1 + 3 + 1
