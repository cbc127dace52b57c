"""Benchmarks as words of a command line: `pope`, `counting:path=heldout.parquet:sets=10` -> blocks of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from bunny.core.errors import UserError
from bunny.core.recipe import Block


def blocks(words: Sequence[str]) -> list[Block]:
    """One block per benchmark. words: names, several in one separated by commas; a name may have settings behind it.

    `NAME:SETTING=VALUE:…`, values as YAML reads them. A setting that a benchmark does not know is refused when the
    block is checked. Raises UserError for a setting without a value.

    >>> blocks(["pope,gqa", "choice:path=a.parquet:sets=3"])
    [{'use': 'pope'}, {'use': 'gqa'}, {'use': 'choice', 'path': 'a.parquet', 'sets': 3}]
    """
    return [_block(word.strip()) for group in words for word in group.split(",") if word.strip()]


def _block(word: str) -> Block:
    parts = word.split(":")
    named = next((at for at, part in enumerate(parts) if "=" in part), len(parts))
    block: Block = {"use": ":".join(parts[:named])}  # `module:Class` is a name too
    for setting in parts[named:]:
        field, equals, value = setting.partition("=")
        if not (block["use"] and field and equals):
            raise UserError(
                f"-t {word}: `{setting}` is no setting", fix="write NAME:SETTING=VALUE, e.g. counting:sets=5"
            )
        try:
            block[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"-t {word}: `{value}` cannot be read as YAML", fix="put it into a recipe") from None
    return block
