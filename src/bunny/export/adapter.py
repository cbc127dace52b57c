"""What a LoRA taught a Bunny, taken out of it again: an adapter of its language model, and its projector.

In: a model folder, the language model it was trained on. Out: a folder that peft loads on that language model, with
`projector.safetensors` beside it. Training adds an adapter to the weights; here each matrix's difference from the base
is split again into two thin ones (singular values, randomised). A difference that is not thin is refused: nothing is
approximated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from bunny.core.errors import UserError
from bunny.core.log import track
from bunny.export.opened import EMBEDDING, HEAD, LANGUAGE, PROJECTOR, Opened
from bunny.model.bundled import resolve
from bunny.model.tensors import TensorTable, open_tensors

MOST_RANKS = 512
ROUNDINGS = 8
"""An element may be off by so many units in the last place of its matrix's largest: sums were rounded in training."""


@dataclass(frozen=True, slots=True)
class Thin:
    """matrices: how many have an adapter. rank: of the widest. difference: largest element that the adapter misses,
    over its matrix's largest."""

    matrices: int
    rank: int
    difference: float


def write_adapter(opened: Opened, base: str, work: Path) -> Thin:
    """Fill the folder `work`. base: folder, hub name or `bundled:` name. Raises UserError if it was not a LoRA."""
    folder = Path(resolve(base))
    if not folder.is_dir():
        raise UserError(f"--base {base}: no such folder", fix="download the language model and give its folder")
    before = open_tensors(folder)
    state: dict[str, torch.Tensor] = {}
    modules, rank, worst = list[str](), 0, 0.0
    names = [name for name in opened.table.info if name.startswith(LANGUAGE) or name == HEAD]
    for name in track(names, "comparing with the base", len(names)):
        theirs = name if name == HEAD else f"model.{name.removeprefix(LANGUAGE)}"
        after, old = _pair(opened.table, before, name, theirs, folder)
        change = after - old
        room = ROUNDINGS * torch.finfo(opened.table.info[name].dtype).eps * float(after.abs().max())
        if float(change.abs().max()) <= room:
            continue
        if change.ndim != 2 or name in (EMBEDDING, HEAD):
            raise UserError(f"{theirs}: it has learnt, and no adapter is for it", fix="`--to merged` keeps everything")
        down, up, missed = _split(change, room, theirs)
        module = theirs.removesuffix(".weight")
        state[f"base_model.model.{module}.lora_A.weight"] = down
        state[f"base_model.model.{module}.lora_B.weight"] = up
        modules.append(module)
        rank, worst = max(rank, len(down)), max(worst, missed / float(after.abs().max()))
    if not modules:
        raise UserError(f"{opened.folder}: its language model is the base itself", fix="its projector is all it learnt")
    work.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, work / "adapter_model.safetensors")
    ranks = {name: len(state[f"base_model.model.{name}.lora_A.weight"]) for name in modules}
    LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern={f"^{name}": each for name, each in ranks.items() if each != rank},
        alpha_pattern={f"^{name}": each for name, each in ranks.items() if each != rank},
        target_modules=modules,
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(str(work))
    projector = {name: opened.table.read(PROJECTOR + name) for name in opened.names(PROJECTOR)}
    save_file(projector, work / "projector.safetensors")
    return Thin(len(modules), rank, worst)


def _pair(
    ours: TensorTable, theirs: TensorTable, name: str, old: str, folder: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the tensor here, that of the base), float32; rows of the vocabulary that one of them lacks are left out."""
    if old == HEAD and old not in theirs.info:
        old = "model.embed_tokens.weight"
    if old not in theirs.info:
        raise UserError(f"{folder}: it has no {old}", fix="give the language model that this Bunny was trained on")
    rows = min(ours.info[name].rows, theirs.info[old].rows)
    if ours.info[name].shape[1:] != theirs.info[old].shape[1:]:
        raise UserError(f"{folder}: its {old} is of another shape", fix="give the one that this Bunny was trained on")
    return ours.read(name, 0, rows).float(), theirs.read(old, 0, rows).float()


def _split(change: torch.Tensor, room: float, name: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """(A (r, in), B (out, r), largest element that B @ A misses) of the smallest r that is within `room`."""
    noise = room * math.sqrt(max(change.shape))  # of a matrix whose elements are off by `room`
    tried = 8
    while tried <= MOST_RANKS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            left, sizes, right = torch.svd_lowrank(change.double(), q=min(tried + 8, *change.shape), niter=4)
        kept = max(1, int((sizes > noise).sum()))
        root = sizes[:kept].sqrt()
        up, down = (left[:, :kept] * root).float(), (right[:, :kept] * root).T.float()
        missed = float((change - up @ down).abs().max())
        if missed <= 2 * room and kept < min(change.shape) // 2:
            return down, up, missed
        tried *= 2
    what = f"{name}: its change is not that of a LoRA (no rank up to {min(MOST_RANKS, *change.shape)} gives it)"
    raise UserError(what, fix="it was tuned whole, or rounded to half precision: `--to merged` keeps everything")
