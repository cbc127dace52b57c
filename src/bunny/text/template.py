"""A conversation's turns become token ids and labels, together.

In: turns, a tokenizer, the number of tokens a picture takes. Out: a `TokenRow` (training) or prompt ids (inference).
A template is a data file of `text/templates`. Text is never split again to find the answers: each piece
is marked learnt or not when it is written, and tokenised apart from the others, so that a training row starts with
exactly the ids of its inference prompt. Words of a user or an answer can never become special tokens.
"""

from __future__ import annotations

import json
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
    """Text around an answer. `gap` stands between the generation prompt and the answer; `gap` and `end` are learnt."""

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
                out += [Piece(wrap.before, trusted=True), Piece(wrap.gap, learn=True, trusted=True)]
                out += [Piece(turn.text, learn=True), Piece(wrap.end, learn=True, trusted=True)]
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
    """A stretch of text. learn: the model has to write it. trusted: special tokens in it count. No token reaches
    over the border between what is learnt and what is not."""

    text: str
    learn: bool = False
    trusted: bool = False


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
        self._opening, self._going_on = _coders(tokenizer.backend_tokenizer)

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
        text, learn = "", False  # what is not written yet
        coder = self._opening

        def write(new: Sequence[int], flag: bool) -> None:
            ids.extend(new)
            learnt.extend([flag] * len(new))

        for piece in pieces:
            for atom, special in self._atoms(piece):
                if text and (special or piece.learn != learn):
                    write(coder.encode(text).ids, learn)
                    text, coder = "", self._going_on
                if special:
                    write(special, piece.learn)
                    coder = self._opening
                else:
                    text, learn = text + atom, piece.learn
        write(coder.encode(text).ids, learn)
        return ids, learnt

    def _atoms(self, piece: Piece) -> list[tuple[str, list[int]]]:
        """(text, ids) parts of a piece: ids for pictures and trusted special tokens, text otherwise."""
        if piece.trusted:
            parts = self._split.split(piece.text) if self._split else [piece.text]
            return [(part, [self._specials[part]] if part in self._specials else []) for part in parts if part]
        if piece.learn:  # an answer holds no pictures
            return [(piece.text, [])] if piece.text else []
        picture = [self.image_token_id] * self.image_tokens
        parts = re.split(f"({IMAGE_MARK})", piece.text)
        return [(part, picture if part == IMAGE_MARK else []) for part in parts if part]


def _coders(backend: Any) -> tuple[Any, Any]:
    """(for text behind a special token, for text that goes on behind text): copies of a `tokenizers.Tokenizer`.

    Both take special tokens in their text for plain words. Sentencepiece-like tokenizers put a blank before every
    text they are given; text that goes on must not get one in the middle.
    """
    tree = json.loads(backend.to_str())
    opening = type(backend).from_str(json.dumps(tree | {"post_processor": None}))
    bare = {part: _without_blank(tree[part]) for part in ("normalizer", "pre_tokenizer")}
    same = all(bare[part] == tree[part] for part in bare)
    going_on = opening if same else type(backend).from_str(json.dumps(tree | bare | {"post_processor": None}))
    for coder in (opening, going_on):
        coder.encode_special_tokens = True
        coder.no_truncation()
        coder.no_padding()
    return opening, going_on


def _without_blank(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normaliser's or pre-tokenizer's settings, less the blank it puts before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    out = dict(part)
    for inner in ("normalizers", "pretokenizers"):
        if inner in part:
            out[inner] = [kept for kept in map(_without_blank, part[inner]) if kept is not None]
    if part["type"] == "Metaspace":
        out["prepend_scheme"] = "never"
    if "add_prefix_space" in part:
        out["add_prefix_space"] = False
    return out


def _check_marks(id: str, turns: Sequence[Turn], images: Sequence[ImageRef]) -> None:
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role != "assistant")
    if marks != len(images):
        raise UserError(f"{id}: {marks} {IMAGE_MARK} marks, {len(images)} pictures", fix="give one mark per picture")


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
