"""`kill -9` at random instants, again and again: what comes out in the end is what an undisturbed run writes.

One helper process imports everything, then forks a child for each attempt of every curation and kills it, so that an
attempt costs no more than the work itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.curate.made_vectors import write_vectors
from tests.curate.outcomes import marks

ROOT = Path(__file__).parents[2]
KILLS = 6  # at the most

HELPER = """
import json, logging, os, random, signal, sys, time
logging.disable(logging.WARNING)
from bunny.pipeline.curating import curate
import bunny.curate.grouping, bunny.curate.linking, bunny.curate.report, bunny.infer.embedders
import bunny.pipeline.pool_tasks, matplotlib.pyplot, torch
torch.set_num_threads(1)

def child(source, settings, output):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        curate(source, output=output, **settings)
        status = 0
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
    os._exit(status)

def survive(source, settings, output, seed, kills):
    chance, killed, longest = random.Random(seed), 0, 0.5
    while True:
        pid = child(source, settings, output)
        if killed < kills:
            time.sleep(longest * chance.random() ** 2 + 0.002)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif os.WEXITSTATUS(status):
            sys.exit(1)
        else:
            return killed

print(json.dumps([survive(*one) for one in json.loads(sys.argv[1])]))
"""
CLUSTERED = [
    {"use": "rules"},
    {"use": "cluster", "groups": 6},
    {"use": "dedup", "above": 0.9},
    {"use": "band", "by": "pair_cosine", "high": 0.9},
    {"use": "sample", "count": 150},
]
EMBEDDED = [{"use": "exact"}, {"use": "dedup", "above": 0.999, "within": "pool"}, {"use": "sample", "count": 20}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder with runs of `vectors` and of `pictures`, `calm` and `killed`; how many times each was killed, which is
    less than KILLS if it was faster."""
    folder = tmp_path_factory.mktemp("kill")
    write_vectors(folder / "vectors" / "source", files=3, rows=300)
    write_pictures(folder / "pictures" / "source")
    colours = {"use": "tests.curate.recipe_classes:Colours"}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "vectors": ("clip_retrieval", {"steps": CLUSTERED, "part_rows": 100}),
        "pictures": ("folder", {"steps": EMBEDDED, "part_rows": 8, "embedder": colours}),
    }
    jobs = []
    for seed, (name, (use, settings)) in enumerate(kinds.items()):
        source = {"use": use, "path": str(folder / name / "source")}
        for how, kills in (("calm", 0), ("killed", KILLS)):
            jobs.append([source, settings, str(folder / name / how / "run"), 2 * seed + 1, kills])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", HELPER, json.dumps(jobs)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return folder, dict(zip(kinds, json.loads(done.stdout.splitlines()[-1])[1::2], strict=True))


def write_pictures(folder: Path) -> None:
    """60 small pictures with captions beside them, some the same, one torn."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(60):
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8) if number % 5 else np.full((12, 12, 3), 9, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"a red picture, number {number}")
    (folder / "007.png").write_bytes(b"torn")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "pictures"])
def test_a_killed_curation_ends_as_an_undisturbed_one(runs: tuple[Path, dict[str, int]], kind: str) -> None:
    folder, killed = runs[0] / kind, runs[1][kind]
    assert killed >= 3
    calm = marks(folder / "calm" / "run")
    assert marks(folder / "killed" / "run") == calm and any(name.endswith("decisions.parquet") for name in calm)
