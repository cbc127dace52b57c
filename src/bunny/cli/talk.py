"""`bunny chat`: one answer, a conversation at the terminal, or one answer per line of standard input.

In: a model, pictures, questions. Out: answers on standard output (with `--json`, one `{"answer": …}` per question).
Prompts and hints appear only on a terminal, so piped output holds answers and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bunny.core.errors import UserError

if TYPE_CHECKING:
    from bunny.core.types import GenerationSettings
    from bunny.pipeline.chat import Conversation, How

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
HELLO = "Type a question; /help lists what else there is."


@dataclass(frozen=True, slots=True)
class Asking:
    """What the command line says: which model and how it answers."""

    model: str
    how: How
    settings: GenerationSettings
    seed: int | None = None
    system: str = ""
    json_lines: bool = False

    def start(self) -> Conversation:
        """A conversation with the model, which is loaded now."""
        from bunny.pipeline.chat import Chat, Conversation

        return Conversation(Chat(self.model, self.how), self.settings, self.seed, self.system)


def split(words: list[str]) -> tuple[list[str], str]:
    """(pictures, question): files and names that end like a picture are pictures, the other words are the question.

    >>> split(["What", "is", "this?"])
    ([], 'What is this?')
    """
    pictures, question = [], []
    for word in words:
        if is_file(word):
            pictures.append(word)
        elif Path(word).suffix.lower() in PICTURE_SUFFIXES and " " not in word:
            raise UserError(f"{word}: no such picture", fix="give the path of a picture file")
        else:
            question.append(word)
    if question and not "".join(question).strip():
        raise UserError("an empty question", fix="write what you want to know, or leave it out to talk")
    return pictures, " ".join(question)


def answer_once(asking: Asking, pictures: list[str], question: str) -> None:
    """Print the answer to one question: as it is written on a terminal, else whole."""
    say(asking.start().ask(question, pictures), asking.json_lines, streaming=sys.stdout.isatty())


def converse(asking: Asking, pictures: list[str]) -> None:
    """Answer questions from standard input until it ends or /quit; earlier turns are remembered."""
    from bunny.cli.talk_commands import Commands

    terminal = at_terminal()
    talk = asking.start()
    commands = Commands(talk, list(pictures), asking.json_lines)
    if terminal:
        typer.echo(HELLO, err=True)
    for line in _lines(terminal, list(commands.known)):
        try:
            if not commands.take(line):
                return
        except UserError as error:
            if not terminal:
                raise  # in a pipe nobody would see it, and later answers would be about something else
            typer.echo(str(error), err=True)
        except KeyboardInterrupt:
            if not terminal:
                raise
            typer.echo("\nstopped; what was written stays part of the conversation", err=True)


def at_terminal() -> bool:
    """Whether a person is typing."""
    return sys.stdin.isatty()


def say(pieces: Iterator[str], json_lines: bool, streaming: bool = True) -> None:
    """Print an answer. Stopped in the middle, it closes the iterator, by which the conversation hears of it."""
    with contextlib.closing(pieces):  # type: ignore[type-var]  # a generator
        if json_lines or not streaming:
            answer = "".join(pieces).strip()
            typer.echo(json.dumps({"answer": answer}, ensure_ascii=False) if json_lines else answer)
            return
        blank = True
        for piece in pieces:
            piece = piece.lstrip() if blank else piece  # of what a model writes before its first word
            blank = blank and not piece
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        typer.echo("")


def is_file(word: str) -> bool:
    """Whether a word is the path of a file; never an error."""
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # longer than a file name can be, or with a NUL: words, not a path
        return False


def _lines(terminal: bool, words: list[str]) -> Iterator[str]:
    """Non-empty lines of standard input; on a terminal each is asked for."""
    if terminal:
        _complete_with_tab(words)
    while True:
        line = _typed() if terminal and sys.stdout.isatty() else sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _typed() -> str:
    """A line typed at the prompt; empty at the end of input. Ctrl-C leaves the line, as in a shell."""
    while True:
        try:
            return input("> ") + "\n"
        except EOFError:
            typer.echo("", err=True)
            return ""
        except KeyboardInterrupt:
            typer.echo("\n(Ctrl-D or /quit ends)", err=True)


def _complete_with_tab(words: list[str]) -> None:
    """Arrow keys and history in input(); tab completes commands at the start of a line, paths elsewhere."""
    try:
        import readline
    except ImportError:  # Windows has none
        return

    def found(text: str, state: int) -> str | None:
        some = _paths(text) if readline.get_begidx() else [f"{word} " for word in words if word.startswith(text)]
        return some[state] if state < len(some) else None

    readline.set_completer_delims(" \t\n")
    readline.set_completer(found)
    readline.parse_and_bind("tab: complete")


def _paths(text: str) -> list[str]:
    """Files and folders (with a slash) whose path begins so."""
    folder = Path(text).expanduser() if text.endswith("/") else Path(text).expanduser().parent
    head = text[: text.rfind("/") + 1]
    try:
        here = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        f"{head}{path.name}{'/' if path.is_dir() else ''}" for path in here if f"{head}{path.name}".startswith(text)
    ]
