"""Tower features in a folder that many runs share: each picture is computed by the first run that meets it.

In: a model whose tower is frozen, and how pictures become pixels. Out: a function from pictures to features, in place
of one to pixels. A picture's file is named by the tower's weights, the preparation of pixels, and the picture's file,
so that other towers and changed pictures never meet; of two runs that compute one picture both succeed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bunny.core.publishing import publish
from bunny.core.types import ImageRef
from bunny.train.features import BATCH, check_frozen, features_of
from bunny.train.steps import Pixels


class SharedFeatures:
    """Pictures -> (B, N, feature width) of the tower's output. Raises UserError if the tower learns.

    preparation: all that decides how a picture becomes pixels.
    """

    def __init__(
        self, model: Any, pixels: Pixels, preparation: Any, folder: Path, *, bf16: bool, device: torch.device
    ) -> None:
        check_frozen(model)
        self.model, self.pixels, self.bf16, self.device = model, pixels, bf16, device
        self.folder = folder / _mark(model, [preparation, bf16])
        self._stamps: dict[str, str] = {}
        model.model.vision_tower.to(device)

    def __call__(self, refs: Sequence[ImageRef]) -> Tensor:
        """(len(refs), N, feature width), float32 or bfloat16."""
        missing = [ref for ref in dict.fromkeys(refs) if not self._path(ref).exists()]
        for start in range(0, len(missing), BATCH):
            some = missing[start : start + BATCH]
            for ref, row in zip(some, features_of(self.model, self.pixels(some), self.bf16, self.device), strict=True):
                with publish(self._path(ref)) as temporary:
                    np.save(temporary, row)
        stacked = torch.from_numpy(np.stack([np.load(self._path(ref)) for ref in refs]))
        return stacked.view(torch.bfloat16) if self.bf16 else stacked

    @cached_property
    def blank(self) -> Tensor:
        """(1, N, feature width) zeros: of any picture that is there, or of a grey one."""
        side = self.model.config.vision_config.image_size
        grey = features_of(self.model, torch.zeros(1, 3, side, side), self.bf16, self.device)
        empty = torch.from_numpy(np.zeros_like(grey))
        return empty.view(torch.bfloat16) if self.bf16 else empty

    def _path(self, ref: ImageRef) -> Path:
        name = hashlib.sha256(f"{ref}@{ref.column}:{self._stamp(ref.path)}".encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.npy"

    def _stamp(self, path: str) -> str:
        """Size and time of the picture's file: a changed one is another picture."""
        if path not in self._stamps:
            file = Path(path)
            stat = file.stat() if file.is_file() else None  # a picture may come from elsewhere
            self._stamps[path] = f"{stat.st_size}:{stat.st_mtime_ns}" if stat else ""
        return self._stamps[path]


def _mark(model: Any, told: Any) -> str:
    """Fingerprint of the tower's weights, of the layer that is taken, and of what is told besides."""
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    config = model.config
    digest.update(json.dumps([config.vision_feature_layer, list(config.s2_scales)]).encode())
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]
