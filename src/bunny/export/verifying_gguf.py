"""A Bunny and its GGUF files answer the same talks, the one in transformers, the others in llama.cpp.

In: a model folder, the folder of its files. Out: `Agreement`. What has to agree:

- token ids of every prompt, picture by picture, word by word: equal;
- embeddings of pictures: within a thousandth, relative to their size;
- the language model, f32 and f16: greedy tokens equal, logits within a hundredth; behind a picture, whose embeddings
  may differ by the above, a token may differ where the two were nearer than the logits differ;
- the language model, quantised: against transformers with the very numbers that the file holds, so that what
  quantising costs (told as a figure) is not taken for a fault. llama.cpp rounds what flows through such a model to
  8 bits: logits within five hundredths, and a token may differ only where the two were nearer than that rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bunny.core.log import log
from bunny.export.gguf_families import family_of
from bunny.export.gguf_file import gguf
from bunny.export.gguf_folder import Files
from bunny.export.gguf_text import gguf_names, row_orders
from bunny.export.llama_engine import check_installed, run
from bunny.export.opened import LANGUAGE, open_model
from bunny.export.stock import STOCK_HEAD, stock
from bunny.export.verifying import Agreement, measure_ours, write_probes

PICTURES, EXACT, QUANTISED = 1e-3, 1e-2, 5e-2
"""Largest relative differences: of embeddings; of logits; of logits of a quantised model."""


def verify_gguf(folder: Path, exported: Path, files: Files, kind: str) -> Agreement:
    """Compare. kind: of the language model's numbers. Raises UserError if llama-cpp-python is missing or fails."""
    check_installed("--verify of GGUF files")
    with tempfile.TemporaryDirectory() as place:
        probes = write_probes(Path(place))
        plain, ours, theirs = (probes / name for name in ("plain", "ours", "theirs"))
        words = measure_ours(folder, probes, plain)
        quantised = kind.startswith("q")
        if quantised:
            measure_ours(folder, probes, ours, change=numbers_of(folder, exported / files.text))
        else:
            ours = plain
        log.info("the files are measured in llama.cpp")
        threads = str(torch.get_num_threads())
        paths = map(str, (exported / files.text, exported / files.mmproj, probes, ours, theirs))
        run(
            [str(Path(__file__).with_name("measuring_gguf.py")), *paths, threads],
            f"{exported}: llama.cpp cannot run it",
        )
        image = int(open_model(folder).image_token)
        scale = files.folded.get("embedding_multiplier", 1.0)
        found = Found(QUANTISED if quantised else EXACT, quantised)
        for number in range(len(list(ours.glob("*.npz")))):
            mine, its = np.load(ours / f"{number}.npz"), np.load(theirs / f"{number}.npz")
            found.talk(number, mine, its, words, image, scale)
            if quantised:
                found.cost(np.load(plain / f"{number}.npz"), its, words, image)
        return found.agreement()


def numbers_of(folder: Path, file: Path) -> Callable[[Any], None]:
    """What puts the numbers of a GGUF file into the folder's model, once it is loaded."""
    opened = open_model(folder)
    model = stock(opened, opened.words)
    family = family_of(model.text, str(folder))
    names, orders = gguf_names(model, family), row_orders(model, family)
    package = gguf()

    @torch.no_grad()
    def put(ours: Any) -> None:
        if model.opened.tied:  # embedding and head may have been rounded apart
            ours.lm_head.weight = nn.Parameter(ours.lm_head.weight.clone())
        parameters = dict(ours.named_parameters())
        for tensor in package.GGUFReader(file).tensors:
            if tensor.name not in names:
                continue  # follows from the configuration
            name = names[tensor.name]
            values = torch.from_numpy(package.quants.dequantize(tensor.data, tensor.tensor_type).copy())
            values = values.reshape(model.language.info[name].shape)
            if name in orders:
                values[orders[name]] = values.clone()
            values = values / model.factors.get(name, 1.0)
            places = [STOCK_HEAD] if name == STOCK_HEAD else [LANGUAGE + name.removeprefix("model.")]
            if tensor.name == "token_embd.weight" and "output.weight" not in names:
                places.append(STOCK_HEAD)
            for place in places:
                parameters[place].data[: len(values)] = values

    return put


@dataclass
class Found:
    """What was found so far. allowed: largest relative difference of logits."""

    allowed: float
    quantised: bool
    probes: int = 0
    tokens: int = 0
    ties: int = 0
    logits: float = 0.0
    pictures: float = 0.0
    raw: float = 0.0
    same: int = 0
    failures: list[str] = field(default_factory=list)

    def talk(self, number: int, mine: Any, its: Any, words: int, image: int, scale: float) -> None:
        """Compare one talk. scale: what the picture's embeddings were multiplied by."""
        self.probes += 1
        self.tokens += len(mine["answer"])
        if not np.array_equal(np.where(mine["ids"] == image, -1, mine["ids"]), its["ids"]):
            self.failures.append(f"talk {number}: token ids of the prompt differ")
            return
        if mine["pictures"].size:
            seen = max(map(_relative, mine["pictures"] * scale, its["pictures"]))
            self.pictures = max(self.pictures, seen)
            self.raw = max(self.raw, *map(_relative, mine["pictures"] * scale, its["raw"]))
            if not seen <= PICTURES:
                self.failures.append(f"talk {number}: embeddings of a picture differ by {seen:.3g}")
        here, there = open_logits(mine, its, words, image)
        difference = _relative(here, there)
        self.logits = max(self.logits, difference)
        if not difference <= self.allowed:
            self.failures.append(f"talk {number}: logits differ by {difference:.3g}")
        for place in np.flatnonzero(there.argmax(-1) != here.argmax(-1)):
            noise = float(np.abs(here[place] - there[place]).max())
            tie = here[place].max() - here[place][there[place].argmax()] <= 2 * noise
            self.ties += int(tie)
            if not (tie and (self.quantised or mine["pictures"].size)):
                self.failures.append(f"talk {number}: greedy token {place} differs")

    def cost(self, plain: Any, its: Any, words: int, image: int) -> None:
        """Count the first tokens that are those of the model before it was quantised."""
        here, there = open_logits(plain, its, words, image)
        self.same += int(here[0].argmax() == there[0].argmax())

    def agreement(self) -> Agreement:
        figures = [
            ("pictures", f"embeddings differ by {self.pictures:.2g} (allowed: {PICTURES:g}), relative"),
            ("pictures as llama.cpp prepares them", f"embeddings differ by {self.raw:.2g}; nothing is demanded"),
        ]
        figures.append(
            ("tokens", f"{self.tokens - self.ties} equal, {self.ties} nearer to each other than the rounding")
        )
        if self.quantised:
            figures.append(("first token as before quantising", f"{self.same} of {self.probes}"))
        return Agreement(self.probes, self.logits, self.allowed, self.tokens, tuple(self.failures), tuple(figures))


def open_logits(mine: Any, its: Any, words: int, image: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Both sides' logits at the places of the answer, of words alone: (tokens, words)."""
    count = min(len(mine["answer"]), len(its["logits"]))
    kept = np.flatnonzero(np.arange(words) != image)
    last = len(mine["logits"]) - len(mine["answer"])
    return mine["logits"][last : last + count][:, kept], its["logits"][:count][:, kept]


def _relative(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))
