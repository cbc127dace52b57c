"""How many duplicates were not found: a few sets of linked rows in, compared with all rows, an estimate out.

Sets are drawn at random, and all their rows compared with every row of the pool, wherever it stands. A set with d other
sets in reach would be one of d + 1 that could have been joined: of these, d rows more could have gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import IntArray, Place, Task
from bunny.curate import set_kernels
from bunny.curate.codes import Quantiser, products
from bunny.curate.columns import Rows
from bunny.curate.grouping import Placed
from bunny.curate.work import read_arrays, write_arrays

PRODUCTS = 200_000_000  # pairs that are looked at; but at least and at most so many rows:
LEAST_ROWS, MOST_ROWS = 256, 2_048
BLOCK = 512
Z = 1.96

Array = npt.NDArray[Any]


def estimate_missed(
    vectors: Rows, sets: IntArray, folder: Path, above: float, rng: np.random.Generator, place: Place
) -> dict[str, Any]:
    """`left`: share of the removable rows that was not found, with `left_low` and `left_high` (95 %), from
    `left_sets` sets and `left_rows` rows compared with all."""
    size = len(sets)
    drawn, rows = _draw(sets, rng)
    if not len(rows):
        return {}
    ask = folder / f"missed-{above!r}"
    if not (ask / "rows.npz").exists():
        write_arrays(ask / "rows.npz", {"rows": rows, "vectors": vectors.read(rows)})
    placed = Placed.open(folder)
    tasks = [
        Task(
            "bunny.curate.missed:near_rows",
            {"folder": str(folder), "chunk": str(chunk), "asked": str(ask / "rows.npz"), "above": above},
            ask / f"{chunk.name}.npz",
        )
        for _, _, chunk in placed.chunks()
    ]
    place.engine.run("missed duplicates", tasks)
    pairs = [read_arrays(task.output) for task in tasks]
    near = np.concatenate([part["near"] for part in pairs])
    asked = rows[np.concatenate([part["asked"] for part in pairs])]
    edges = np.unique(np.stack([sets[asked], sets[near]], 1)[sets[asked] != sets[near]], axis=0)
    others = np.bincount(np.searchsorted(drawn, edges[:, 0]), minlength=len(drawn))
    more = others / (others + 1.0)  # rows of this set's share that could have gone as well
    kept = int((sets == np.arange(size)).sum())
    mean, error = float(more.mean()), Z * float(more.std()) / np.sqrt(len(more))
    low, middle, high = (_share(kept * max(0.0, value), size - kept) for value in (mean - error, mean, mean + error))
    return {"left": middle, "left_low": low, "left_high": high, "left_sets": len(drawn), "left_rows": len(rows)}


def _share(missed: float, found: int) -> float:
    return round(missed / max(missed + found, 1e-9), 5)


def _draw(sets: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Sets drawn at random (ascending), and all their rows; very large ones by some of their rows."""
    size = len(sets)
    heads = np.flatnonzero(sets == np.arange(size))
    budget = int(np.clip(PRODUCTS // max(1, size), LEAST_ROWS, MOST_ROWS))
    order, total = rng.permutation(heads), 0
    count = np.bincount(sets, minlength=size)
    chosen = []
    for head in order.tolist():
        chosen.append(head)
        total += min(int(count[head]), 64)
        if total >= budget:
            break
    drawn = np.sort(np.array(chosen, dtype=np.int64))
    asked = np.zeros(size, bool)
    asked[drawn] = True
    rows = np.flatnonzero(asked[sets])
    by_set = rows[np.argsort(sets[rows], kind="stable")]
    place = np.arange(len(by_set)) - np.searchsorted(sets[by_set], sets[by_set])
    return drawn, np.sort(by_set[place < 64])


def near_rows(folder: str, chunk: str, asked: str, above: float, output: Path) -> None:
    """Task: pairs of an asked row (its number) and a row of the chunk with a cosine of at least `above`."""
    placed, model, ask = Placed.open(folder), read_arrays(Path(folder) / "centres.npz"), read_arrays(Path(asked))
    quantiser = Quantiser(model["mean"], float(model["scale"]))
    mine = quantiser.encode(ask["vectors"])
    facts, codes = np.load(Path(chunk) / "codes-facts.npy"), np.load(Path(chunk) / "codes.npy", mmap_mode="c")
    both = [np.concatenate([getattr(mine, name), facts[name]]) for name in ("error", "length", "along")]
    shift, slack = quantiser.bounds(*both)
    count, threshold = len(ask["rows"]), int(np.floor(above * quantiser.unit))
    found: list[tuple[Array, Array]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    pairs = np.empty((BLOCK * count, 2), np.int32)
    for start in range(0, len(codes), BLOCK):
        rows = codes[start : start + BLOCK]
        here = slice(count + start, count + start + len(rows))
        known = (shift[here], slack[here], shift[:count], slack[:count])
        some = pairs[: set_kernels.within_reach(products(rows, mine.codes), *known, threshold, pairs)]
        position, number = facts["position"][start + some[:, 0]], some[:, 1]
        if len(position):
            vectors = placed.read(position).astype(np.float64)
            exact = (vectors * ask["vectors"][number]).sum(1).astype(np.float32)
            found.append((number[exact >= np.float32(above)], position[exact >= np.float32(above)]))
    write_arrays(
        output, {"asked": np.concatenate([a for a, _ in found]), "near": np.concatenate([b for _, b in found])}
    )
