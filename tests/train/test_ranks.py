"""Several processes learn what one does, copies or pieces of the weights; a run goes on with another number of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.ranks import final, launch, train

LORA: dict[str, Any] = {"language_model": "lora"}
TWO: dict[str, dict[str, Any]] = {
    "projector alone, copies": {"language_model": "frozen"},
    "lora, copies": LORA,
    "full, pieces": {"language_model": "full"},
    "lora, pieces, recomputed": {"language_model": "lora", "parallel": "fsdp", "gradient_checkpointing": True},
    "lora, copies, features kept": {"language_model": "lora", "feature_cache": True},
    "full, pieces, tower learns": {"language_model": "full", "vision_tower": "train", "parallel": "fsdp"},
}
THREE: dict[str, dict[str, Any]] = {
    "tower learns, micro batches": {
        "language_model": "lora",
        "vision_tower": "train",
        "normalise": "micro_batches",
        "micro_batch_rows": 2,
    },
}


def close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "ways"), [(2, TWO), (3, THREE)], ids=["two", "three"])
def test_several_processes_learn_what_one_does(
    parts: Path, tmp_path: Path, ranks: int, ways: dict[str, dict[str, Any]]
) -> None:
    """One after the other in the same processes: no stage leaves anything behind that disturbs the next."""
    assert launch(ranks, parts, tmp_path / "many", ways) == 0
    for name, settings in ways.items():
        train(parts, tmp_path / "one" / name, settings)
        close(final(tmp_path / "one" / name), final(tmp_path / "many" / name))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [LORA, {"language_model": "full"}], ids=["copies", "pieces"])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    parts: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**settings, "save_every_steps": 1}
    train(parts, tmp_path / "one", settings)
    assert launch(2, parts, tmp_path / "many", {"x": settings}, kill_at=3) != 0
    assert list((tmp_path / "many" / "x").glob("checkpoint-*"))
    train(parts, tmp_path / "many" / "x", settings)
    close(final(tmp_path / "one"), final(tmp_path / "many" / "x"))
