"""What a line of a conversation does: a question is answered, a `/word` changes something."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bunny.cli.talk import is_file, say
from bunny.core.errors import UserError, nearest

if TYPE_CHECKING:
    from bunny.pipeline.chat import Conversation

SETTINGS: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 1 << 20),
    "temperature": (float, 0, 100),
    "top_p": (float, 0.001, 1),
    "repetition_penalty": (float, 0.1, 100),
    "num_beams": (int, 1, 64),
}
"""Kind and bounds of what /set changes, as on the command line."""


class Commands:
    """Takes the lines of one conversation. waiting: pictures shown with the next question."""

    def __init__(self, talk: Conversation, waiting: list[str], json_lines: bool) -> None:
        self.talk, self.waiting, self.json_lines = talk, waiting, json_lines
        self.own: set[Path] = set()  # files that hold this conversation: may be written again
        self.known: dict[str, tuple[Callable[[str], None], str]] = {
            "/image": (self.image, "PATH: a picture for the next question; may be repeated"),
            "/retry": (self.retry, "another answer to the last question (the same one at temperature 0)"),
            "/reset": (self.reset, "forget all turns and pictures"),
            "/system": (self.system, "TEXT: what the model is told first; without TEXT: what that is"),
            "/set": (self.set, "NAME=VALUE: a setting; alone: all of them"),
            "/save": (self.save, "FILE: the conversation as LLaVA JSON"),
            "/load": (self.load, "FILE: go on with a saved conversation"),
            "/help": (self.help, "this list"),
            "/quit": (lambda rest: None, "end (so does Ctrl-D)"),
        }

    def take(self, line: str) -> bool:
        """Do what a line says; False if it ends the conversation. Raises UserError."""
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return False
        if word in self.known:
            self.known[word][0](rest.strip())
        elif word.startswith("/"):
            raise UserError(f"unknown: {word}", fix=f"{nearest(word, self.known)} (/help lists all)")
        else:
            pictures, self.waiting = self.waiting, []
            say(self.talk.ask(line, pictures), self.json_lines)
        return True

    def image(self, path: str) -> None:
        path = str(Path(path.strip("\"'")).expanduser())  # quoted, as terminals paste paths
        if not is_file(path):
            raise UserError(
                f"{'nothing' if path == '.' else path}: no such picture", fix="give the path of a picture file"
            )
        self.waiting.append(path)

    def retry(self, rest: str) -> None:
        say(self.talk.again(), self.json_lines)

    def reset(self, rest: str) -> None:
        self.talk.reset()
        self.waiting, self.own = [], set()

    def system(self, text: str) -> None:
        if text:
            self.talk.system = text
        else:
            typer.echo(self.talk.system or "(none: the model's own)", err=True)

    def set(self, rest: str) -> None:
        name, equals, value = (part.strip() for part in rest.partition("="))
        if not rest:
            seed = "none" if self.talk.seed is None else self.talk.seed
            shown = [f"{name}={getattr(self.talk.settings, name)}" for name in SETTINGS]
            typer.echo("  ".join([*shown, f"seed={seed}", f"stop={','.join(self.talk.settings.stop)}"]), err=True)
        elif name == "seed":
            self.talk.seed = None if value in ("", "none") else int(_number(name, value, int, 0, 2**63 - 1))
        elif name == "stop":
            self._change(stop=tuple(word for word in value.split(",") if word))
        elif name in SETTINGS and equals:
            self._change(**{name: _number(name, value, *SETTINGS[name])})
        elif name in SETTINGS:
            raise UserError(f"/set {name}: no value", fix=f"e.g. /set {name}={getattr(self.talk.settings, name)}")
        else:
            raise UserError(f"/set {name}: no such setting", fix=nearest(name, [*SETTINGS, "seed", "stop"]))

    def save(self, rest: str) -> None:
        path = _path(rest)
        from bunny.pipeline import chat_file

        if path.exists() and path.resolve() not in self.own:
            raise UserError(f"{path}: is there already", fix="give another name")
        chat_file.save(self.talk, path)
        self.own.add(path.resolve())
        typer.echo(f"saved: {path}", err=True)

    def load(self, rest: str) -> None:
        path = _path(rest)
        from bunny.pipeline import chat_file

        self.talk.replace(*chat_file.load(path))
        self.waiting, self.own = [], {path.resolve()}
        questions = sum(turn.role == "user" for turn in self.talk.turns)
        pictures = len(self.talk.pictures)
        typer.echo(f"loaded: {questions} questions and answers, {pictures} pictures", err=True)

    def help(self, rest: str) -> None:
        width = max(map(len, self.known))
        for word, (_, what) in self.known.items():
            typer.echo(f"{word:<{width}}  {what}", err=True)

    def _change(self, **changed: Any) -> None:
        self.talk.settings = dataclasses.replace(self.talk.settings, **changed)


def _path(rest: str) -> Path:
    if not rest:
        raise UserError("which file?", fix="name it, e.g. talk.json")
    return Path(rest.strip("\"'")).expanduser()


def _number(name: str, value: str, kind: type, low: float, high: float) -> float:
    try:
        number: float = kind(value)
    except ValueError:
        raise UserError(f"/set {name}={value}: no number", fix=f"from {low:g} to {high:g}") from None
    if not low <= number <= high:
        raise UserError(f"/set {name}={value}: out of bounds", fix=f"from {low:g} to {high:g}")
    return number
