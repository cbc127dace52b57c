"""The released EVA02-CLIP `.pt` file becomes a vision tower (`eva_vision.py`) and its image processor.

In: a file of named tensors, the encoder's under `visual.`. Out: a tower that has learnt all of them but those that the
original Bunny never reads: it takes the state before the last block, so that block, the final norm and the head are
left out, as are the text half and the rotary tables, which follow from the geometry. The geometry is read off the
tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bunny.core.errors import UserError
from bunny.model.eva_image import EvaImageProcessor, eva_image_processor
from bunny.model.eva_vision import EvaVisionConfig, EvaVisionModel, rotary_tables
from bunny.model.loading import nothing_lost
from bunny.model.tensors import PickledFile

PREFIX = "visual."
GRIDS = range(1, 257)  # rotary grids that are tried for a file; the released ones are 16
RELEASED = "give an EVA02-CLIP file such as EVA02_CLIP_L_336_psz14_s6B.pt"
NEEDED = {
    "pos_embed": 3,
    "patch_embed.proj.weight": 4,
    "rope.freqs_cos": 2,
    "rope.freqs_sin": 2,
    "blocks.0.mlp.w1.weight": 2,
}
"""Tensors that say the geometry -> how many axes they have."""

PARTS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings",
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
    "attn.q_proj": "attention.q_proj",
    "attn.k_proj": "attention.k_proj",
    "attn.v_proj": "attention.v_proj",
    "attn.inner_attn_ln": "attention.norm",
    "attn.proj": "attention.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.up_proj",
    "mlp.ffn_ln": "mlp.norm",
    "mlp.w3": "mlp.down_proj",
}
"""The original's name of a tensor, or of a module with a weight and maybe a bias -> ours; the others are the same."""

LEFT_OUT = re.compile(r"(norm|head)\.(weight|bias)|(blocks\.\d+\.attn\.)?rope\.freqs_(cos|sin)")
OTHER_HALF = re.compile(r"text\..*|logit_scale|logit_bias")


def load_eva(path: str | Path) -> tuple[EvaVisionModel, EvaImageProcessor]:
    """(tower in float32, for inference; image processor) of an EVA02-CLIP `.pt` file. Raises UserError as below."""
    config, state, processor = read_eva_checkpoint(path)
    model = EvaVisionModel.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
    return model.eval(), processor


def read_eva_checkpoint(path: str | Path) -> tuple[EvaVisionConfig, dict[str, Tensor], EvaImageProcessor]:
    """(config, float32 tensors by the names of `EvaVisionModel`, image processor) of an EVA02-CLIP `.pt` file.

    Raises UserError if the file holds anything but tensors, is damaged, holds no EVA02 encoder, or holds a tensor too
    many or too few.
    """
    path = Path(path)
    tensors = _tensors(path)
    visual = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    if not visual:
        raise UserError(f"{path}: no EVA-CLIP file (no tensor is called `{PREFIX}…`)", fix=RELEASED)
    config = _geometry(visual, path)
    ours = {eva_names(name, config.num_hidden_layers): tensor for name, tensor in visual.items()}
    kept = {name: tensor for name, tensor in ours.items() if name is not None}
    others = [name for name in tensors if not name.startswith(PREFIX) and not OTHER_HALF.fullmatch(name)]
    _check_whole(path, config, kept, others)
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in kept.items()}  # out of the mapped file
    return config, state, eva_image_processor(config.image_size)


def eva_names(name: str, blocks: int) -> str | None:
    """Our name of a tensor that the original calls `name` (without `visual.`), in a tower of `blocks` blocks.

    None for what is left out on purpose: blocks from `blocks` on, final norm, head, rotary tables. A name that is not
    EVA's comes back much as it is, so that a strict load reports it.

    >>> eva_names("blocks.3.attn.q_bias", blocks=23)
    'layers.3.attention.q_proj.bias'
    >>> eva_names("blocks.23.attn.q_bias", blocks=23) is None
    True
    """
    block = re.match(r"blocks\.(\d+)\.", name)
    if LEFT_OUT.fullmatch(name) or (block and int(block.group(1)) >= blocks):
        return None
    return _renamed(name, PARTS, "blocks", "layers")


def original_eva_names(name: str) -> str:
    """The original's name (without `visual.`) of a tensor of `EvaVisionModel`.

    >>> original_eva_names("layers.3.attention.q_proj.bias")
    'blocks.3.attn.q_bias'
    """
    return _renamed(name, {mine: theirs for theirs, mine in PARTS.items()}, "layers", "blocks")


def _renamed(name: str, parts: Mapping[str, str], stack: str, new_stack: str) -> str:
    block = re.match(rf"{stack}(\.\d+\.)", name)
    start, rest = (new_stack + block.group(1), name[block.end() :]) if block else ("", name)
    module, _, leaf = rest.rpartition(".")
    return start + (parts.get(rest) or (f"{parts[module]}.{leaf}" if module in parts else rest))


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's tensors, mapped into memory. Raises UserError if it is no whole file of tensors and nothing else."""
    try:
        PickledFile(path)  # says what is wrong with a file that cannot be opened
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", fix=RELEASED) from error
    return dict(torch.load(path, weights_only=True, mmap=True, map_location="cpu"))


def _geometry(visual: Mapping[str, Tensor], path: Path) -> EvaVisionConfig:
    """The config, without the last block. Raises UserError if the tensors do not make an EVA02 encoder."""
    shapes = {name: tensor.shape for name, tensor in visual.items()}
    odd = [f"{PREFIX}{name}" for name, axes in NEEDED.items() if len(shapes.get(name, ())) != axes]
    if odd:
        raise UserError(f"{path}: not an EVA02 encoder ({', '.join(odd)}: missing, or of another shape)", fix=RELEASED)
    width, _, _, patch = shapes["patch_embed.proj.weight"]
    positions, (patches, head_width) = shapes["pos_embed"][1], shapes["rope.freqs_cos"]
    side = math.isqrt(patches)
    blocks = 1 + max(int(found.group(1)) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name)))
    square = 0 < side**2 == patches == positions - 1 and shapes["rope.freqs_cos"] == shapes["rope.freqs_sin"]
    if not square or not head_width or head_width % 4 or width % head_width or blocks < 2:
        raise UserError(
            f"{path}: no EVA02 encoder has {blocks} blocks of width {width}, heads of {head_width}, "
            f"{positions} positions and {patches} rotary ones",
            fix=RELEASED,
        )
    cos, sin = visual["rope.freqs_cos"], visual["rope.freqs_sin"]
    return EvaVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["blocks.0.mlp.w1.weight"][0],
        num_hidden_layers=blocks - 1,
        num_attention_heads=width // head_width,
        image_size=side * patch,
        patch_size=patch,
        rope_grid=_rope_grid(cos, sin, path),
        rope_dtype=str(cos.dtype).removeprefix("torch."),
    )


def _rope_grid(cos: Tensor, sin: Tensor, path: Path) -> int:
    """The grid whose tables, rounded as they are, these are: (patches, head width) each."""
    side, head_width, dtype = math.isqrt(len(cos)), cos.shape[1], cos.dtype
    stored = torch.cat([cos, sin]).float()
    step = max(torch.finfo(dtype).eps, 1e-5) if dtype.is_floating_point else -1.0  # other grids are far off
    for grid in GRIDS:
        made = torch.cat(rotary_tables(side, grid, head_width, dtype))
        if (made - stored).abs().max() <= step:
            return grid
    raise UserError(f"{path}: its rotary tables fit no grid of {GRIDS[0]} to {GRIDS[-1]} patches", fix=RELEASED)


def _check_whole(path: Path, config: EvaVisionConfig, found: Mapping[str, Tensor], others: list[str]) -> None:
    with torch.device("meta"):  # shapes only
        wanted = EvaVisionModel(config).state_dict()
    odd = {name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape}

    def named(names: set[str]) -> list[str]:
        return [PREFIX + original_eva_names(name) for name in names]

    nothing_lost(
        str(path),
        {
            "missing_keys": named(wanted.keys() - found.keys()),
            "unexpected_keys": others + named(found.keys() - wanted.keys()),
            "mismatched_keys": named(odd),
        },
    )
