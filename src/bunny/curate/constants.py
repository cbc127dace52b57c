"""What curation costs, measured: every figure behind an estimate, with its unit and where it was measured.

One place for all of them: `estimate` computes with nothing else, and docs/laion-2b.md is computed by `estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass

HERE = "one core of a 2-core x86 server with AVX-512 VNNI, one thread, shared with other work"
BENCH = f"{HERE}; synthetic float16 vectors, 200,000 and 400,000 rows of 512 and 768, 200 to 4,000 groups"
POOL = f"{HERE}; clip-retrieval folders of 50,000 and 500,000 rows"
SHEET = "not measured: from a data sheet"


@dataclass(frozen=True, slots=True)
class Constant:
    """value: in `unit`. where: how it was come by."""

    value: float
    unit: str
    where: str


CONSTANTS: dict[str, Constant] = {
    # reading
    "read": Constant(35.0, "µs a row, to index its metadata", POOL),
    "refer": Constant(0.0125, "µs a stored number, to check vectors and take pair cosines", POOL),
    "decode": Constant(33.0, "ns a byte of JPEG, to decode it and hash its pixels twice", f"{HERE}; 512 × 384, 68 kB"),
    "copy": Constant(1.0, "GB/s a node reads from shared files", "assumed; measure yours with `dd`"),
    # vectors to groups
    "int8": Constant(
        425.0, "10⁹ operations a second of 8-bit products", f"{HERE}; 512 × 2,048 × 768; 630 on an idle core"
    ),
    "encode": Constant(3.5, "ns a number, to read, scale and encode a row and write its codes", BENCH),
    "assign": Constant(0.65, "of the 8-bit rate, all centres compared", BENCH),
    "cells": Constant(0.18, "of the 8-bit rate, the nearest cells' centres compared", BENCH),
    "train": Constant(640.0, "sample rows a centre, over 20 iterations", "`kmeans`: 32 in each"),
    # groups to links
    "link": Constant(3.7, "µs a row beside the products", BENCH),
    "pairs": Constant(1.0, "of the 8-bit rate, pairs in groups compared", BENCH),
    "second": Constant(0.30, "guests a row, of its second group", f"{HERE}; a million rows, the default of `cluster`"),
    "third": Constant(0.17, "guests a row, of its third group", f"{HERE}; a million rows, the default of `cluster`"),
    "skew": Constant(
        2.5, "mean square of group sizes by the square of their mean", "assumed; 1.2 on synthetic vectors"
    ),
    # light steps and files
    "step": Constant(2.0, "µs a row and step, in the leading process", f"{POOL}; rules 2.8, band 0.5, sample 0.4"),
    "write": Constant(4.0, "µs a row, for the decision table and the report", POOL),
    "copy_out": Constant(3.0, "µs a kept row, to write its sample", POOL),
    # disk
    "facts_disk": Constant(148.0, "bytes a row of samples.parquet and facts.arrow", POOL),
    "vector_disk": Constant(2.0, "bytes a number (float16)", "the format"),
    "code_disk": Constant(1.0, "bytes a number: codes of rows", "the format"),
    "group_disk": Constant(72.0, "bytes a row: groups, order, bounds of codes, guests", "the format"),
    "table_disk": Constant(40.0, "bytes a row of decisions.parquet", f"{POOL}: 17; and six columns of groups"),
    # memory
    "base_memory": Constant(0.35e9, "bytes of a process with numpy, torch and numba", POOL),
    "row_memory": Constant(106.0, "bytes a row in the leading process", POOL),
    "step_memory": Constant(26.0, "bytes a row and step in the leading process", POOL),
    "cluster_memory": Constant(
        44.0, "bytes a row of groups and sets in the leading process", "columns of `cluster`, `dedup`"
    ),
    "part_memory": Constant(1500.0, "bytes a row of a part at work, beside its vectors", POOL),
}
"""Name -> constant."""

EMBEDDERS: dict[str, Constant] = {
    "lite0_minilm": Constant(14.0, "CPU-ms a pair, 192 pixels", "docs/curate.md: demo pool, 2 cores"),
    "clip-vit-base-patch32": Constant(188.0, "CPU-ms a pair, float32", f"{HERE}; batch of 4"),
    "clip-vit-large-patch14": Constant(2071.0, "CPU-ms a pair, float32", f"{HERE}; batch of 2"),
}
"""Embedder (the end of its model's name) -> CPU time of a pair."""

GPU_EMBEDDERS: dict[str, Constant] = {
    "clip-vit-base-patch32": Constant(
        0.06, "GPU-ms a pair", f"{SHEET}: 15 GFLOP at 25 % of an H100's 990 TFLOP/s (bf16)"
    ),
    "clip-vit-large-patch14": Constant(
        0.51, "GPU-ms a pair", f"{SHEET}: 175 GFLOP at 35 % of an H100's 990 TFLOP/s (bf16)"
    ),
}
"""Embedder -> GPU time of a pair."""


def value(name: str) -> float:
    """A constant's value, in its own unit."""
    return CONSTANTS[name].value
