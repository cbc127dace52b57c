"""`kill -9` at random instants, again and again: what comes out in the end is what an undisturbed run writes.

One helper process imports everything, then forks a child for each attempt and kills it, so that an attempt costs no
more than the work itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
KILLS = 8  # at the most
TIMES = ("report.html", "summary.json", "part.json", "results.json")  # hold seconds; compared without them

HELPER = """
import json, logging, os, random, signal, sys, time
logging.disable(logging.WARNING)
from bunny.pipeline.curating import curate
import bunny.curate.grouping, bunny.curate.linking, bunny.curate.report, bunny.infer.embedders
import bunny.pipeline.pool_tasks, matplotlib.pyplot, torch
torch.set_num_threads(1)
source, settings, output, seed, kills = json.loads(sys.argv[1])
chance = random.Random(seed)

def child():
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

killed, longest, late = 0, 0.5, 0
while True:
    begin, pid = time.monotonic(), child()
    if killed < kills:
        time.sleep(longest * chance.random() ** 2 + 0.002)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        killed += 1
    elif os.WEXITSTATUS(status):
        sys.exit(1)
    else:
        break
print(killed)
"""


def curate(source: dict[str, Any], settings: dict[str, Any], output: Path, seed: int = 0, kills: int = 0) -> int:
    """Curate in a process that is killed so many times, less if it was faster; how many times it was."""
    argument = json.dumps([source, settings, str(output), seed, kills])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", HELPER, argument]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def marks(folder: Path) -> dict[str, str]:
    """File -> digest; of the few that hold times, what they say beside. What heavy steps keep for the next run (`work`)
    is named after where it lies; the decisions tell whether it was right."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] != "work" and not any(part.startswith(".") for part in parts):
            content = path.read_bytes()
            if path.suffix == ".json" and path.name in TIMES:
                content = json.dumps({k: v for k, v in json.loads(content).items() if k != "seconds"}).encode()
            elif path.name in TIMES:
                content = b""
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def vectors(tmp_path: Path) -> dict[str, Any]:
    """900 made-up vectors in three files, many of them nearly alike, one NaN."""
    rng = np.random.default_rng(0)
    for number in range(3):
        centres = np.repeat(rng.standard_normal((100, 16)), 3, axis=0)
        image = centres + 0.05 * rng.standard_normal((300, 16))
        image[7] = np.nan
        for name, values in (("img", image), ("text", image + rng.standard_normal((300, 16)))):
            (tmp_path / "source").mkdir(exist_ok=True)
            np.save(tmp_path / "source" / f"{name}_emb_{number}.npy", values.astype(np.float16))
        captions = [f"thing {number} {row // 3} of a kind" for row in range(300)]
        table = pa.table({"caption": captions, "key": [f"{number}-{row:04d}" for row in range(300)]})
        pq.write_table(table, tmp_path / "source" / f"metadata_{number}.parquet")
    return {"use": "clip_retrieval", "path": str(tmp_path / "source")}


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Any]:
    """60 small pictures with captions beside them, some the same, one torn."""
    rng = np.random.default_rng(0)
    (tmp_path / "source").mkdir()
    for number in range(60):
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8) if number % 5 else np.full((12, 12, 3), 9, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "source" / f"{number:03d}.png")
        (tmp_path / "source" / f"{number:03d}.txt").write_text(f"a red picture, number {number}")
    (tmp_path / "source" / "007.png").write_bytes(b"torn")
    return {"use": "folder", "path": str(tmp_path / "source")}


CLUSTERED = [
    {"use": "rules"},
    {"use": "cluster", "groups": 6},
    {"use": "dedup", "above": 0.9},
    {"use": "band", "by": "pair_cosine", "high": 0.9},
    {"use": "sample", "count": 150},
]


@pytest.mark.slow
def test_a_killed_curation_of_vectors_ends_as_an_undisturbed_one(vectors: dict[str, Any], tmp_path: Path) -> None:
    settings = {"steps": CLUSTERED, "part_rows": 100}
    curate(vectors, settings, tmp_path / "calm" / "run")
    killed = curate(vectors, settings, tmp_path / "killed" / "run", seed=1, kills=KILLS)
    assert killed >= 3
    calm = marks(tmp_path / "calm" / "run")
    assert marks(tmp_path / "killed" / "run") == calm and any(name.endswith("decisions.parquet") for name in calm)


@pytest.mark.slow
def test_a_killed_curation_of_pictures_ends_as_an_undisturbed_one(pictures: dict[str, Any], tmp_path: Path) -> None:
    steps = [{"use": "exact"}, {"use": "dedup", "above": 0.999, "within": "pool"}, {"use": "sample", "count": 20}]
    settings = {"steps": steps, "part_rows": 8, "embedder": {"use": "tests.curate.recipe_classes:Colours"}}
    curate(pictures, settings, tmp_path / "calm" / "run")
    killed = curate(pictures, settings, tmp_path / "killed" / "run", seed=3, kills=KILLS)
    assert killed >= 3
    assert marks(tmp_path / "killed" / "run") == marks(tmp_path / "calm" / "run")
