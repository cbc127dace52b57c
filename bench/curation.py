"""Clusters and near duplicates of made-up embeddings: `cluster` and `dedup` beside a plain torch version and faiss.

    python bench/curation.py --rows 1000000 --dim 768 --clusters 1000 --seed 0 --threads 1 --json

Makes float16 vectors with known groups of duplicates (see `make_vectors`), then runs each way in a process of its own
on the same files:

- ours: `bunny.curate.select` with the steps cluster and dedup (three probes, thresholds and estimate included)
- plain: what one writes first in torch: all vectors in memory as float32, ten full k-means rounds, one product a
  cluster, scipy's connected components, the median member stays (one probe)
- faiss: its spherical k-means (20 rounds, 256 rows a centre, its default) and one search; quality of the clusters only.
  Needs `faiss-cpu`; left out, and said so, where it is not installed
- floor: one comparison of all rows with all centres and one with the rows of their own group, as products of matrices
  that lie in the cache, in float32 and in 8 bits

Printed: seconds of processor and of wall clock (imports and compiling not counted), most anonymous memory, what was
kept, mean cosine to the centre, and the share of planted duplicates found. `--only ours` leaves the others out (for
pools that they cannot hold).
`--memory-gb` puts ours under a hard limit of memory that it may write to (RLIMIT_DATA: all that is not a mapped file).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ABOVE = 0.86  # the published coreset's threshold
WAYS = ("ours", "plain", "faiss", "floor")
BLOCK = 100_000


def make_vectors(folder: Path, rows: int, columns: int, seed: int) -> None:
    """`vectors.npy` (rows, columns) float16 and `group.npy` (rows,) int64, the planted group of each.

    Like CLIP's: all lie in one cone with a few loud dimensions; 5,000 topics of very different size in 200 families;
    noise whose spectrum falls off as a power law. A tenth of a thousandth to a third of a thousandth share a group:
    six of ten groups are single rows, the others have two to 300 members (Pareto) whose cosines lie between 0.80 and
    0.998, tight groups and loose ones. One in a hundred rows is the same junk picture (cosine 0.985). Rows are spread
    over the file at random.
    """
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unit = torch.nn.functional.normalize
    spectrum = (torch.arange(columns).float() + 4).pow(-0.9)
    spectrum = (spectrum / spectrum.sum()).sqrt()
    turn = torch.linalg.qr(torch.randn(columns, columns))[0]

    def noise(count: int) -> Any:
        return (torch.randn(count, columns) * spectrum) @ turn  # (count, D), squared length about 1

    cone = torch.randn(columns)
    cone[7 % columns], cone[91 % columns] = 0.35 * columns**0.5, -0.3 * columns**0.5
    cone = unit(cone, dim=0)
    families = unit(noise(200), dim=-1)
    topics = unit(families[torch.randint(0, 200, (5000,))] * 0.6 + noise(5000) * 0.8, dim=-1)
    weight = 1 / (np.arange(5000) + 20.0) ** 0.9
    rng.shuffle(weight)
    place = rng.permutation(rows)
    found = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (rows, columns))
    group = np.empty(rows, np.int64)
    junk_seed = unit(0.6 * cone + 0.52 * topics[0] + 0.61 * noise(1)[0], dim=0)
    first = 0
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        junk = count // 100
        sizes = _sizes(count - junk, rng)
        member = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
        topic = torch.from_numpy(rng.choice(5000, len(sizes), p=weight / weight.sum()))
        seeds = unit(0.60 * cone + 0.52 * topics[topic] + 0.6079 * noise(len(sizes)), dim=-1)
        likeness = np.clip(0.80 + 0.2 * rng.beta(1.6, 1.1, len(sizes)), 0.80, 0.998)
        close = torch.from_numpy(np.concatenate([np.repeat(likeness, sizes), np.full(junk, 0.985)])).float().sqrt()
        head = torch.cat([seeds[member], junk_seed.expand(junk, -1)])
        side = noise(count)
        side = unit(side - (side * head).sum(1, keepdim=True) * head, dim=-1)
        mixed = close[:, None] * head + (1 - close**2).clamp_min(0).sqrt()[:, None] * side
        where = place[start : start + count]
        found[where] = unit(mixed, dim=-1).half().numpy()
        group[where] = np.concatenate([first + member.numpy(), np.full(junk, -1)])
        first += len(sizes)
    found.flush()
    np.save(folder / "group.npy", group)


def _sizes(rows: int, rng: np.random.Generator) -> Any:
    """Sizes of groups that make so many rows."""
    drawn = rng.random(rows)
    pareto = np.minimum(2 + (rng.pareto(1.3, rows) * 1.5).astype(int), 300)
    total = np.cumsum(np.where(drawn < 0.62, 1, pareto))
    last = int(np.searchsorted(total, rows))
    sizes = np.diff(total[: last + 1], prepend=0)
    sizes[-1] -= total[last] - rows
    return sizes


class Clock:
    """Seconds of processor and wall clock, and the most anonymous memory, from `start` on."""

    def __init__(self) -> None:
        self.most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.most = max(self.most, int(line.split()[1]) / 1e6)
            time.sleep(0.05)

    def start(self) -> None:
        self.most, self.cpu, self.wall = 0.0, time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        return {"cpu_seconds": round(cpu, 2), "wall_seconds": round(wall, 2), "anonymous_gb": round(self.most, 3)}


def ours(folder: Path, clusters: int, seed: int, clock: Clock) -> dict[str, Any]:
    from bunny.core.types import Place, Pool
    from bunny.curate import select
    from bunny.curate.columns import NpyFile, Rows, Texts
    from bunny.curate.engines import LocalEngine

    steps = [
        {"use": "cluster", "groups": clusters, "iterations": 10, "start": "random"},
        {"use": "dedup", "above": ABOVE, "curve_from": ABOVE},
    ]

    def pool(rows: int, work: Path) -> Pool:
        import pyarrow as pa

        starts = range(0, rows, BLOCK)
        ids = [pa.array(f"{n:09d}" for n in range(start, min(rows, start + BLOCK))) for start in starts]
        pieces = [NpyFile(folder / "vectors.npy", start, min(rows, start + BLOCK) - start) for start in starts]
        place = Place(work, LocalEngine())
        return Pool({"id": Texts(ids), "visual": Rows(pieces)}, ordered=True, place=place)

    with tempfile.TemporaryDirectory(dir=folder) as work:
        small = [{**steps[0], "groups": 8}, steps[1]]
        select(pool(min(3000, len(np.load(folder / "group.npy", mmap_mode="r"))), Path(work) / "small"), small, seed)
        whole = pool(len(np.load(folder / "group.npy", mmap_mode="r")), Path(work) / "whole")
        clock.start()
        found = select(whole, steps, seed)
        measured = clock.read()
        disk = sum(path.stat().st_size for path in Path(work).rglob("*") if path.is_file())
    clustered, linked = (run.decision.columns for run in found.runs)
    size = np.bincount(clustered["cluster"]).astype(float)
    notes = found.runs[1].decision.notes
    return measured | {
        "seconds": {run.planned.label: round(run.seconds, 2) for run in found.runs},
        "kept": int(found.kept().sum()),
        "mean_cosine": round(float(clustered["centre_cosine"].mean()), 5),
        "largest_cluster": int(size.max()),
        "pairs_within": float((size**2).sum() / 2),
        "work_gb": round(disk / 1e9, 2),
        "left_estimate": {name: value for name, value in notes.items() if name.startswith("left")},
        **planted(folder, linked["component"], seed),
    }


def planted(folder: Path, component: Any, seed: int) -> dict[str, float]:
    """Of planted pairs that reach the threshold, the share found; of pairs put together, the share planted (or linked
    by themselves). From 200,000 pairs drawn."""
    vectors, group = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "group.npy")
    rng = np.random.default_rng(seed)

    def pairs(label: Any) -> tuple[Any, Any]:
        order = np.lexsort((rng.random(len(label)), label))
        both = np.flatnonzero((label[order][1:] == label[order][:-1]) & (label[order][1:] >= 0))
        drawn = rng.choice(both, min(200_000, len(both)), replace=False)
        return order[drawn], order[drawn + 1]

    def likeness(one: Any, other: Any) -> Any:
        found = np.empty(len(one))
        for start in range(0, len(one), 10_000):
            rows = slice(start, start + 10_000)
            left, right = (vectors[side[rows]].astype(np.float32) for side in (one, other))
            lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
            found[rows] = np.einsum("nd,nd->n", left, right) / lengths
        return found

    one, other = pairs(group)
    near = likeness(one, other) >= ABOVE
    recall = (component[one] == component[other])[near].mean()
    one, other = pairs(component)
    right = (group[one] == group[other]) | (likeness(one, other) >= ABOVE)
    return {"planted_pairs_found": round(float(recall), 5), "pairs_that_belong": round(float(right.mean()), 5)}


def plain(folder: Path, clusters: int, seed: int, clock: Clock) -> dict[str, Any]:
    import torch
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    torch.manual_seed(seed)
    torch.ones(64, 64) @ torch.ones(64, 64)
    clock.start()
    vectors = torch.nn.functional.normalize(torch.from_numpy(np.load(folder / "vectors.npy")).float(), dim=1)
    rows = len(vectors)
    centres = vectors[torch.randperm(rows)[:clusters]].clone()
    for _ in range(10):
        label = torch.cat([(part @ centres.T).argmax(1) for part in vectors.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, label, vectors)
        count = torch.bincount(label, minlength=clusters)
        centres = torch.nn.functional.normalize(torch.where(count[:, None] > 0, sums, centres), dim=1)
    cosine = torch.cat([(a * centres[b]).sum(1) for a, b in zip(vectors.split(8192), label.split(8192), strict=True)])
    first, second = [], []
    for cluster in range(clusters):
        members = torch.nonzero(label == cluster)[:, 0]
        for start in range(0, len(members), 4096):
            likeness = vectors[members[start : start + 4096]] @ vectors[members].T
            i, j = torch.nonzero(likeness >= ABOVE, as_tuple=True)
            upper = j > i + start
            first.append(members[i[upper] + start])
            second.append(members[j[upper]])
    links = torch.cat(first).numpy(), torch.cat(second).numpy()
    graph = coo_matrix((np.ones(len(links[0]), np.int8), links), shape=(rows, rows))
    component = connected_components(graph, directed=False)[1]
    order = np.lexsort((-cosine.numpy(), component))
    _, start, size = np.unique(component[order], return_index=True, return_counts=True)
    kept = order[start + size // 2]
    return clock.read() | {"kept": len(kept), "mean_cosine": round(float(cosine.mean()), 5)}


def faiss(folder: Path, clusters: int, seed: int, clock: Clock) -> dict[str, Any]:
    try:
        import faiss as library
    except ImportError:
        return {"left_out": "faiss-cpu is not installed"}
    library.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    clock.start()
    vectors = np.load(folder / "vectors.npy").astype(np.float32)
    library.normalize_L2(vectors)
    kmeans = library.Kmeans(vectors.shape[1], clusters, niter=20, seed=seed, spherical=True)
    kmeans.train(vectors)
    cosine = kmeans.index.search(vectors, 1)[0]  # inner products, as the clustering is spherical
    return clock.read() | {"mean_cosine": round(float(cosine.mean()), 5)}


def floor(folder: Path, clusters: int, seed: int, clock: Clock) -> dict[str, Any]:
    """Seconds a product of 10**12 multiplications and additions each takes, best of several."""
    import torch

    columns = np.load(folder / "vectors.npy", mmap_mode="r").shape[1]
    rng = np.random.default_rng(seed)
    left, right = (torch.from_numpy(rng.integers(-127, 128, (n, columns), dtype=np.int8)) for n in (2048, 1024))
    ways: dict[str, Callable[[], Any]] = {}
    wide, wide_right = left.float(), right.float()
    ways["float32"] = lambda: wide @ wide_right.T
    ways["int8"] = lambda: torch._int_mm(left, right.T)
    clock.start()
    found: dict[str, float] = {}
    for name, product in ways.items():
        best = float("inf")
        try:
            for _ in range(30):
                start = time.process_time()
                product()
                best = min(best, time.process_time() - start)
        except RuntimeError:
            continue
        found[name] = best / (2048 * 1024 * columns) * 1e12
    return {"cpu_seconds_per_tera": found}


def run(way: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One way in a process of its own."""
    environment = os.environ | {
        name: str(options.threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    }
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--clusters", str(options.clusters)]
    command += ["--seed", str(options.seed), "--threads", str(options.threads)]

    if way == "ours" and options.memory_gb:
        command = ["prlimit", f"--data={int(options.memory_gb * 1e9)}", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"code {done.returncode}"}
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def compare(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Ratios of one run."""
    ratios: dict[str, Any] = {}
    mine = found["ours"].get("cpu_seconds")
    if mine and "floor" in found:
        work = options.rows * options.clusters * options.dim + found["ours"]["pairs_within"] * options.dim
        for name, seconds in found["floor"]["cpu_seconds_per_tera"].items():
            least = seconds * work / 1e12
            ratios |= {f"floor_{name}_seconds": round(least, 2), f"ours_to_floor_{name}": round(mine / least, 3)}
    if mine and "cpu_seconds" in found.get("plain", {}):
        ratios["plain_to_ours"] = round(found["plain"]["cpu_seconds"] / mine, 2)
    if "mean_cosine" in found.get("faiss", {}):
        ratios["faiss_to_ours"] = round(found["faiss"]["cpu_seconds"] / mine, 2)
        ratios["quality_to_faiss"] = round(found["ours"]["mean_cosine"] / found["faiss"]["mean_cosine"], 5)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, default in (("rows", int, 100_000), ("dim", int, 768), ("clusters", int, 0), ("seed", int, 0)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--memory-gb", type=float, help="hard limit for ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="use, or make, the vectors there and keep them")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        import torch

        torch.set_num_threads(options.threads)
        print(json.dumps(globals()[options.way](options.folder, options.clusters, options.seed, Clock())))
        return
    options.clusters = options.clusters or max(1, options.rows // 1000)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bunny-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not (folder / "group.npy").exists():
            make_vectors(folder, options.rows, options.dim, options.seed)
        found = {way: run(way, options, folder) for way in WAYS if way in options.only}
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    import torch

    content = {
        "rows": options.rows,
        "dim": options.dim,
        "clusters": options.clusters,
        "seed": options.seed,
        "threads": options.threads,
        "memory_limit_gb": options.memory_gb,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "commit": _commit(),
        **found,
        "ratios": compare(found, options),
    }
    print(json.dumps(content, indent=1) if options.json else _table(content))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _table(content: dict[str, Any]) -> str:
    size = f"{content['rows']:,} x {content['dim']}, {content['clusters']:,} clusters"
    lines = [f"{size}, {content['threads']} thread(s)"]
    for way in WAYS:
        if way in content:
            lines.append(f"{way:6} " + ", ".join(f"{key} {value}" for key, value in content[way].items()))
    return "\n".join([*lines, "ratios " + ", ".join(f"{key} {value}" for key, value in content["ratios"].items())])


if __name__ == "__main__":
    main()
