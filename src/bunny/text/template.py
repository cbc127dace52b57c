"""A conversation's turns become token ids and labels, together.

In: turns, a tokenizer, the number of tokens a picture takes. Out: a `TokenRow` (training) or prompt ids (inference).
A template is a data file of `text/templates`. Text is never split again to find the answers: each piece
is marked learnt or not when it is written, and marks follow the tokenizer's character offsets.
Words of a user or an answer can never become special tokens (`split_special_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import yaml

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Section, check
from bunny.core.types import IGNORE, IMAGE_MARK, ImageRef, Sample, TokenRow, Turn


class Wrap(Section):
    """Text around a system or user turn."""

    before: str
    after: str


class AnswerWrap(Section):
    """Text around an answer. `gap` stands between the generation prompt and the answer; `end` is learnt."""

    before: str
    gap: str
    end: str
    after: str


class Template(Section):
    """How turns are written. See the files in `text/templates`."""

    system: str
    system_turn: Wrap
    user_turn: Wrap
    assistant_turn: AnswerWrap

    @staticmethod
    def named(name: str) -> Template:
        """The template of that file name. Raises UserError that names the nearest one."""
        folder = resources.files("bunny.text") / "templates"
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
        if name not in known:
            raise UserError(f"no template is called `{name}`", fix=nearest(name, known))
        return check(Template, yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8")), f"template {name}")

    def pieces(self, turns: Sequence[Turn], answer_next: bool = False) -> list[Piece]:
        """The conversation as pieces of text, in order; with `answer_next` it ends where the model is to speak."""
        out: list[Piece] = []
        if self.system and (not turns or turns[0].role != "system"):
            turns = [Turn("system", self.system), *turns]
        for turn in turns:
            if turn.role == "assistant":
                wrap = self.assistant_turn
                out += [Piece(wrap.before, trusted=True), Piece(wrap.gap, trusted=True)]
                out += [Piece(turn.text, learn=True, cut=True), Piece(wrap.end, learn=True, trusted=True)]
                out += [Piece(wrap.after, trusted=True)]
            else:
                around = self.system_turn if turn.role == "system" else self.user_turn
                out += [Piece(around.before, trusted=True), Piece(turn.text), Piece(around.after, trusted=True)]
        if answer_next:
            out.append(Piece(self.assistant_turn.before, trusted=True))
        return out

    def jinja(self, image_mark: str = IMAGE_MARK) -> str:
        """The same template for transformers' `apply_chat_template` (text or typed content parts)."""
        user, system, answer = self.user_turn, self.system_turn, self.assistant_turn
        content = (
            "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for c in m.content -%}"
            f"{{%- if c.type == 'image' -%}}{{{{ {_quote(image_mark)} }}}}"
            "{%- if not loop.last and loop.nextitem.type == 'text' and not loop.nextitem.text.startswith('\\n') -%}"
            "{{ '\\n' }}{%- endif -%}{%- else -%}{{ c.text }}{%- endif -%}"
            "{%- endfor -%}{%- endif -%}"
        )
        default = f"{system.before}{self.system}{system.after}" if self.system else ""
        return (
            f"{{%- if messages[0].role != 'system' -%}}{{{{ {_quote(default)} }}}}{{%- endif -%}}"
            "{%- for m in messages -%}"
            f"{{%- if m.role == 'system' -%}}{{{{ {_quote(system.before)} }}}}{content}{{{{ {_quote(system.after)} }}}}"
            f"{{%- elif m.role == 'user' -%}}{{{{ {_quote(user.before)} }}}}{content}{{{{ {_quote(user.after)} }}}}"
            f"{{%- else -%}}{{{{ {_quote(answer.before + answer.gap)} }}}}{content}"
            f"{{{{ {_quote(answer.end + answer.after)} }}}}{{%- endif -%}}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{ {_quote(answer.before)} }}}}{{%- endif -%}}"
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text. learn: it is an answer. trusted: special tokens in it count. cut: a token may not begin
    before it if the tokenizer allows, so that a training row starts with exactly the ids of its inference prompt."""

    text: str
    learn: bool = False
    trusted: bool = False
    cut: bool = False


class Writer:
    """A template bound to a tokenizer and to the model's picture length.

    tokenizer: a fast Hugging Face tokenizer. image_token_id: id that stands for one picture token.
    image_tokens: tokens per picture.
    """

    def __init__(self, template: Template, tokenizer: Any, image_token_id: int, image_tokens: int) -> None:
        self.template, self.tokenizer = template, tokenizer
        self.image_token_id, self.image_tokens = image_token_id, image_tokens
        self.start: list[int] = list(tokenizer("").input_ids)  # BOS, where the tokenizer adds one
        self._specials = {str(token): int(id) for id, token in tokenizer.added_tokens_decoder.items()}
        self._specials.pop(IMAGE_MARK, None)
        listed = "|".join(re.escape(token) for token in sorted(self._specials, key=len, reverse=True))
        self._split = re.compile(f"({listed})") if listed else None
        self._cut_safe = self._ids("a: b") == self._ids("a:") + self._ids(" b")

    def row(self, sample: Sample) -> TokenRow:
        """Ids and labels of a whole conversation. Raises UserError if its picture marks do not fit its pictures."""
        _check_marks(sample.id, sample.turns, sample.images)
        ids, learnt = self._encode(self.template.pieces(sample.turns))
        array = np.asarray(ids, dtype=np.int64)
        labels = np.where(np.asarray(learnt, dtype=bool), array, IGNORE)
        return TokenRow(sample.id, array, labels, sample.images)

    def prompt(self, turns: Sequence[Turn], images: Sequence[ImageRef] = (), id: str = "prompt") -> list[int]:
        """Ids up to where the model is to answer the last turn."""
        _check_marks(id, turns, images)
        return self._encode(self.template.pieces(turns, answer_next=True))[0]

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer: the template's end if it is one special token, and the tokenizer's own."""
        end = self._specials.get(self.template.assistant_turn.end)
        own = self.tokenizer.eos_token_id
        return list(dict.fromkeys(id for id in (end, own) if id is not None))

    def _encode(self, pieces: Sequence[Piece]) -> tuple[list[int], list[bool]]:
        ids, learnt = list(self.start), [False] * len(self.start)
        text = ""  # the plain text since the last boundary
        marks: list[bool] = []  # per character of it: learnt?

        def flush() -> None:
            nonlocal text, marks
            new, flags = self._text(text, marks)
            ids.extend(new)
            learnt.extend(flags)
            text, marks = "", []

        for piece in pieces:
            if piece.cut and self._cut_safe:
                gap = len(text) - len(text.rstrip(" "))  # " yes" is one token: the gap goes with the answer
                held, text, marks = text[len(text) - gap :], text[: len(text) - gap], marks[: len(marks) - gap]
                flush()
                text, marks = held, [False] * gap
            for atom, special in self._atoms(piece):
                if special:
                    flush()
                    ids.extend(special)
                    learnt.extend([piece.learn] * len(special))
                else:
                    text += atom
                    marks += [piece.learn] * len(atom)
        flush()
        return ids, learnt

    def _atoms(self, piece: Piece) -> list[tuple[str, list[int]]]:
        """(text, ids) parts of a piece: ids for pictures and trusted special tokens, text otherwise."""
        if piece.trusted:
            parts = self._split.split(piece.text) if self._split else [piece.text]
            return [(part, [self._specials[part]] if part in self._specials else []) for part in parts if part]
        picture = [self.image_token_id] * self.image_tokens
        parts = re.split(f"({IMAGE_MARK})", piece.text) if not piece.learn else [piece.text]
        return [(part, picture if part == IMAGE_MARK and not piece.learn else []) for part in parts if part]

    def _text(self, text: str, marks: Sequence[bool]) -> tuple[list[int], list[bool]]:
        if not text:
            return [], []
        coded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        return list(coded.input_ids), [bool(marks[max(start, end - 1)]) for start, end in coded.offset_mapping]

    def _ids(self, text: str) -> list[int]:
        return self._text(text, [False] * len(text))[0]


def _check_marks(id: str, turns: Sequence[Turn], images: Sequence[ImageRef]) -> None:
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role != "assistant")
    if marks != len(images):
        raise UserError(f"{id}: {marks} {IMAGE_MARK} marks, {len(images)} pictures", fix="give one mark per picture")


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
