"""Training steps beside the original's, transformers' Llava with HF Trainer, and nanoVLM's: seconds, memory, FLOPs.

    taskset -c 1 python bench/training.py --nanovlm ../nanoVLM --json > bench/results/training.json
    python bench/training.py --device cuda --shape real --only lora --json      # written for GPUs, not tried on one yet

Made-up rows with the lengths of the published data and random weights (see `training_ways`). Cases:

- lora: tuning with LoRA. `original` is the original's step, `llava_trainer` transformers' Llava in a real HF Trainer,
  `ours` the engine itself (StepData and StepTrainer); `ours_large_passes` with four times the tokens in a pass,
  `ours_kept_features` with the tower's features on disk, `ours_checkpointed` recomputes activations
- align: the projector alone learns
- full: everything learns, tower included. `nanovlm` is huggingface/nanoVLM's own loop from the folder that `--nanovlm`
  names (not measured without), `nanovlm_tight` the same without the spare sequences of its packing

All compute in float32 on a CPU (under autocast to bfloat16, SigLIP's layer norms refuse to work there), in bfloat16 on
a GPU. Every way runs in a process of its own. All take their steps in turn, the same rows in the same step, after three
steps of warm-up; a ratio is the median over the steps of the two ways' ratio in that step. Optimiser, clipping,
schedule and collating are part of a step; decoding pictures is not. On a CPU `seconds` are the processor's, which
other programs on the machine do not lengthen; `wall_seconds` stand beside.

Extra memory is the most that torch's allocator held at once in the first two steps (so that gradients and optimiser
state count) above the model's own weights, as its profiler reports every allocation; resident memory would also count
what the C library keeps for later. Operations are counted by torch on an executed step, `utilisation` divides them by
the seconds and by the measured peak of a matrix product; `mfu` counts only those that our step without recomputing
needs. The losses of all ways that compute the padded rows' gradients have to agree in every step, or it stops.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROWS = 16
CASES = {
    "lora": ("original", "llava_trainer", "ours", "ours_large_passes", "ours_kept_features", "ours_checkpointed"),
    "align": ("original", "llava_trainer", "ours"),
    "full": ("nanovlm", "nanovlm_tight", "ours"),
}
INEXACT = ("nanovlm", "nanovlm_tight")  # samples of one sequence see each other
AGREE = 1e-3  # relative difference of losses in float32 after some steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", nargs="+", default=["scaled", "small"], help="scaled, small, real, tiny")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--nanovlm", metavar="FOLDER", help="a copy of huggingface/nanoVLM")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of every way")
    parser.add_argument(
        "--tokens-per-pass", type=int, help="of ours; default: 288 in full, where memory counts, else 384"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    outcome: dict[str, Any] = facts(args)
    for shape in args.shape:
        for case in args.only:
            if case == "lora" or shape == args.shape[0]:
                outcome["cases"] |= measure(args, shape, case, outcome["peak_flops"])
    print(json.dumps(outcome, indent=1) if args.json else table(outcome))


def facts(args: Any) -> dict[str, Any]:
    """Machine, commit and the peak of a matrix product in the type that the steps compute in."""
    import torch
    import transformers

    if args.device == "cpu":
        torch.set_num_threads(1)
    commit = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}, one thread"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {
        "machine": f"{name}, torch {torch.__version__}, transformers {transformers.__version__}",
        "commit": subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(),
        "rows_per_step": ROWS,
        "peak_flops": {name: product_peak(args.device, dtype) for name, dtype in dtypes.items()},
        "cases": {},
    }


def product_peak(device: str, dtype: Any) -> float:
    """Operations a second of the fastest of many square products: a busy machine slows most of them."""
    import torch

    clock = time.perf_counter if device == "cuda" else time.process_time
    best = 0.0
    for side in (8192,) if device == "cuda" else (512, 1536):  # the smaller stays in the cache
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for _ in range(100):
            begin = clock()
            left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * side**3 / (clock() - begin))
    return best


def measure(args: Any, shape: str, case: str, peaks: dict[str, float]) -> dict[str, Any]:
    """{case and shape: figures}, without nanoVLM where its folder is not given."""
    from training_pulse import FIRST_TIMED
    from training_ways import SHAPES, Work

    gpu = args.device == "cuda"
    tokens = args.tokens_per_pass or (288 if case == "full" else 384)
    work = Work(SHAPES[shape], case, FIRST_TIMED + args.steps, ROWS, args.device, gpu, tokens)
    work = replace(work, nanovlm=args.nanovlm)
    ways = [way for way in CASES[case] if args.nanovlm or way not in INEXACT]
    name = f"{case}, {shape}"
    out = {name: figures(work, ways, peaks["bfloat16" if gpu else "float32"])}
    if len(ways) < len(CASES[case]):
        out[name]["nanovlm"] = "not measured: give --nanovlm FOLDER"
    return out


def figures(work: Any, ways: list[str], peak: float) -> dict[str, Any]:
    """Each way's seconds, memory and operations, and its ratios to ours."""
    found = in_turn(work, ways)
    exact = {way: found[way]["losses"] for way in ways if way not in INEXACT}
    for way, losses in exact.items():
        for step, (loss, wanted) in enumerate(zip(losses, exact["ours"], strict=True)):
            if not abs(loss - wanted) <= (0.03 if work.bf16 else AGREE) * abs(wanted):
                raise SystemExit(f"step {step}: the loss of `{way}` is {loss}, ours {wanted}")
    mine, out = found["ours"], {}
    for way in ways:
        its = found[way]
        seconds, wall = (statistics.median(its[kind]) for kind in ("seconds", "wall_seconds"))
        out[way] = {
            "seconds": round(seconds, 3),
            "wall_seconds": round(wall, 3),
            "all_seconds": [round(one, 3) for one in its["seconds"]],
            "samples_per_second": round(work.rows_per_step / seconds, 3),
            "ours_times_faster": round(ratio(its["seconds"], mine["seconds"]), 3),
            "extra_mb": round(its["peak_bytes"] / 1e6, 1),
            "memory_of_ours_to_its": round(mine["peak_bytes"] / its["peak_bytes"], 3),
            "gflop_per_sample": round(its["flops"] / work.rows_per_step / 1e9, 2),
            "utilisation": round(its["flops"] / seconds / peak, 3),
            "mfu": round(mine["flops"] / seconds / peak, 3),
            "last_loss": round(its["losses"][-1], 6),
        }
    return out


def ratio(some: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def in_turn(work: Any, ways: list[str]) -> dict[str, Any]:
    """All ways side by side, one step of one way at a time."""
    context = multiprocessing.get_context("spawn")
    runs = {}
    for way in ways:
        here, there = context.Pipe()
        process = context.Process(target=run, args=(work, way, there), daemon=True)
        process.start()
        there.close()
        runs[way] = (process, here)
        here.recv()  # warmed up
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    from training_pulse import FIRST_TIMED

    for _ in range(work.steps - FIRST_TIMED):
        for way, (_, pipe) in runs.items():
            pipe.send(True)
            seconds[way].append(pipe.recv())
    out = {}
    for way, (process, pipe) in runs.items():
        pipe.send(True)
        out[way] = pipe.recv() | dict(zip(("seconds", "wall_seconds"), zip(*seconds[way], strict=True), strict=True))
        process.join()
    return out


def run(work: Any, way: str, pipe: Any) -> None:
    """One way in its own process."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch
    from training_pulse import Pulse
    from training_ways import WAYS

    if work.device == "cpu":
        torch.set_num_threads(1)
    pulse = Pulse(pipe, work.device)
    work.pictures  # noqa: B018  # drawn before anything is measured
    losses = WAYS[way](work, pulse)
    pipe.send({"losses": losses, "peak_bytes": pulse.peak_bytes, "flops": pulse.flops})


def table(outcome: dict[str, Any]) -> str:
    lines = [f"{outcome['machine']}, commit {outcome['commit']}"]
    for case, ways in outcome["cases"].items():
        lines.append(f"\n{case:24} seconds  ours x faster  extra MB  ours' memory  GFLOP/row  utilisation    mfu")
        for way, its in ways.items():
            if isinstance(its, str):
                lines.append(f"{way:24} {its}")
                continue
            lines.append(
                f"{way:24} {its['seconds']:7.2f} {its['ours_times_faster']:14.2f} {its['extra_mb']:9.0f} "
                f"{its['memory_of_ours_to_its']:13.2f} {its['gflop_per_sample']:10.1f} {its['utilisation']:12.2f} "
                f"{its['mfu']:6.2f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
