"""EVA02-CLIP's released file: the original's numbers, read whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from bunny.core.errors import UserError
from bunny.model.eva import eva_names, load_eva, original_eva_names, read_eva_checkpoint
from bunny.model.eva_vision import EvaVisionModel, rotary_tables
from bunny.model.processor import pad_to_square
from bunny.model.vision import load_tower
from tests.model.test_eva_vision import pictures, tiny_tower, turned_slowly

GOLDEN = Path(__file__).parent.parent / "golden" / "eva"
PICTURES = ("wide", "tall", "square")


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDEN / "golden.npz")


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_the_originals(golden: Any, name: str) -> None:
    _, _, processor = read_eva_checkpoint(GOLDEN / "EVA02_tiny_42_psz14.pt")
    picture = pad_to_square(Image.open(GOLDEN / f"{name}.png").convert("RGB"), processor.image_mean)
    pixels = processor([picture], return_tensors="pt")["pixel_values"][0]
    np.testing.assert_allclose(pixels.numpy(), golden[f"pixels/{name}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_features_are_the_originals(golden: Any, attention: str) -> None:
    tower, _ = load_eva(GOLDEN / "EVA02_tiny_42_psz14.pt")
    tower.set_attn_implementation(attention)
    pixels = torch.from_numpy(np.stack([golden[f"pixels/{name}"] for name in PICTURES]))
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 1 + 2  # three blocks, the last of which the original never reads
    np.testing.assert_allclose(states[-1][:, 1:].numpy(), golden["features"], atol=2e-5, rtol=0)


def eva_tensors(
    side: int = 3, patch: int = 4, heads: int = 2, head_width: int = 8, blocks: int = 3, inner: int = 21, grid: int = 2
) -> dict[str, Tensor]:
    """Random tensors as in EVA-CLIP's own file, text half included; half precision."""
    width = heads * head_width
    norm = {"weight": (width,), "bias": (width,)}
    linear = {
        "attn.proj": (width, width),
        "mlp.w1": (inner, width),
        "mlp.w2": (inner, width),
        "mlp.w3": (width, inner),
    }
    block: dict[str, tuple[int, ...]] = {f"attn.{kind}_proj.weight": (width, width) for kind in "qkv"}
    block |= {"attn.q_bias": (width,), "attn.v_bias": (width,)}
    block |= {"mlp.ffn_ln.weight": (inner,), "mlp.ffn_ln.bias": (inner,)}
    for name in ("norm1", "norm2", "attn.inner_attn_ln"):
        block |= {f"{name}.{leaf}": shape for leaf, shape in norm.items()}
    for name, shape in linear.items():
        block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side * side, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (6, width),
        "head.bias": (6,),
    }
    shapes |= {f"blocks.{index}.{name}": shape for index in range(blocks) for name, shape in block.items()}
    draw = torch.Generator().manual_seed(3)
    tensors = {f"visual.{name}": torch.randn(shape, generator=draw).half() for name, shape in shapes.items()}
    ones, zeros = torch.tensor([1.0, 0.0]).repeat(head_width // 2), torch.zeros(2)
    places = [(row, column) for row in range(side) for column in range(side)]
    turned = torch.stack([turned_slowly(ones, *place, side, grid) for place in places])  # cos, sin of every pair
    for where in ("rope", *(f"blocks.{index}.attn.rope" for index in range(blocks))):
        tensors[f"visual.{where}.freqs_cos"] = turned[:, 0::2].repeat_interleave(2, dim=1).half()
        tensors[f"visual.{where}.freqs_sin"] = turned[:, 1::2].repeat_interleave(2, dim=1).half()
    return tensors | {"text.token_embedding.weight": zeros, "logit_scale": torch.tensor(4.6)}


def eva_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A tiny random EVA-CLIP file."""
    torch.save(tensors, folder / "eva.pt")
    return folder / "eva.pt"


@pytest.mark.parametrize(
    "sizes",
    [
        {"side": 3, "patch": 4, "heads": 2, "head_width": 8, "blocks": 3, "inner": 21, "grid": 2},
        {"side": 2, "patch": 7, "heads": 3, "head_width": 4, "blocks": 2, "inner": 9, "grid": 5},
        {"side": 6, "patch": 2, "heads": 1, "head_width": 16, "blocks": 5, "inner": 42, "grid": 16},
        {"side": 4, "patch": 3, "heads": 4, "head_width": 12, "blocks": 4, "inner": 64, "grid": 4},
        {"side": 24, "patch": 1, "heads": 1, "head_width": 64, "blocks": 12, "inner": 5, "grid": 16},
    ],
)
def test_the_geometry_is_read_off_the_tensors(tmp_path: Path, sizes: dict[str, int]) -> None:
    config, state, processor = read_eva_checkpoint(eva_file(tmp_path, eva_tensors(**sizes)))
    assert config.hidden_size == sizes["heads"] * sizes["head_width"]
    assert config.intermediate_size == sizes["inner"]
    assert config.num_hidden_layers == sizes["blocks"] - 1
    assert config.num_attention_heads == sizes["heads"]
    assert (config.image_size, config.patch_size) == (sizes["side"] * sizes["patch"], sizes["patch"])
    assert (config.rope_grid, config.rope_dtype) == (sizes["grid"], "float16")
    assert processor.crop_size["height"] == processor.size["shortest_edge"] == config.image_size
    EvaVisionModel(config).load_state_dict(state, strict=True)
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_tables_keep_the_precision_that_they_were_released_in(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = eva_tensors(grid=7)
    for kind, table in zip(("cos", "sin"), rotary_tables(3, 7, 8, dtype), strict=True):
        tensors[f"visual.rope.freqs_{kind}"] = table.to(dtype)
    tower, _ = load_eva(eva_file(tmp_path, tensors))
    assert tower.config.rope_grid == 7
    assert torch.equal(tower.rotary.cos[1:], tensors["visual.rope.freqs_cos"].float())


def test_every_tensor_finds_its_place(tmp_path: Path) -> None:
    tensors = eva_tensors()
    tower, _ = load_eva(eva_file(tmp_path, tensors))
    assert not tower.training
    state = tower.state_dict()
    for mine, tensor in state.items():
        assert torch.equal(tensor, tensors[f"visual.{original_eva_names(mine)}"].float()), mine
    left = {name for name in tensors if name.startswith("visual.")} - {
        f"visual.{original_eva_names(mine)}" for mine in state
    }
    others = {name for name in left if not name.startswith("visual.blocks.2.") and "rope" not in name}
    assert others == {f"visual.{part}.{leaf}" for part in ("norm", "head") for leaf in ("weight", "bias")}


def test_names_go_over_and_back() -> None:
    names = list(tiny_tower().state_dict())
    originals = [original_eva_names(name) for name in names]
    assert [eva_names(name, blocks=3) for name in originals] == names
    assert "blocks.2.attn.inner_attn_ln.bias" in originals
    assert eva_names("blocks.3.norm1.weight", blocks=3) is None
    assert eva_names("blocks.0.attn.rope.freqs_cos", blocks=3) is None
    assert eva_names("norm.bias", blocks=3) is None
    assert eva_names("blocks.0.gamma_1", blocks=3) == "layers.0.gamma_1"  # not EVA02-CLIP's: a strict load says so


def test_a_tower_can_be_named_by_its_file_and_saved_as_a_folder(tmp_path: Path) -> None:
    tower, processor = load_tower(str(eva_file(tmp_path, eva_tensors())))
    tower.save_pretrained(tmp_path / "folder")
    processor.save_pretrained(tmp_path / "folder")
    again, its = load_tower(str(tmp_path / "folder"))
    assert again.config.num_hidden_layers == 2  # not trimmed a second time
    assert its.to_dict() == AutoImageProcessor.from_pretrained(tmp_path / "folder").to_dict()
    with torch.no_grad():
        assert torch.equal(tower(pictures(12)).last_hidden_state, again(pictures(12)).last_hidden_state)


class Sneaky:
    """A pickle that would run code when it is opened."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("sneaky"),)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")


def cut_short(path: Path) -> None:
    torch.save(eva_tensors(), path)
    path.write_bytes(path.read_bytes()[:5000])


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
        "damaged, or of a kind before",
    ),
    "empty": (lambda path: path.write_bytes(b""), "damaged, or of a kind before"),
    "zip": (other_zip, "damaged, or of a kind before"),
    "cut": (cut_short, "cannot be read|damaged, or of a kind before"),
    "code": (lambda path: torch.save({"visual.x": Sneaky()}, path), "more than tensors, which is not safe to open"),
    "wrapped": (lambda path: torch.save({"state_dict": eva_tensors()}, path), "not a table of named tensors"),
    "list": (lambda path: torch.save([torch.zeros(1)], path), "not a table of named tensors"),
    "folder": (lambda path: path.mkdir(), "cannot be read .Is a directory"),
    "missing": (lambda path: None, "cannot be read .No such file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_file_of_tensors_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = FILES[kind]
    write(tmp_path / "eva.pt")
    with pytest.raises(UserError, match=message) as raised:
        load_eva(tmp_path / "eva.pt")
    assert raised.value.fix
    assert "\n" not in str(raised.value)
    assert not Path("sneaky").exists()


def without(*names: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: [tensors.pop(f"visual.{name}") for name in names]


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: tensor})


def fuse(tensors: dict[str, Tensor]) -> None:
    """As in the EVA models without the norms inside: one matrix for queries, keys and values."""
    parts = [tensors.pop(f"visual.blocks.0.attn.{kind}_proj.weight") for kind in "qkv"]
    tensors["visual.blocks.0.attn.qkv.weight"] = torch.cat(parts)


def only_text(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("visual.")]:
        del tensors[name]


def one_block(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if ".blocks.1." in name or ".blocks.2." in name]:
        del tensors[name]


STRANGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no encoder": (only_text, "no EVA-CLIP file .*`visual.…`"),
    "another encoder": (without("pos_embed", "rope.freqs_cos"), r"visual.pos_embed, visual.rope.freqs_cos: missing"),
    "flat positions": (put("visual.pos_embed", torch.zeros(10)), "visual.pos_embed: missing, or of another shape"),
    "one block": (one_block, "no EVA02 encoder has 1 blocks"),
    "not a square": (put("visual.pos_embed", torch.zeros(1, 9, 16)), "9 positions and 9 rotary ones"),
    "no positions": (put("visual.pos_embed", torch.zeros(1, 0, 16)), "0 positions"),
    "odd heads": (put("visual.rope.freqs_cos", torch.zeros(9, 6)), "heads of 6"),
    "no heads": (put("visual.rope.freqs_cos", torch.zeros(9, 0)), "heads of 0"),
    "two tables": (put("visual.rope.freqs_sin", torch.zeros(9, 4)), "heads of 8"),
    "unknown table": (put("visual.rope.freqs_cos", torch.zeros(9, 8)), "fit no grid of 1 to 256"),
    "broken table": (put("visual.rope.freqs_sin", torch.full((9, 8), torch.nan)), "fit no grid of 1 to 256"),
    "whole numbers": (
        lambda tensors: tensors.update(
            {f"visual.rope.freqs_{kind}": torch.zeros(9, 8).long() for kind in ("cos", "sin")}
        ),
        "fit no grid of 1 to 256",
    ),
    "missing": (without("blocks.1.mlp.w2.bias"), "1 missing keys: visual.blocks.1.mlp.w2.bias"),
    "unread": (put("visual.blocks.0.gamma_1", torch.zeros(16)), "1 unexpected keys: visual.blocks.0.gamma_1"),
    "stray": (put("audio.weight", torch.zeros(16)), "1 unexpected keys: audio.weight"),
    "another shape": (put("visual.cls_token", torch.zeros(1, 1, 17)), "1 mismatched keys: visual.cls_token"),
    "fused": (fuse, "3 missing keys: visual.blocks.0.attn.k_proj.weight"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_tensors_that_make_no_tower_are_named(kind: str, tmp_path: Path) -> None:
    change, message = STRANGE[kind]
    tensors = eva_tensors()
    change(tensors)
    with pytest.raises(UserError, match=message):
        read_eva_checkpoint(eva_file(tmp_path, tensors))
