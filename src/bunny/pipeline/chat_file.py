"""A conversation in a file: a JSON list of one row as LLaVA writes it, so that it can be learnt from, too.

In: a `Conversation`. Out: the file, and the conversation again. Pictures are named, not copied: from the file's folder
where they lie in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.store import write_atomic
from bunny.core.types import ImageRef, Rejected, Turn
from bunny.pipeline.chat import Conversation, Shown

FROM = {"system": "system", "user": "human", "assistant": "gpt"}


def save(talk: Conversation, path: Path) -> None:
    """Write it. Raises UserError if there is nothing to write, or a picture that has no file."""
    if not any(turn.role == "assistant" for turn in talk.turns):
        raise UserError(f"{path}: nothing to save yet", fix="ask something first")
    if not path.parent.is_dir():
        raise UserError(f"{path}: no such folder", fix="make it first")
    names = [_name(shown, path.resolve().parent) for shown in talk.pictures]
    row = {
        "id": path.stem,
        **({"image": names[0] if len(names) == 1 else names} if names else {}),
        "conversations": [{"from": FROM[turn.role], "value": turn.text} for turn in talk.turns],
    }
    write_atomic(path, json.dumps([row], ensure_ascii=False, indent=1) + "\n")


def load(path: Path) -> tuple[tuple[Turn, ...], tuple[ImageRef, ...]]:
    """(turns, pictures) of the first conversation in a file. Raises UserError if there is none, or a wrong one."""
    from bunny.data.sources.llava_json import LlavaJson

    if not path.is_file():
        raise UserError(f"{path}: no such file", fix="give one that /save wrote")
    row = next(iter(LlavaJson(path=str(path)).read()), None)
    if row is None:
        raise UserError(f"{path}: no conversation in it", fix="give a file that /save wrote")
    if isinstance(row, Rejected):
        raise UserError(f"{row.where}: {row.reason.replace('_', ' ')} {row.detail}".strip(), fix="mend the file")
    return row.turns, row.images


def _name(shown: Shown, folder: Path) -> str:
    if shown.ref is None or shown.ref.member:
        raise UserError("a picture of this conversation is no file", fix="give pictures as files")
    path = Path(shown.ref.path).resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
