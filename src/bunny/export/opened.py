"""A model folder is opened for export: settings read, weights found, nothing loaded.

In: a folder that training, merging or `bunny import` wrote. Out: `Opened`. Raises UserError for anything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from bunny.core.errors import UserError
from bunny.model import quiet
from bunny.model.config import BunnyConfig
from bunny.model.importing import of_file
from bunny.model.tensors import TensorTable, open_tensors

LANGUAGE, HEAD = "model.language_model.", "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
PROJECTOR, TOWER = "model.multi_modal_projector.", "model.vision_tower."
GENERATION, PROCESSOR = "generation_config.json", "processor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
MEND = "give a folder that training, merging or `bunny import` wrote"


@dataclass(frozen=True, slots=True)
class Opened:
    """A Bunny's folder. processor, generation: what its JSON files hold."""

    folder: Path
    config: BunnyConfig
    table: TensorTable
    processor: dict[str, Any]
    generation: dict[str, Any]

    @property
    def words(self) -> int:
        """Ids that the tokenizer can write, without one that was added for `<image>`."""
        return int(self.config.words or self.config.text_config.vocab_size)

    @property
    def image_token(self) -> int:
        return int(self.config.image_token_id)

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return HEAD not in self.table.info

    def names(self, prefix: str) -> list[str]:
        """Names of the tensors of a part, without its prefix."""
        return [name.removeprefix(prefix) for name in self.table.info if name.startswith(prefix)]


def open_model(folder: Path) -> Opened:
    """The model in `folder`; of its weights only the headers are read. Raises UserError."""
    quiet()
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder}: no model there (no config.json)", fix=MEND)
    with of_file(path):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(config, BunnyConfig):
        raise UserError(f"{folder}: not a Bunny folder (its model type is `{config.model_type}`)", fix=MEND)
    settings = [folder / name for name in (PROCESSOR, GENERATION)]
    for file in (*settings, folder / "tokenizer.json"):
        if not file.exists():
            raise UserError(f"{folder}: it has no {file.name}", fix=MEND)
    processor, generation = map(_read, settings)
    return Opened(folder, config, open_tensors(folder), processor, generation)


def _read(path: Path) -> dict[str, Any]:
    with of_file(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))
