"""A whole curation, by the real command: whoever does the work, in whatever pieces, the same bytes come out."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bunny.curate import grouping, levels, linking, missed
from bunny.pipeline import curation
from tests.curate.made_vectors import write_vectors
from tests.curate.outcomes import marks

STEPS = [
    {"use": "exact", "by": "caption", "normalise": True},
    {"use": "rules", "min_words": 3},
    {"use": "cluster", "groups": 8},
    {"use": "dedup", "above": 0.9, "curve_from": 0.6},
    {"use": "semdedup", "eps": 0.2},
    {"use": "balance", "most": 20},
    {"use": "band", "by": "pair_cosine", "high": 0.9},
    {"use": "sample", "count": 100},
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and `alone`, the run that this process has made of it with one thread and one worker."""
    folder = tmp_path_factory.mktemp("same")
    write_vectors(folder / "source", files=4, rows=225)
    tree = {"pool": {"source": {"use": "clip_retrieval", "path": "source"}}, "name": "same", "seed": 5}
    tree["curate"] = {"steps": STEPS, "part_rows": 100}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    curation.run(curation.load(folder / "recipe.yaml"), folder / "alone")
    return folder


@pytest.fixture(scope="module")
def alone(here: Path) -> dict[str, str]:
    found = marks(here / "alone")
    parts = [name for name in found if name.endswith("facts.arrow")]
    assert len(parts) == 12 and {"curated/decisions.parquet", "curated/samples.parquet"} <= set(found)
    dropped = {step["step"]: step["in"] - step["out"] for step in _summary(here / "alone")["steps"]}
    assert dropped.pop("cluster") == 0 and all(dropped.values()), f"{dropped}: every step has something to do"
    return found


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def bunny(here: Path, name: str, *words: object, threads: int = 1) -> subprocess.Popen[str]:
    """`bunny curate run` in a folder of its own, into `name`."""
    at = here / f"at-{name}-{len(STARTED)}"
    at.mkdir()
    limits = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **limits, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    recipe = os.path.relpath(here / "recipe.yaml", at)  # as people write it
    command = [sys.executable, "-c", "from bunny.cli import main; main()"]
    command += ["curate", "run", recipe, "-o", f"../{name}", *map(str, words)]
    pipe = subprocess.PIPE
    STARTED.append(subprocess.Popen(command, env=environment, cwd=at, stdout=pipe, stderr=pipe, text=True))
    return STARTED[-1]


def ended(*processes: subprocess.Popen[str]) -> list[str]:
    said = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    return [err for _, err in said]


def _summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "curated" / "summary.json").read_text())
    return found


@pytest.mark.slow
def test_smaller_pieces_of_work(here: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, size in (
        (grouping, "CHUNK_ROWS", 97),
        (grouping, "BLOCK_ROWS", 31),
        (linking, "BUCKET_ROWS", 150),
        (levels, "BATCH_ROWS", 40),
        (missed, "BLOCK", 17),
    ):
        assert getattr(module, name) > size
        monkeypatch.setattr(module, name, size)
    curation.run(curation.load(here / "recipe.yaml"), here / "pieces")
    assert marks(here / "pieces") == alone
    assert len(list((here / "pieces" / "work").rglob("chunk-*"))) > 1


@pytest.mark.slow
def test_two_workers_of_two_threads(here: Path, alone: dict[str, str]) -> None:
    ended(bunny(here, "workers", "--workers", 2, "--set", "curate.engine.threads=2", threads=2))
    assert marks(here / "workers") == alone


@pytest.mark.slow
def test_two_ranks_in_two_folders(here: Path, alone: dict[str, str]) -> None:
    world = ("--world", 2, "--set", "curate.engine.silent_seconds=60")
    other = bunny(here, "ranks", "--rank", 1, *world)
    said = ended(bunny(here, "ranks", "--rank", 0, *world), other)
    assert "waits for lists" in said[1]
    assert marks(here / "ranks") == alone


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_whose_workers_are_killed(here: Path, alone: dict[str, str]) -> None:
    process = bunny(here, "ray", "--engine", "ray", "--workers", 2)
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 2:
        for pid in at_work(process.pid) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            break
        time.sleep(0.01)
    ended(process)
    assert len(killed) == 2
    assert marks(here / "ray") == alone


def at_work(root: int) -> set[int]:
    """Ray workers below a process that are running a task."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue

    def below(pid: int) -> bool:
        while pid > 1 and pid != root:
            pid = parents.get(pid, 0)
        return pid == root

    return {pid for pid, name in names.items() if name.startswith(b"ray::_attempt") and below(pid)}
