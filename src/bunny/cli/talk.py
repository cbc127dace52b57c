"""`bunny chat`: one answer, a conversation at the terminal, or one answer per line of standard input.

In: a model, pictures, questions. Out: answers on standard output (with `--json`, one `{"answer": …}` per question).
Prompts and hints appear only on a terminal, so piped output holds answers and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from bunny.core.errors import UserError

if TYPE_CHECKING:
    from bunny.core.types import GenerationSettings

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
HELP = "Type a question. /image PATH shows a picture, /reset forgets the conversation, /quit ends."


class Talk(Protocol):
    """A conversation with a model that remembers its earlier turns."""

    def ask(self, text: str, images: list[str]) -> Iterator[str]:
        """The answer in pieces, as they are generated."""
        ...

    def reset(self) -> None: ...


def split(words: list[str]) -> tuple[list[str], str]:
    """(pictures, question): files and names that end like a picture are pictures, the other words are the question.

    >>> split(["What", "is", "this?"])
    ([], 'What is this?')
    """
    pictures, question = [], []
    for word in words:
        if _is_file(word):
            pictures.append(word)
        elif Path(word).suffix.lower() in PICTURE_SUFFIXES and " " not in word:
            raise UserError(f"{word}: no such picture", fix="give the path of a picture file")
        else:
            question.append(word)
    if question and not "".join(question).strip():
        raise UserError("an empty question", fix="write what you want to know, or leave it out to talk")
    return pictures, " ".join(question)


def answer_once(model: str, pictures: list[str], question: str, settings: GenerationSettings, json_lines: bool) -> None:
    """Print the answer to one question."""
    from bunny.pipeline.chat import chat

    answer = chat(model, pictures, question, settings)
    typer.echo(json.dumps({"answer": answer}, ensure_ascii=False) if json_lines else answer)


def converse(model: str, pictures: list[str], settings: GenerationSettings, json_lines: bool) -> None:
    """Answer questions from standard input until it ends or /quit; earlier turns are remembered."""
    from bunny.pipeline.chat import Conversation

    terminal = at_terminal()
    talk: Talk = Conversation(model, settings)
    if terminal:
        typer.echo(HELP, err=True)
    waiting = list(pictures)  # shown with the next question
    for line in _lines(terminal):
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return
        if word == "/reset":
            talk.reset()
            waiting = []
        elif word == "/image":
            waiting += _picture(rest.strip().strip("\"'"), terminal)  # quoted, as terminals paste paths
        elif word.startswith("/"):
            _object(f"unknown: {word}", HELP, terminal)
        else:
            try:
                _say(talk.ask(line, waiting), json_lines)
            except (UserError, KeyboardInterrupt) as error:
                if not terminal:
                    raise
                typer.echo(f"\n{str(error) or 'answer stopped'}", err=True)  # the conversation goes on
            waiting = []


def at_terminal() -> bool:
    """Whether a person is typing."""
    return sys.stdin.isatty()


def _lines(terminal: bool) -> Iterator[str]:
    """Non-empty lines of standard input; on a terminal each is asked for."""
    if terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            importlib.import_module("readline")  # arrow keys and history in input()
    while True:
        line = _typed() if terminal and sys.stdout.isatty() else sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _typed() -> str:
    """A line typed at the prompt; empty at the end of input."""
    try:
        return input("> ") + "\n"
    except EOFError:
        return ""


def _picture(path: str, terminal: bool) -> list[str]:
    """The picture as a list of one, or of none with a word to the user."""
    if _is_file(path):
        return [path]
    _object(f"{path or 'nothing'}: no such picture", "give the path of a picture file", terminal)
    return []


def _object(what: str, fix: str, terminal: bool) -> None:
    """Say what is wrong with a line. In a pipe nobody would see it, and later answers would be about other pictures."""
    if not terminal:
        raise UserError(what, fix=fix)
    typer.echo(f"{what}. {fix}", err=True)


def _say(pieces: Iterator[str], json_lines: bool) -> None:
    if json_lines:
        typer.echo(json.dumps({"answer": "".join(pieces)}, ensure_ascii=False))
        return
    for piece in pieces:
        typer.echo(piece, nl=False)
        sys.stdout.flush()
    typer.echo("")


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # longer than a file name can be, or with a NUL: words, not a path
        return False
