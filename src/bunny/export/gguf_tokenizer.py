"""A tokenizer in GGUF's words: tokens, their kinds, merges or scores, and what cuts a text before it is merged.

In: the folder's `tokenizer.json` and settings. Out: settings by GGUF key. llama.cpp has a fixed list of ways to cut a
text, by name; here the name follows from what `tokenizer.json` itself says it does. A way that is not on the list is
refused, as a wrong one would spoil answers without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bunny.core.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's kinds of tokens."""

BYTE_LEVEL = "<byte level>"
DIGITS = "<single digits>"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}{REST}"
QWEN2 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{REST}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((BYTE_LEVEL,), False): "gpt-2",
    ((DIGITS, BYTE_LEVEL), False): "smollm",
    ((LLAMA3,), True): "llama-bpe",
    ((LLAMA3,), False): "smaug-bpe",
    ((QWEN2,), False): "qwen2",
    ((GPT4O,), False): "gpt-4o",
}
"""(steps, whether whole words skip the merges) -> llama.cpp's name."""


def tokenizer_settings(folder: Path, rows: int, end: str) -> dict[str, Any]:
    """GGUF key -> value for a vocabulary of `rows` ids. end: what closes an answer in the conversation's template.

    Raises UserError for a tokenizer that llama.cpp would read otherwise.
    """
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tree["model"]["type"] != "BPE":
        what = f"{folder}: a `{tree['model']['type']}` tokenizer cannot be written as GGUF"
        raise UserError(what, fix="byte-level and sentencepiece-like BPE can")
    vocabulary = {int(id): token for token, id in tokenizer.get_vocab().items()}
    tokens = [vocabulary.get(id, f"[PAD{id}]") for id in range(rows)]
    kinds = [NORMAL if id in vocabulary else UNUSED for id in range(rows)]
    for token in tree["added_tokens"]:
        if token["id"] < rows:
            kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tree["model"]["merges"]]
    steps = _steps(tree.get("pre_tokenizer"))
    if BYTE_LEVEL in steps or any("\\p" in step for step in steps):
        found: dict[str, Any] = {"model": "gpt2", "pre": _cut(tree, steps, folder), "merges": merges}
    else:
        kinds = _with_bytes(tokens, kinds, tokenizer.unk_token_id)
        blank = _blank_before(tree, folder)
        found = {
            "model": "llama",
            "pre": "default",
            "scores": _scores(tokens, kinds, merges),
            "add_space_prefix": blank,
        }
    found |= {"tokens": tokens, "token_type": kinds} | _ends(tokenizer, end, rows)
    chat = folder / "chat_template.jinja"
    template = {"tokenizer.chat_template": chat.read_text(encoding="utf-8")} if chat.exists() else {}
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()} | template


def name_of(folder: Path) -> str:
    """`general.name`: the folder's, with or without `phi-3` in it.

    In a model so called, llama.cpp lets special tokens swallow the blanks behind them (Phi-3's `rstrip`), and looks for
    certain tokens. No setting says so, the name alone does.
    """
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    swallow = any(token["rstrip"] for token in tree["added_tokens"])
    there = {token["content"] for token in tree["added_tokens"]} | set(tree["model"]["vocab"])
    name = re.sub(r"phi-?3", "phi 3", folder.resolve().name, flags=re.IGNORECASE)
    return f"{name} (phi-3)" if swallow and {"<unk>", "<s>", "</s>", "<|endoftext|>"} <= there else name


def _steps(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a pre-tokenizer does, step by step: the pattern it cuts at, or one of the words above."""
    if part is None:
        return ()
    if part["type"] == "Sequence":
        return tuple(step for inner in part["pretokenizers"] for step in _steps(inner))
    if part["type"] == "Split":
        pattern = part["pattern"].get("Regex") or part["pattern"].get("String")
        return (str(pattern),)
    if part["type"] == "Digits":
        return (DIGITS,) if part["individual_digits"] else ("<digits>",)
    if part["type"] == "ByteLevel":
        if part["add_prefix_space"]:
            return ("<byte level behind a blank>",)
        return (BYTE_LEVEL,) if part.get("use_regex", True) else ()
    return (f"<{part['type']}>",)


def _cut(tree: Mapping[str, Any], steps: tuple[str, ...], folder: Path) -> str:
    name = CUTS.get((steps, bool(tree["model"].get("ignore_merges"))))
    if name is None or (tree.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        told = ", ".join(steps)[:200]
        fix = "please report the model, so that its way is added"
        raise UserError(f"{folder}: llama.cpp has no known name for how its tokenizer cuts a text ({told})", fix=fix)
    return name


def _with_bytes(tokens: Sequence[str], kinds: Sequence[int], unknown: int | None) -> list[int]:
    """Kinds with the tokens of single bytes, and of the unknown, marked."""
    marked = list(kinds)
    for id, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            marked[id] = BYTE
    if unknown is not None:
        marked[unknown] = UNKNOWN
    return marked


def _scores(tokens: Sequence[str], kinds: Sequence[int], merges: Sequence[str]) -> list[float]:
    """A score per token, higher where it is merged earlier: llama.cpp joins the pair whose token scores highest."""
    order: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        order.setdefault(merge.replace(" ", ""), rank)
    last = float(len(merges))
    return [
        -float(order.get(token, last)) if kind in (NORMAL, USER_DEFINED) else 0.0
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def _blank_before(tree: Mapping[str, Any], folder: Path) -> bool:
    """Whether a text is given a blank at its front. Raises UserError for a normaliser with other habits."""
    normal = tree.get("normalizer") or {"type": "Sequence", "normalizers": []}
    parts = normal["normalizers"] if normal["type"] == "Sequence" else [normal]
    pre = tree.get("pre_tokenizer")
    known = [part for part in parts if part["type"] in ("Prepend", "Replace")]
    if len(known) != len(parts) or (pre is not None and pre["type"] != "Metaspace"):
        raise UserError(f"{folder}: llama.cpp has no word for how its tokenizer prepares a text")
    if pre is not None:
        return bool(pre.get("prepend_scheme", "always") != "never")
    return any(part["type"] == "Prepend" for part in parts)


def _ends(tokenizer: Any, end: str, rows: int) -> dict[str, Any]:
    """Ids of special tokens, and whether a text begins with one."""
    close = tokenizer.get_vocab().get(end.strip())
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
        "eot_token_id": close,
    }
    found: dict[str, Any] = {key: int(id) for key, id in ids.items() if id is not None and id < rows}
    start = list(tokenizer("").input_ids)
    found["add_bos_token"] = start[:1] == [tokenizer.bos_token_id] and bool(start)
    found["add_eos_token"] = False
    return found
