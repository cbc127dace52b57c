"""The language model of a Bunny as a GGUF file that llama.cpp, Ollama and their like run.

In: `Opened`, a kind of numbers. Out: the file. Its vocabulary ends with the last word: `<image>` is no token there, as
these engines put a picture's embeddings in by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bunny.core.errors import UserError
from bunny.export.gguf_families import Family, derived, family_of, head_dim, settings
from bunny.export.gguf_file import FILE_TYPES, gguf, kind_of, write_gguf
from bunny.export.gguf_tokenizer import name_of, tokenizer_settings
from bunny.export.opened import Opened
from bunny.export.stock import STOCK_EMBEDDING, STOCK_HEAD, Stock, stock
from bunny.model.tensor_views import Renamed
from bunny.model.tensors import Joined, TensorInfo, TensorTable

OUTPUTS = ("output.weight", "token_embd.weight")
"""The head, and the embedding where it is the head: 8 bits in a 4-bit file, as logits depend on them directly."""


def write_text(opened: Opened, path: Path, kind: str) -> Stock:
    """Write the language model's file. kind: f32, f16, q8_0, q4_0. Raises UserError for what GGUF cannot express."""
    model = stock(opened, opened.words)
    family = family_of(model.text, str(opened.folder))
    table = text_table(model, family)
    keys: dict[str, Any] = {"general.name": name_of(opened.folder), "general.file_type": FILE_TYPES[kind]}
    keys |= {f"{family.arch}.{key}": value for key, value in settings(model.text, family).items()}
    keys |= tokenizer_settings(opened.folder, opened.words, opened.processor["template"]["assistant_turn"]["end"])
    kinds = {name: kind_of(info, kind) for name, info in table.info.items()}
    if kind == "q4_0":
        head = next(name for name in OUTPUTS if name in kinds)
        kinds[head] = kind_of(table.info[head], "q8_0")
    write_gguf(path, family.arch, keys, table, kinds, "writing the language model (MB)")
    return model


def text_table(model: Stock, family: Family) -> TensorTable:
    """The language model's tensors under GGUF's names, q and k in llama.cpp's order of rows."""
    text = model.text
    plain = Renamed(Reordered(model.language, row_orders(model, family)), gguf_names(model, family))
    more = dict(derived(text))
    if family.biased_head:
        more["output.bias"] = torch.zeros(text.vocab_size)
    return Joined([plain, Held(more)])


def row_orders(model: Stock, family: Family) -> dict[str, torch.Tensor]:
    """Tensor of transformers' -> which of its rows each row in the file is; without those that keep their order."""
    text, orders = model.text, dict[str, torch.Tensor]()
    if family.interleaved:
        for part, heads in (("q", text.num_attention_heads), ("k", text.num_key_value_heads)):
            order = neighbours_order(heads, head_dim(text))
            orders |= {name: order for name in model.language.info if f".{part}_proj." in name}
    return orders


def gguf_names(model: Stock, family: Family) -> dict[str, str]:
    """GGUF's name -> transformers' name of every tensor of the language model."""
    names = {gguf_name(name, family, model.text.num_hidden_layers): name for name in model.language.info}
    if family.untied_head and STOCK_HEAD not in model.language.info:
        names["output.weight"] = STOCK_EMBEDDING
    return names


def gguf_name(name: str, family: Family, blocks: int) -> str:
    """GGUF's name of a tensor of transformers'. Raises UserError for one that the family has no place for."""
    package = gguf()
    arch = next(key for key, value in package.MODEL_ARCH_NAMES.items() if value == family.arch)
    found = package.get_tensor_name_map(arch, blocks).get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(f"{name}: llama.cpp's `{family.arch}` has no such tensor", fix="please report the model")
    return str(found)


def neighbours_order(heads: int, size: int) -> torch.Tensor:
    """Rows (heads * size,) so that channels i and i + size / 2 of a head, which turn together, become neighbours."""
    return torch.arange(heads * size).view(heads, 2, size // 2).transpose(1, 2).reshape(-1)


class Reordered:
    """Tensors whose rows come in another order: `orders` (name -> which old row each new one is)."""

    def __init__(self, table: TensorTable, orders: Mapping[str, torch.Tensor]) -> None:
        self.table, self.orders, self.info = table, dict(orders), table.info

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        if name not in self.orders:
            return self.table.read(name, start, stop)
        return self.table.read(name)[self.orders[name][start:stop]]


class Held:
    """Tensors that are in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = dict(tensors)
        self.info = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return self.tensors[name][start:stop]
