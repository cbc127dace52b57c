"""What a curation will take, before it begins: cores × hours, wall time, disk and memory of every stage.

In: a `Job` (rows, vector lengths, steps …) and a `Cluster` of machines. Out: one `Stage` a stage. Every figure comes
from `constants` by the formula in the stage's docstring, but for the rate of products, which is measured on the spot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bunny.core.recipe import Block
from bunny.curate.constants import EMBEDDERS, GPU_EMBEDDERS, value

MANY = 4_096  # groups from which `kmeans` compares with the nearest cells only
LEAST_ROWS, LEAST_ROUND = 65_536, 32_768  # rows that the training of centres looks at, at least: in all, in a round
MOST_ROWS, LEAST_PART, MOST_CHUNKS = 262_144, 65_536, 2_000  # rows of a task


@dataclass(frozen=True, slots=True)
class Job:
    """rows: pairs. dims: column -> length of its vectors. stored: whether they exist. picture_bytes: of one encoded
    picture, 0 without pictures. embedder: name of its model. steps: `{use: …}` blocks. kept: share that stays."""

    rows: int
    dims: Mapping[str, int]
    stored: bool
    steps: Sequence[Block]
    picture_bytes: float = 0.0
    embedder: str = ""
    kept: float = 0.5
    exact_rows: bool = True

    @property
    def alike(self) -> int:
        """Length of the vectors that are compared with each other."""
        return self.dims.get("visual") or self.dims["image"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines alike. rate: 10⁹ operations a second of 8-bit products, on one core."""

    nodes: int = 1
    cores: int = 1
    gpus: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """cpu_hours, gpu_hours: work in all. hours: wall time on the cluster. disk, memory: bytes; memory is that of the
    process that needs most of it. tasks: independent pieces of work, 1 where one process does it all."""

    name: str
    cpu_hours: float
    hours: float
    disk: float
    memory: float
    tasks: int = 1
    gpu_hours: float = 0.0


def estimate(job: Job, cluster: Cluster) -> list[Stage]:
    """The stages of a job, in order."""
    stages = [_read(job, cluster), _refer(job, cluster) if job.stored else _embed(job, cluster)]
    steps = {str(block["use"]): block for block in job.steps}
    if "cluster" in steps:
        stages += [_train(job, cluster, steps["cluster"]), _assign(job, cluster, steps["cluster"])]
    if "dedup" in steps:
        stages.append(_link(job, cluster, steps.get("cluster"), steps["dedup"]))
    return [*stages, _light(job), _write(job)]


def total(stages: Sequence[Stage]) -> Stage:
    """All stages together; memory is the largest."""
    sums = {name: sum(getattr(stage, name) for stage in stages) for name in ("cpu_hours", "gpu_hours", "hours", "disk")}
    return Stage("total", memory=max(stage.memory for stage in stages), tasks=sum(s.tasks for s in stages), **sums)


def measured_rate(columns: int, seconds: float = 0.3) -> float:
    """10⁹ operations a second of the product kernel that this machine would use, on one core, measured for so long."""
    import torch

    from bunny.curate.codes import products

    rng = np.random.default_rng(0)
    left, right = (rng.integers(-127, 128, (rows, columns), dtype=np.int8) for rows in (512, 2048))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        products(left, right)
        best, end = np.inf, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            products(left, right)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2.0 * 512 * 2048 * columns / best / 1e9


def as_dict(job: Job, cluster: Cluster, stages: Sequence[Stage]) -> dict[str, Any]:
    """For `--json`: the job, the machines, the stages and their total."""
    told = {"rows": job.rows, "rows_are_exact": job.exact_rows, "dims": dict(job.dims), "vectors_exist": job.stored}
    told |= {"picture_bytes": round(job.picture_bytes), "embedder": job.embedder}
    every = [asdict(stage) for stage in stages]
    return {"job": told, "machines": asdict(cluster), "stages": every, "total": asdict(total(stages))}


def as_rows(stages: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The stages, as `as_dict` gives them, in words: name, core hours, GPU hours, wall time, disk, memory, tasks."""
    return [
        (
            str(stage["name"]),
            _amount(stage["cpu_hours"]),
            _amount(stage["gpu_hours"]),
            _span(stage["hours"]),
            _bytes(stage["disk"]),
            _bytes(stage["memory"]),
            f"{stage['tasks']:,}",
        )
        for stage in stages
    ]


HEADER = ("stage", "core hours", "GPU hours", "wall", "disk", "memory of a process", "tasks")


def _amount(hours: float) -> str:
    if hours == 0:
        return "-"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{max(hours, 0.001):.3f}"


def _span(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 1e3:.0f} kB" if count else "-"


def _parallel(name: str, cpu_seconds: float, cluster: Cluster, tasks: int, disk: float, memory: float) -> Stage:
    """Tasks on all cores: as long as the fullest core works, ceil(tasks / cores) tasks one after another."""
    tasks = max(1, tasks)
    cores = max(1, cluster.nodes * cluster.cores)
    hours = cpu_seconds / 3600
    return Stage(name, hours, hours / tasks * -(-tasks // cores), disk, value("base_memory") + memory, tasks)


def _alone(name: str, cpu_seconds: float, disk: float, memory: float) -> Stage:
    return Stage(name, cpu_seconds / 3600, cpu_seconds / 3600, disk, value("base_memory") + memory)


def _read(job: Job, cluster: Cluster) -> Stage:
    """`read` µs a row; `facts_disk` bytes a row on disk."""
    tasks = -(-job.rows // (MOST_ROWS if job.stored else 10_000))
    disk = job.rows * value("facts_disk")
    return _parallel("read", job.rows * value("read") / 1e6, cluster, tasks, disk, 10_000 * value("part_memory"))


def _refer(job: Job, cluster: Cluster) -> Stage:
    """`refer` µs a number of every stored vector, and not faster than `copy` lets a node read float16 numbers."""
    numbers = job.rows * sum(job.dims.values())
    stage = _parallel(
        "check vectors", numbers * value("refer") / 1e6, cluster, -(-job.rows // MOST_ROWS), 8 * job.rows, 0
    )
    reading = numbers * value("vector_disk") / (value("copy") * 1e9) / cluster.nodes / 3600
    memory = value("base_memory") + MOST_ROWS * (value("part_memory") + 2 * 4)
    return Stage(stage.name, stage.cpu_hours, max(stage.hours, reading), stage.disk, memory, stage.tasks)


def _embed(job: Job, cluster: Cluster) -> Stage:
    """Decoding: `decode` ns a byte of the pictures, on CPU cores. The embedder: its ms a pair, on GPUs where there
    are some. Both go on at the same time, as does reading at `copy`: the slowest counts. Vectors on disk:
    `vector_disk` bytes a number."""
    name = job.embedder.rpartition("/")[2]
    decode = job.rows * job.picture_bytes * value("decode") / 1e9
    disk = job.rows * sum(job.dims.values()) * value("vector_disk")
    rows = 512 if job.rows < 10_000_000 else 4096
    memory = rows * (sum(job.dims.values()) * 6 + value("part_memory")) + 1.5e9
    tasks = -(-job.rows // rows)
    reading = job.rows * job.picture_bytes / (value("copy") * 1e9) / cluster.nodes / 3600
    gpu = job.rows * GPU_EMBEDDERS[name].value / 3.6e6 if cluster.gpus and name in GPU_EMBEDDERS else 0.0
    slowest = max(EMBEDDERS.values(), key=lambda one: one.value)
    work = 0.0 if gpu else job.rows * EMBEDDERS.get(name, slowest).value / 1e3
    stage = _parallel("embed", decode + work, cluster, tasks, disk, memory)
    hours = max(stage.hours, reading, gpu / max(1, cluster.gpus * cluster.nodes))
    return Stage("embed", stage.cpu_hours, hours, disk, stage.memory, tasks, gpu)


def _groups(job: Job, step: Block) -> int:
    per_group = step.get("rows_per_group")
    wanted = step.get("groups") or (round(job.rows / per_group) if per_group else 1)
    return max(1, min(job.rows, int(wanted)))


def _nearest(job: Job, groups: int, cluster: Cluster) -> float:
    """Seconds to find a row's nearest centre: 2 D operations a centre compared, at the 8-bit rate times `assign`. From
    4,096 groups on only the centres of the nearest cells are compared, at the rate times `cells`: of C = 1.2 sqrt(K)
    cells (a power of two) C / 8, but at least 16."""
    rate = (cluster.rate or value("int8")) * 1e9
    if groups < MANY:
        return 2 * job.alike * groups / (rate * value("assign"))
    cells = int(2 ** round(math.log2(1.2 * math.sqrt(groups))))
    probed = min(cells, max(16, cells // 8))
    compared = cells + probed * groups / cells
    return float(2 * job.alike * compared / (rate * value("cells")))


def _train(job: Job, cluster: Cluster, step: Block) -> Stage:
    """`train` sample rows a centre (all rows each time, if fewer), each to its nearest centre; on the cores of one
    machine. The sample is held as codes: 256 rows a centre while these take half a gigabyte at most,
    but at least 64."""
    groups = _groups(job, step)
    iterations = int(step.get("iterations", 20))
    rows = min(job.rows, max(LEAST_ROUND, value("train") * groups / 20)) * iterations
    sample = min(job.rows, max(LEAST_ROWS, 64 * groups, min(256 * groups, (1 << 29) // job.alike)))
    work = rows * _nearest(job, groups, cluster) + sample * job.alike * value("encode") / 1e9
    memory = sample * (job.alike + 12) + groups * job.alike * 13 + 8 * job.rows
    return _alone("train centres", work, groups * job.alike * 5, memory)


def _assign(job: Job, cluster: Cluster, step: Block) -> Stage:
    """Every row: `encode` ns a number, and its nearest centre. On disk: codes, `code_disk` bytes a number, and
    `group_disk` bytes a row. A task holds the codes of its rows twice, and the centres."""
    groups = _groups(job, step)
    work = job.rows * (job.alike * value("encode") / 1e9 + _nearest(job, groups, cluster))
    chunk = max(LEAST_PART, -(-job.rows // MOST_CHUNKS))
    disk = job.rows * (job.alike * value("code_disk") + value("group_disk"))
    memory = min(chunk, job.rows) * (2 * job.alike + 60) + groups * job.alike * 6
    return _parallel("assign rows", work, cluster, -(-job.rows // chunk), disk, memory)


def _link(job: Job, cluster: Cluster, grouping: Block | None, step: Block) -> Stage:
    """In a group of n rows: n² / 2 pairs, times `skew` for groups of unlike sizes, and of its g guests (`second`,
    `third`: a share of n) n g with the rows and g² / 2 among themselves; 2 D operations a pair at the 8-bit rate times
    `pairs`; `link` µs a row beside."""
    groups = _groups(job, grouping) if grouping and step.get("within") != "pool" else 1
    mean = job.rows / groups
    kinds = ("second", "third")[: step.get("probes", 3) - 1] if groups > 1 else ()
    guests = sum(value(kind) for kind in kinds)
    pairs = job.rows * mean * (0.5 * (value("skew") if groups > 1 else 1.0) + guests + guests**2 / 2)
    rate = (cluster.rate or value("int8")) * 1e9 * value("pairs")
    work = pairs * 2 * job.alike / rate + job.rows * value("link") / 1e6
    bucket = max(131_072.0, mean * value("skew")) * (1 + guests)
    memory = min(bucket, job.rows * (1 + guests)) * (job.alike + 40)
    tasks = min(groups, -(-job.rows // 131_072))
    return _parallel("link duplicates", work, cluster, tasks, 16 * job.rows, memory)


def _light(job: Job) -> Stage:
    """`step` µs a row and step, in one process, which holds `row_memory` bytes a row, `step_memory` a row and step,
    and `cluster_memory` a row where there are groups."""
    steps = len(job.steps)
    grouped = any(block["use"] in ("cluster", "dedup") for block in job.steps)
    a_row = value("row_memory") + steps * value("step_memory") + grouped * value("cluster_memory")
    return _alone("steps", job.rows * steps * value("step") / 1e6, 0.0, job.rows * a_row)


def _write(job: Job) -> Stage:
    """`write` µs a row, `copy_out` µs a kept row, `table_disk` bytes a row, `facts_disk` a kept row."""
    work = job.rows * (value("write") + job.kept * value("copy_out")) / 1e6
    disk = job.rows * (value("table_disk") + job.kept * value("facts_disk"))
    return _alone("write", work, disk, _light(job).memory - value("base_memory"))
