"""What a frozen vision tower makes of every picture, computed once and kept on disk: the tower then takes no part.

In: the pictures of a stage, the model. Out: a function from pictures to features, in place of one to pixels. It pays
for small sets that are seen often, for S2, and for trying settings; a million SigLIP pictures take 1.7 TB. Parts are
published whole, so a killed process makes at most one again; several processes share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bunny.core.errors import UserError
from bunny.core.log import track
from bunny.core.publishing import publish
from bunny.core.types import ImageRef
from bunny.train.steps import Pixels

PART = 256
"""Pictures of a part."""
BATCH = 16
"""Pictures that the tower sees at once."""


class Features:
    """Pictures -> (B, N, feature width) of the tower's output, read from the parts in `folder`."""

    def __init__(self, folder: Path, pictures: Sequence[ImageRef], bf16: bool) -> None:
        self.folder, self.bf16 = folder, bf16
        self._places = {ref: place for place, ref in enumerate(pictures)}
        self._parts: dict[int, Any] = {}

    def __call__(self, refs: Sequence[ImageRef]) -> Tensor:
        """(len(refs), N, feature width), float32 or bfloat16. Raises KeyError for a picture that is not there."""
        rows = [self._row(self._places[ref]) for ref in refs]
        stacked = torch.from_numpy(np.stack(rows))
        return stacked.view(torch.bfloat16) if self.bf16 else stacked

    @cached_property
    def blank(self) -> Tensor:
        """(1, N, feature width) zeros."""
        return torch.zeros_like(self(list(self._places)[:1]))

    def _row(self, place: int) -> Any:
        part, row = divmod(place, PART)
        if part not in self._parts:
            self._parts[part] = np.load(path_of(self.folder, part), mmap_mode="r")
        return self._parts[part][row]


def path_of(folder: Path, part: int) -> Path:
    """The file of a part: (at most PART, N, feature width) float32, or bfloat16 as int16."""
    return folder / f"part-{part:06d}.npy"


def cache_features(
    model: Any,
    pictures: Sequence[ImageRef],
    pixels: Pixels,
    folder: Path,
    *,
    bf16: bool,
    device: torch.device,
    rank: int = 0,
    ranks: int = 1,
) -> Features:
    """Make this rank's parts of the cache, where they are not there yet. Raises UserError if the tower learns."""
    check_frozen(model)
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(rank, -(-len(pictures) // PART), ranks)
    wanted = [part for part in mine if not path_of(folder, part).exists()]
    if wanted:
        model.model.vision_tower.to(device)
    for part in track(wanted, "tower features", len(wanted)):
        some = pictures[part * PART : (part + 1) * PART]
        found = [features_of(model, pixels(some[at : at + BATCH]), bf16, device) for at in range(0, len(some), BATCH)]
        with publish(path_of(folder, part)) as temporary:
            np.save(temporary, np.concatenate(found))
    return Features(folder, pictures, bf16)


def check_frozen(model: Any) -> None:
    """Raise UserError if the tower learns: its features change."""
    if any(parameter.requires_grad for parameter in model.model.vision_tower.parameters()):
        raise UserError(
            "feature_cache goes with a frozen vision tower", fix="set vision_tower: frozen, or leave it out"
        )


def features_of(model: Any, pixels: Tensor, bf16: bool, device: torch.device) -> Any:
    """(B, N, feature width) of pixels (B, 3, H, W): float32, or bfloat16 as int16."""
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        found = model.model.tower_features(pixels.to(device))
    found = found.to(torch.bfloat16 if bf16 else torch.promote_types(found.dtype, torch.float32)).cpu()
    return found.view(torch.int16).numpy() if bf16 else found.numpy()
