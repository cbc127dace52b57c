"""A Bunny as GGUF files in one folder, for llama.cpp and Ollama.

In: `Opened`, a kind of numbers. Out: `text-KIND.gguf`, `mmproj-f16.gguf`, `Modelfile`. K-quants (q4_k_m) are made by
llama.cpp's own code, which `llama-cpp-python` brings; the other kinds need nothing but the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from bunny.core.errors import UserError, nearest
from bunny.core.store import write_atomic
from bunny.export.gguf_families import window
from bunny.export.gguf_file import FILE_TYPES, gguf
from bunny.export.gguf_text import write_text
from bunny.export.gguf_vision import check_tower, write_vision
from bunny.export.modelfile import modelfile
from bunny.export.opened import Opened
from bunny.export.stock import check_expressible

MADE_BY_LLAMA_CPP = ("q4_k_m",)
KINDS = (*FILE_TYPES, *MADE_BY_LLAMA_CPP)
MMPROJ, MODELFILE = "mmproj-f16.gguf", "Modelfile"


@dataclass(frozen=True, slots=True)
class Files:
    """Names in the folder. folded: multipliers that went into weights. notes: what a user has to know."""

    text: str
    mmproj: str
    folded: Mapping[str, float]
    notes: tuple[str, ...]


def text_file(kind: str) -> str:
    """The name of the language model's file."""
    return f"text-{kind}.gguf"


def write_gguf_folder(opened: Opened, work: Path, kind: str = "f16") -> Files:
    """Fill the folder `work`. kind: f32, f16, q8_0, q4_0 or q4_k_m. Raises UserError for what GGUF cannot express."""
    if kind not in KINDS:
        raise UserError(f"--type {kind}: no such kind of numbers", fix=nearest(kind, KINDS))
    gguf()
    check_expressible(opened)
    check_tower(opened)
    text = text_file(kind)
    if kind in MADE_BY_LLAMA_CPP:
        from bunny.export.llama_engine import check_installed, quantise

        check_installed(f"--type {kind}")
        halves = work / text_file("f16")
        model = write_text(opened, halves, "f16")
        quantise(halves, work / text, kind)
        halves.unlink()
    else:
        model = write_text(opened, work / text, kind)
    notes = write_vision(opened, work / MMPROJ)
    if size := window(model.text):
        notes.append(f"llama.cpp knows no window, this model attends to {size} tokens: keep to so many (`-c {size}`)")
    tokenizer = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    ends = opened.generation.get("eos_token_id")
    stops = [
        str(tokenizer.convert_ids_to_tokens(id))
        for id in (ends if isinstance(ends, list) else [ends])
        if id is not None
    ]
    write_atomic(work / MODELFILE, modelfile([text, MMPROJ], opened.processor["template"], stops))
    return Files(text, MMPROJ, model.folded, tuple(notes))
