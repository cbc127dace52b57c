"""Ranks that share one folder: who does what, who is given up, what is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.types import Task
from bunny.curate.engines import RankEngine, leading, make_engine
from tests.curate import made_tasks
from tests.curate.processes import STARTED, Started, kill_started, start, wait_for

MADE = "tests.curate.made_tasks"
INSIDE = "bunny.made_tasks"  # the same functions under a name that ranks accept; `lead` gives it to them


def task(function: str, output: Path, **arguments: Any) -> Task:
    return Task(f"{MADE}:{function}", arguments, output)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    kill_started()


def lead(block: dict[str, Any], lists: Any, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # each rank starts in a folder of its own
    sys.modules[INSIDE] = made_tasks
    for name in ("write", "process", "die", "refuse"):
        getattr(made_tasks, name).__module__ = INSIDE
    engine = make_engine(block)
    with leading(engine) as leads:
        for name, tasks in lists if leads else ():
            engine.run(name, [Task(f, a, Path(o)) for f, a, o in tasks])


def rank(folder: Path, number: int, lists: Any = (), world: int = 2, silent: float = 6.0) -> Started:
    block = {"use": "ranks", "rank": number, "world": world, "folder": str(folder), "silent_seconds": silent}
    err = folder.with_name(f"err-{number}-{len(STARTED)}")
    return start(lead, block, lists, folder.with_name(f"at-{number}"), err=err)


def written(folder: Path, count: int, seconds: float = 0.0) -> list[Any]:
    return [[f"{INSIDE}:write", {"text": str(n), "seconds": seconds}, str(folder / str(n))] for n in range(count)]


def ended(*processes: Started, seconds: float = 60) -> list[str]:
    """What each said on standard error; all have ended well."""
    said = [process.said(seconds) for process in processes]
    assert [process.status for process in processes] == [0] * len(processes), said
    return said


def test_two_ranks_share_several_lists(tmp_path: Path) -> None:
    who = [[f"{INSIDE}:process", {}, str(tmp_path / "who" / str(n))] for n in range(6)]
    lists = [["first", who], ["second", written(tmp_path / "out", 5)]]
    ended(rank(tmp_path / "ranks", 1), rank(tmp_path / "ranks", 0, lists))
    by = [(tmp_path / "who" / str(n)).read_text() for n in range(6)]
    assert by[0] == by[2] == by[4] != by[1] == by[3] == by[5]
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(5)}


def test_the_parts_of_a_killed_rank_are_made_by_the_others(tmp_path: Path) -> None:
    tasks = written(tmp_path / "out", 8)
    sign = [f"{INSIDE}:die", {"times": str(tmp_path / "times"), "count": 1}, str(tmp_path / "out" / "1")]
    tasks[1] = sign  # the first of rank 1's share kills it
    leader, other = rank(tmp_path / "ranks", 0, [["only", tasks]], silent=2.0), rank(tmp_path / "ranks", 1, silent=2.0)
    ended(leader)
    other.said(10)
    assert other.status == -signal.SIGKILL
    made = files(tmp_path / "out")
    assert made.pop("1") == b"survived 1"
    assert {name: made[name] for name in map(str, (0, *range(2, 8)))} == {
        str(n): str(n).encode() for n in (0, *range(2, 8))
    }


def test_rank_0_does_not_wait_for_ranks_that_never_come(tmp_path: Path) -> None:
    ended(rank(tmp_path / "ranks", 0, [["only", written(tmp_path / "out", 5)]], world=3, silent=0.5))
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(5)}


def test_a_rank_that_hangs_with_a_beating_heart_is_not_waited_for(tmp_path: Path) -> None:
    tasks = [task("write", tmp_path / "out" / str(n), text=str(n)) for n in range(4)]
    engine = RankEngine(folder=tmp_path / "ranks", rank=0, world=2, silent_seconds=2, stuck_seconds=1.0)
    with leading(engine), engine._board.beating(1, 0.1):  # type: ignore[union-attr]  # inside a session there is one
        engine.run("only", tasks)
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(4)}


def test_a_killed_rank_0_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    lists = [["first", written(tmp_path / "out", 4)], ["second", written(tmp_path / "more", 6, 0.3)]]
    other, leader = rank(tmp_path / "ranks", 1), rank(tmp_path / "ranks", 0, lists)
    wait_for(tmp_path / "more" / "0")
    os.kill(leader.pid, signal.SIGKILL)
    leader.said()
    stamp = (tmp_path / "out" / "0").stat().st_mtime_ns
    ended(rank(tmp_path / "ranks", 0, lists), other)
    assert (tmp_path / "out" / "0").stat().st_mtime_ns == stamp
    assert files(tmp_path / "more") == {str(n): str(n).encode() for n in range(6)}


def test_the_error_of_another_rank_is_told_by_all(tmp_path: Path) -> None:
    tasks = written(tmp_path / "out", 4)
    tasks[1] = [f"{INSIDE}:refuse", {"what": "a torn shard"}, str(tmp_path / "out" / "1")]
    leader, other = rank(tmp_path / "ranks", 0, [["only", tasks]]), rank(tmp_path / "ranks", 1)
    for process in (leader, other):
        assert "a torn shard" in process.said()
        assert process.status == 1
    assert sorted(files(tmp_path / "out")) == ["0", "2", "3"]


@pytest.mark.parametrize(
    "function",
    ["os:system", "bunny.core.store:fingerprint_files.__call__", "bunny.curate.engines.local:ended_by_signal"],
)
def test_a_list_may_name_only_functions_of_this_package(tmp_path: Path, function: str) -> None:
    with leading(engine := RankEngine(folder=tmp_path, rank=0, world=1)):
        board = engine._board
        assert board
        number = board.publish("evil", [0], [Task(function, {}, tmp_path / "out")])
        with pytest.raises(UserError, match=r"functions of `bunny` only|not a function of that module|cannot be found"):
            board.listed(number)


def test_ranks_come_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = {"use": "ranks", "folder": str(tmp_path)}
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="rank and world are not known"):
        make_engine(block)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert (made := make_engine(block)) and (made.rank, made.world) == (1, 4)  # type: ignore[attr-defined]  # RankEngine
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "64")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "64")
    with pytest.raises(UserError, match=r"rank 64 of 64: ranks go from 0 on \(SLURM: --array=0-63\)"):
        make_engine(block)
