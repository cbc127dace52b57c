"""Named random streams."""

from __future__ import annotations

import subprocess
import sys

from bunny.core.seeds import stream


def test_the_same_name_and_seed_give_the_same_numbers() -> None:
    assert stream("curate.sample", 3).integers(1 << 40, size=8).tolist() == (
        stream("curate.sample", 3).integers(1 << 40, size=8).tolist()
    )


def test_another_name_or_seed_gives_other_numbers() -> None:
    draws = {tuple(stream(name, seed).integers(1 << 40, size=4)) for name in "ab" for seed in (0, 1)}
    assert len(draws) == 4


def test_a_name_and_seed_are_not_run_together() -> None:
    assert stream("a1", 1).integers(1 << 40) != stream("a", 11).integers(1 << 40)


def test_streams_are_the_same_in_every_process() -> None:
    code = "from bunny.core.seeds import stream; print(stream('x', 7).integers(1 << 40))"
    runs = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)}
    assert runs == {f"{stream('x', 7).integers(1 << 40)}\n".encode()}
