"""Machines to train on: those of `machines.yaml`, by the figures of their data sheets, and this one, measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Section, check

HERE = ("here", "cpu")
CPU_EFFICIENCY = 0.5  # assumed share of the fastest matrix product, which is measured


class Device(Section):
    """A device of `machines.yaml`; see there."""

    title: str
    memory_gb: float
    bf16_tflops: float
    fp32_tflops: float
    source: str


class Machines(Section):
    """The whole file."""

    efficiency: float
    machines: dict[str, Device]


@dataclass(frozen=True, slots=True)
class Machine:
    """memory: bytes of one device. speed: operations a second at its peak, by precision. source: of the figures."""

    title: str
    memory: float
    speed: dict[str, float]
    efficiency: float
    gpu: bool
    source: str


def names() -> list[str]:
    """What `--machine` takes."""
    return [*HERE, *_file().machines]


def machine(name: str) -> Machine:
    """The machine of that name. Raises UserError that names the nearest one."""
    if name in HERE:
        return _this_one(name == "cpu")
    known = _file()
    if name not in known.machines:
        raise UserError(f"no machine is called `{name}`", fix=nearest(name, names()))
    found = known.machines[name]
    speed = {"bf16": 1e12 * found.bf16_tflops, "fp32": 1e12 * found.fp32_tflops}
    return Machine(found.title, 1e9 * found.memory_gb, speed, known.efficiency, True, found.source)


def _file() -> Machines:
    path = Path(__file__).with_name("machines.yaml")
    return check(Machines, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def _this_one(cpu: bool) -> Machine:
    """This machine's accelerator, or its processor; its speed is that of a matrix product, measured now."""
    import torch

    from bunny.train.checkpointing import free_memory
    from bunny.train.cost import gemm_peak

    gpu = torch.cuda.is_available() and not cpu
    if gpu:
        free, _ = torch.cuda.mem_get_info()
        title, memory = torch.cuda.get_device_name(), float(free)
    else:
        title, memory = f"this machine, {os.cpu_count()} cores", free_memory(cpu=True)
    speed = {"fp32": gemm_peak("fp32", cpu=not gpu), "bf16": gemm_peak("bf16", cpu=not gpu)}
    efficiency = _file().efficiency if gpu else CPU_EFFICIENCY
    return Machine(title, memory, speed, efficiency, gpu, "free memory and a matrix product, measured now")
