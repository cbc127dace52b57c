"""EVA02-CLIP's network: a tower that transformers can load, save, checkpoint and run with any attention."""

from __future__ import annotations

import cmath
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from bunny.model.eva_vision import EvaVisionConfig, EvaVisionModel, rotary_tables, rotate


def tiny_config(**changes: Any) -> EvaVisionConfig:
    sizes = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 3}
    return EvaVisionConfig(**{**sizes, "image_size": 20, "patch_size": 4, "rope_grid": 3, **changes})


def tiny_tower(**changes: Any) -> EvaVisionModel:
    torch.manual_seed(0)
    tower = EvaVisionModel(tiny_config(**changes))
    for parameter in tower.parameters():
        parameter.data.normal_(std=0.3)
    tower.eval()
    return tower


def pictures(side: int = 20) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def turned_slowly(vector: Tensor, row: int, column: int, side: int, rope_grid: int) -> Tensor:
    """Channel pairs as complex numbers, turned one by one: the first half by the row, the second by the column."""
    pairs = len(vector) // 2
    out: list[float] = []
    for pair in range(pairs):
        place, k = (row, pair) if pair < pairs // 2 else (column, pair - pairs // 2)
        angle = place / side * rope_grid * 10000 ** (-2 * k / (len(vector) // 2))
        number = complex(float(vector[2 * pair]), float(vector[2 * pair + 1])) * cmath.exp(1j * angle)
        out += [number.real, number.imag]
    return torch.tensor(out)


@pytest.mark.parametrize(("side", "rope_grid", "head_width"), [(3, 2, 8), (5, 16, 12), (4, 4, 16)])
def test_rotary_positions_turn_pairs_of_channels(side: int, rope_grid: int, head_width: int) -> None:
    heads = torch.randn(side * side, head_width, generator=torch.Generator().manual_seed(2))
    fast = rotate(heads[None, None], *rotary_tables(side, rope_grid, head_width, torch.float32))[0, 0]
    places = [(row, column) for row in range(side) for column in range(side)]
    slow = [turned_slowly(vector, *place, side, rope_grid) for vector, place in zip(heads, places, strict=True)]
    torch.testing.assert_close(fast, torch.stack(slow), atol=5e-6, rtol=0)


def test_the_class_token_is_not_turned() -> None:
    cos, sin = tiny_tower().rotary()
    heads = torch.randn(1, 2, 26, 8)
    turned = rotate(heads, cos, sin)
    assert torch.equal(turned[:, :, 0], heads[:, :, 0])
    assert not torch.allclose(turned[:, :, 2:], heads[:, :, 2:])


def test_hidden_states_are_the_embeddings_and_the_state_after_every_block() -> None:
    tower = tiny_tower()
    with torch.no_grad():
        out = tower(pictures(), output_hidden_states=True)
        embeddings = tower.embeddings(pictures())
        first = tower.layers[0](embeddings, *tower.rotary())
    assert [tuple(state.shape) for state in out.hidden_states] == [(2, 26, 24)] * 4
    assert torch.equal(out.hidden_states[0], embeddings)
    assert torch.equal(out.hidden_states[1], first)
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    assert torch.equal(out.pooler_output, out.last_hidden_state[:, 0])
    assert tower(pictures()).hidden_states is None


def test_sdpa_and_eager_attention_agree() -> None:
    tower = tiny_tower()
    with torch.no_grad():
        tower.set_attn_implementation("sdpa")
        fast = tower(pictures()).last_hidden_state
        tower.set_attn_implementation("eager")
        slow = tower(pictures(), output_attentions=True)
    torch.testing.assert_close(fast, slow.last_hidden_state, atol=2e-5, rtol=1e-5)
    assert [tuple(weights.shape) for weights in slow.attentions] == [(2, 3, 26, 26)] * 3
    torch.testing.assert_close(slow.attentions[0].sum(-1), torch.ones(2, 3, 26))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        tower = tiny_tower().train()
        if checkpointing:
            tower.gradient_checkpointing_enable({"use_reentrant": reentrant})
        tower(pictures(), output_hidden_states=True).hidden_states[-1].square().sum().backward()
        return [parameter.grad for parameter in tower.parameters() if parameter.grad is not None]

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) == len(list(tiny_tower().parameters()))
    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_saved_tower_is_the_same_after_loading(tmp_path: Path) -> None:
    tower = tiny_tower()
    tower.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is EvaVisionModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is EvaVisionConfig
    assert not any("rotary" in name for name in again.state_dict())
    with torch.no_grad():
        assert torch.equal(tower(pictures()).last_hidden_state, again(pictures()).last_hidden_state)


def test_the_rotary_tables_stay_in_float32_when_a_tower_is_loaded_in_half_precision(tmp_path: Path) -> None:
    tower = tiny_tower()
    tower.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(half.rotary.cos, tower.rotary.cos)
    with torch.no_grad():
        state, exact = half(pictures()).last_hidden_state, tower(pictures()).last_hidden_state
    assert state.dtype == torch.bfloat16
    assert (state.float() - exact).norm() < 0.03 * exact.norm()


def test_new_weights_are_drawn_and_the_norms_are_neutral() -> None:
    torch.manual_seed(0)
    tower = EvaVisionModel(tiny_config(initializer_range=0.1))
    spread = {
        name: float(parameter.detach().std()) for name, parameter in tower.named_parameters() if parameter.dim() > 1
    }
    assert all(0.05 < value < 0.15 for value in spread.values()), spread
    assert torch.equal(tower.state_dict()["layers.0.mlp.norm.weight"], torch.ones(20))


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pictures of 20 px are needed, not \(24, 24\)"):
        tiny_tower()(pictures(24))


def test_the_released_geometry_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        tower = EvaVisionModel(EvaVisionConfig())
    width, inner, blocks, positions = 1024, int(1024 * 2.6667), 24, 1 + 24 * 24
    attention = 4 * width * width + 3 * width + 2 * width  # no bias on the keys; a norm
    mlp = 3 * width * inner + 2 * inner + width + 2 * inner
    block = attention + mlp + 2 * 2 * width
    count = blocks * block + (1 + positions) * width + (3 * 14 * 14 + 1) * width
    assert sum(parameter.numel() for parameter in tower.parameters()) == count == 303_643_584
    norm_and_head = 2 * width + 768 * width + 768
    assert count + norm_and_head == 304_432_832  # as published: 304.43 M
    assert tower(torch.empty(1, 3, 336, 336, device="meta")).last_hidden_state.shape == (1, 577, 1024)
