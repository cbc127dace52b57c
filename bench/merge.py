"""Two models of eight billion parameters become one: memory and speed of `bunny merge`.

    python bench/merge.py --json > bench/results/merge.json

Made up: the tensors of Llama-3-8B in bfloat16, all zeros, as sparse files (4 and 7 shards) that take no room; the
merged model takes 16 GB, in a folder that is removed again. Measured, each in a process of its own: `merge` (ours),
`copy` (the floor: one model's bytes copied piece by piece and flushed) and, on a model an eighth as large, both beside
`at once` (the rival: both models loaded, averaged as a whole, saved). Prints seconds of wall clock and of processor
(imports are not counted), GB read and written per second, and the most memory the process held. Holes read faster than
a disk: reading counts for less here than with real weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

LLAMA_3_8B = {"vocabulary": 128256, "layers": 32}
SMALL = {"vocabulary": 16032, "layers": 4}  # a billion parameters
WIDTH, KEY_WIDTH, INNER = 4096, 1024, 14336
CONFIG = {"model_type": "llama", "dtype": "bfloat16"}

BEGIN = """
import json, sys, time
from pathlib import Path
paths = [Path(word) for word in sys.argv[1:]]
"""
WAYS = {
    "merge": """
import bunny.model.merge
from bunny.pipeline.merging import merge
start, cpu = time.perf_counter(), time.process_time()
merge(paths[:2], [0.3, 0.7], paths[2])
""",
    "copy": """
import os
start, cpu = time.perf_counter(), time.process_time()
paths[2].mkdir()
piece = bytearray(16 << 20)
for path in sorted(paths[0].glob("*.safetensors")):
    with path.open("rb") as source, (paths[2] / path.name).open("wb") as target:
        while size := source.readinto(piece):
            target.write(memoryview(piece)[:size])
        target.flush()
        os.fsync(target.fileno())
""",
    "at once": """
from safetensors.torch import load_file, save_file
start, cpu = time.perf_counter(), time.process_time()
first, second = {}, {}
for state, folder in ((first, paths[0]), (second, paths[1])):
    for path in folder.glob("*.safetensors"):
        state |= load_file(path)
merged = {name: (0.3 * first[name].float() + 0.7 * second[name].float()).bfloat16() for name in first}
paths[2].mkdir()
save_file(merged, paths[2] / "model.safetensors", metadata={"format": "pt"})
import os
file = os.open(paths[2] / "model.safetensors", os.O_RDWR)
os.fsync(file)
os.close(file)
""",
}
END = """
seconds = time.perf_counter() - start
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "peak_bytes": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where 16 GB are free; default: the system's")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        runs = {}
        for size, shape in (("8B", LLAMA_3_8B), ("1B", SMALL)):
            models = [write_sparse(Path(folder) / f"{size}-{n}", n, **shape) for n in (4, 7)]
            size_bytes = sum(math.prod(each) * 2 for each in shapes(**shape).values())
            for way in ("merge", "copy") if size == "8B" else WAYS:
                read = size_bytes if way == "copy" else 2 * size_bytes
                runs[f"{size} {way}"] = measured(way, [*models, Path(folder) / "out"], read + size_bytes)
    report(runs, args.json)


def shapes(vocabulary: int, layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama-3 of the 8B's width."""
    layer = {
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (KEY_WIDTH, WIDTH),
        "self_attn.v_proj": (KEY_WIDTH, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (INNER, WIDTH),
        "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, WIDTH)}
    for number in range(layers):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return {**found, "model.norm.weight": (WIDTH,), "lm_head.weight": (vocabulary, WIDTH)}


def write_sparse(folder: Path, shards: int, vocabulary: int, layers: int) -> Path:
    """A model folder whose weights are holes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = shapes(vocabulary, layers)
    places: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header, position = {}, 0
        for tensor in list(tensors)[number::shards]:
            end = position + math.prod(tensors[tensor]) * 2
            header[tensor] = {"dtype": "BF16", "shape": tensors[tensor], "data_offsets": [position, end]}
            position, places[tensor] = end, name
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + position)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def measured(way: str, paths: list[Path], traffic_bytes: int) -> dict[str, Any]:
    """Seconds, GB/s (read and written) and peak memory of one way in a fresh process; its output is removed."""
    command = [sys.executable, "-c", BEGIN + WAYS[way] + END, *map(str, paths)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(paths[-1])
    figures = json.loads(ran.stdout)
    return {
        "seconds": round(figures["seconds"], 1),
        "cpu_seconds": round(figures["cpu_seconds"], 1),
        "gb_read_and_written": round(traffic_bytes / 1e9, 1),
        "gb_per_second": round(traffic_bytes / 1e9 / figures["seconds"], 2),
        "peak_memory_gb": round(figures["peak_bytes"] / 1e9, 2),
    }


def report(runs: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        print(json.dumps({"machine": machine, "runs": runs}, indent=1))
        return
    for name, run in runs.items():
        print(
            f"{name:10} {run['seconds']:7.1f} s {run['gb_per_second']:6.2f} GB/s {run['peak_memory_gb']:6.2f} GB held"
        )


if __name__ == "__main__":
    main()
