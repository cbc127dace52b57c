"""An embedder and a source that recipes of the tests name: `{use: tests.curate.recipe_classes:Colours}`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bunny.core.recipe import Section
from bunny.core.types import Embedded, ImageRef, Rejected, Sample, StoredVectors, Turn


class Colours(Section):
    """Joint space of three colours, which the words red, green and blue name; the lower half counts double."""

    name: str = "colours of a recipe"

    @property
    def dim(self) -> int:
        return 3

    def embed(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Embedded:
        image = np.array([picture[len(picture) // 2 :].reshape(-1, 3).mean(axis=0) + 1 for picture in pictures])
        words = np.array([[word in text for word in ("red", "green", "blue")] for text in texts], dtype=np.float32)
        words[~words.any(axis=1)] = np.nan
        return Embedded(image, words)


class Shelf(Section):
    """Rows in `*.jsonl` files, `{"id", "caption", "image", …}` each; vectors in an `.npy` of the name."""

    path: str
    folder: Path | None = None

    def files(self) -> list[Path]:
        path = (self.folder or Path()) / self.path
        return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]

    def read(self) -> Iterator[Sample | Rejected]:
        for path in self.files():
            for number, line in enumerate(path.read_text().splitlines()):
                row = json.loads(line)
                if "id" not in row:
                    yield Rejected(f"{path.stem}:{number}", str(path), "no_id")
                    continue
                images = (ImageRef(str(path.parent / row.pop("image"))),) if "image" in row else ()
                yield Sample(row.pop("id"), images, (Turn("assistant", row.pop("caption")),), "shelf", row)

    def shards(self) -> list[dict[str, str]]:
        return [{"use": "tests.curate.recipe_classes:Shelf", "path": str(path)} for path in self.files()]

    def stored(self) -> dict[str, StoredVectors]:
        (path,) = self.files()
        found = {}
        for name in ("image", "text"):
            rows = path.with_name(f"{path.stem}.{name}.rows.npy")
            if path.with_name(f"{path.stem}.{name}.npy").exists():
                numbers = np.load(rows) if rows.exists() else None
                found[name] = StoredVectors(path.with_name(f"{path.stem}.{name}.npy"), numbers)
        return found
