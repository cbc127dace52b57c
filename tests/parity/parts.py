"""Checks on single parts: projectors, S2, the sampler, conversation templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bunny.core.types import Turn
from bunny.model.projector import build_projector
from bunny.model.s2 import multiscale
from bunny.text.template import Template
from bunny.train.grouping import by_length, by_modality_and_length, even_parts
from tests.parity.row import Row, largest

PROJECTOR, FEATURES = 1e-6, 2e-5


def projectors(folder: Path) -> Iterator[Row]:
    """Every projector kind on stored weights and features."""
    facts = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    with np.load(folder / "golden.npz") as file:
        arrays = {key: file[key] for key in file.files}
    for kind, about in facts.items():
        if f"{kind}/y" not in arrays:
            continue  # `spp` without a version: the original makes a module that does nothing
        features, wanted = arrays["x"], arrays[f"{kind}/y"]
        state = {name: torch.from_numpy(arrays[f"{kind}/state/{name}"]) for name in about["state"]}
        module = build_projector(kind, features.shape[-1], wanted.shape[-1])
        module.load_state_dict(state)
        with torch.inference_mode():
            mine = module.eval()(torch.from_numpy(features))
        yield Row(folder.name, kind, largest(mine, wanted), PROJECTOR, wanted.size)


def misc(folder: Path) -> Iterator[Row]:
    """S2, the grouping sampler, templates."""
    yield from _templates(folder)
    yield from _scales(folder)
    yield from _sampler(folder)


def _templates(folder: Path) -> Iterator[Row]:
    facts = json.loads((folder / "conversations.json").read_text(encoding="utf-8"))
    talk = [Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("user", "Bye")]
    wrong, compared = [], 0
    for name, about in facts.items():
        if "prompt" not in about:
            continue
        template = Template.named({"default": "bunny", "phi3": "bunny"}.get(name, name))
        text = "".join(piece.text for piece in template.pieces(talk, answer_next=True))
        compared += 1
        if text != about["prompt"] or template.assistant_turn.end != about["sep2"]:
            wrong.append(name)
    yield Row(folder.name, "templates", float(len(wrong)), 0, compared, ", ".join(wrong))


def _scales(folder: Path) -> Iterator[Row]:
    """The S2 wrapper around a toy tower: a convolution of stride 4."""
    facts = json.loads((folder / "s2.json").read_text(encoding="utf-8"))
    with np.load(folder / "s2.npz") as file:
        weight, image, wanted = (torch.from_numpy(file[key]) for key in ("conv_weight", "image", "out"))
    calls: list[list[int]] = []

    def tower(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(list(pixels.shape))
        return torch.nn.functional.conv2d(pixels, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)

    mine = multiscale(image, facts["img_sizes"], tower)
    yield Row(folder.name, "S2 features", largest(mine, wanted), FEATURES, wanted.numel())
    yield Row(folder.name, "S2 tower calls", float(calls != facts["calls"]), 0, len(calls))


def _sampler(folder: Path) -> Iterator[Row]:
    """Orders of the grouping sampler; keys say seed, rows per part (bs) and parts (ws)."""
    facts = json.loads((folder / "sampler.json").read_text(encoding="utf-8"))
    lengths = facts["lengths"]
    plain = [abs(length) for length in lengths]
    wrong, compared = [], 0
    for key, wanted in facts.items():
        found = re.fullmatch(r"(modality|length)(.*) seed(\d+) bs(\d+) ws(\d+).*", key)
        if key == "even chunks":
            mine: object = even_parts(range(sum(map(len, wanted))), plain, len(wanted))
        elif found:
            kind, note, seed, size, parts = found[1], found[2], int(found[3]), int(found[4]), int(found[5])
            torch.manual_seed(seed)
            order = by_length if kind == "length" else by_modality_and_length
            mine = order(lengths if kind == "modality" and "positive" not in note else plain, size, parts)
        else:
            continue
        compared += 1
        if mine != wanted:
            wrong.append(key)
    yield Row(folder.name, "sampler", float(len(wrong)), 0, compared, ", ".join(wrong))
