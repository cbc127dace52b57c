"""Projectors equal the original's, weight by weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bunny.core.errors import UserError
from bunny.model.projector import build_projector, check_kind, output_tokens

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "projectors.npz")
KINDS = sorted({name.split("/")[0] for name in GOLDEN.files} - {"x"})


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_equal_the_originals(kind: str) -> None:
    pixels = torch.from_numpy(GOLDEN["x"])
    wanted = torch.from_numpy(GOLDEN[f"{kind}/y"])
    head = f"{kind}/state/"
    state = {name.removeprefix(head): torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files if name.startswith(head)}
    projector = build_projector(kind, pixels.shape[-1], 24).eval()
    projector.load_state_dict(state, strict=True)
    with torch.inference_mode():
        found = projector(pixels)
    assert found.shape[1] == output_tokens(kind, pixels.shape[1])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_every_kind_is_compared() -> None:
    assert {"linear", "mlp2x_gelu", "spp_v1", "spp_v2", "spp_v3", "ldp", "minigpt", "vanilla", "identity"} <= set(KINDS)


def test_an_unknown_projector_is_named() -> None:
    with pytest.raises(UserError, match="no projector is called `mlp2x_relu`"):
        build_projector("mlp2x_relu", 8, 8)
    with pytest.raises(UserError, match="no projector is called `spp`"):
        check_kind("spp")


def test_tokens_that_cannot_be_grouped_by_four_are_refused() -> None:
    with pytest.raises(UserError, match="9 picture tokens cannot be grouped by four"):
        build_projector("minigpt", 8, 8)(torch.zeros(1, 9, 8))
