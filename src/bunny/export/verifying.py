"""A Bunny and its export answer the same talks, side by side: equal, or the export is not called done.

In: a model folder and its export. Out: `Agreement`: the figures, and what does not agree, in words.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.seeds import stream
from bunny.export import measuring
from bunny.model.build import load

ROUNDINGS = 16
"""Logits may differ by so many units in the last place of the largest of them: sums in another order do."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """probes: talks compared. logits: largest difference, and largest allowed. failures: what differs, one line each.

    figures: more numbers, by name, as they are to be shown.
    """

    probes: int
    logits: float
    allowed: float
    tokens: int
    failures: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failures


def verify_llava(folder: Path, exported: Path, dtype: torch.dtype | None, folded: bool) -> Agreement:
    """Compare with a fresh process that has transformers and no Bunny. dtype: what weights were rounded to, if so."""
    with tempfile.TemporaryDirectory() as place:
        probes = write_probes(Path(place))
        words = measure_ours(folder, probes, probes / "ours", dtype)
        log.info("the export is measured in a process without Bunny")
        _measure_elsewhere(exported, probes, probes / "theirs")
        kind = dtype if folded and dtype is not None else torch.float32
        return compare(probes / "ours", probes / "theirs", words, torch.finfo(kind).eps)


def write_probes(folder: Path) -> Path:
    """Talks with a picture (square, wide, high), with two, and without; made up, the same every time."""
    rng = stream("export.probes", 0)
    sizes = {"square": (64, 64), "wide": (320, 200), "high": (181, 333)}
    for name, (width, height) in sizes.items():
        _picture(rng, width, height).save(folder / f"{name}.png")
    picture, words = {"type": "image"}, "What is in the picture? Answer with one word."
    asked = [{"pictures": [f"{name}.png"], "content": [picture, {"type": "text", "text": words}]} for name in sizes]
    both = [picture, picture, {"type": "text", "text": "How do these two differ?"}]
    asked.append({"pictures": ["wide.png", "high.png"], "content": both})
    for text in ("Name three colours.", "1 + 1 = ?  Explain,\nplease: é, 你好 & <b>."):
        asked.append({"pictures": [], "content": [{"type": "text", "text": text}]})
    probes = [
        {"pictures": one["pictures"], "talk": [{"role": "user", "content": one["content"]}], "text": one["content"]}
        for one in asked
    ]
    (folder / "probes.json").write_text(json.dumps(probes, ensure_ascii=False), encoding="utf-8")
    return folder


def _picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours with a few hard edges, in RGB."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(rng.uniform(2, 9) * across + rng.uniform(2, 9) * down + rng.uniform(0, 6)) for _ in range(3)]
    pixels = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    for _ in range(4):
        left, top = rng.integers(0, width // 2), rng.integers(0, height // 2)
        pixels[top : top + height // 4, left : left + width // 4] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def measure_ours(
    folder: Path,
    probes: Path,
    out: Path,
    dtype: torch.dtype | None = None,
    change: Callable[[Any], None] | None = None,
) -> int:
    """What this package computes, in float32, from weights rounded to `dtype`; returns how many ids are words.

    change: what else becomes of the model beforehand.
    """
    model, processor = load(folder)
    if dtype is not None:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).float()
    if change is not None:
        change(model)
    measuring.measure(model, processor, probes, out)
    return int(model.config.words or model.config.text_config.vocab_size)


ALONE = "import runpy, sys; sys.modules['bunny'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501


def _measure_elsewhere(exported: Path, probes: Path, out: Path) -> None:
    """Run `measuring.py` on the export where `import bunny` fails. Raises UserError with the process's last words."""
    words: list[Any] = [sys.executable, "-I", "-c", ALONE, measuring.__file__, exported.resolve(), probes, out]
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"{exported}: transformers alone cannot run it: {last}", fix="please report this")


def compare(ours: Path, theirs: Path, words: int, eps: float) -> Agreement:
    """Both sides' measurements. words: logits beyond them are closed here, and compared with nothing."""
    failures: list[str] = []
    worst = allowed = 0.0
    tokens, files = 0, sorted(ours.glob("*.npz"), key=lambda path: int(path.stem))
    for path in files:
        mine, its = np.load(path), np.load(theirs / path.name)
        failures += [f"talk {path.stem}: {found}" for found in _unlike(mine, its)]
        places = min(
            len(mine["logits"]), len(its["logits"]), 1 + _alike(mine["answer"], its["answer"]) + measuring.PLACES
        )
        here, there = mine["logits"][:places, :words], its["logits"][:places, :words]
        open_here = here > np.finfo(np.float32).min  # a reserved token that became `<image>`
        difference, limit = float(np.abs(here - there)[open_here].max()), ROUNDINGS * eps * float(np.abs(here).max())
        worst, allowed = max(worst, difference), max(allowed, limit)
        if not difference <= limit:
            failures.append(f"talk {path.stem}: logits differ by {difference:.3g}, allowed are {limit:.3g}")
        tokens += len(mine["answer"])
    return Agreement(len(files), worst, allowed, tokens, tuple(failures))


def _alike(one: Any, other: Any) -> int:
    """How many ids at the front are the same."""
    count = min(len(one), len(other))
    return int((np.cumsum(one[:count] != other[:count]) == 0).sum())


def _unlike(mine: Any, its: Any) -> list[str]:
    """What must be the same to the last bit and is not."""
    named: Sequence[tuple[str, str]] = (("text", "prompts"), ("ids", "token ids"), ("pixels", "pixels"))
    found = [f"{words} differ" for key, words in named if not np.array_equal(mine[key], its[key])]
    same: Callable[[Any, Any], bool] = np.array_equal
    if not same(mine["answer"], its["answer"]):
        found.append(f"greedy ids differ: {mine['answer'][:8].tolist()} here, {its['answer'][:8].tolist()} there")
    return found
