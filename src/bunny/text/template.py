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
from pydantic import model_validator

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Section, check
from bunny.core.types import IGNORE, IMAGE_MARK, ImageRef, Sample, TokenRow, Turn


class Wrap(Section):
    """Text around a system or user turn. Without `words`, only the turn's picture marks are written."""

    before: str
    after: str
    words: bool = True


class SystemWrap(Wrap):
    """Text around a system turn. With `in_user` it stands inside the user turn that follows, behind its `before`."""

    in_user: bool = False


class AnswerWrap(Section):
    """Text around an answer. `gap` stands between the generation prompt and the answer; `gap` and `end` are learnt."""

    before: str
    gap: str
    end: str
    after: str


class Template(Section):
    """How turns are written. See the files in `text/templates`."""

    system: str  # the system turn of a conversation that brings none; empty: there is none
    without_system: str = ""  # or this text, as it is, in its place
    system_turn: SystemWrap | None  # null: a system turn is refused
    user_turn: Wrap
    assistant_turn: AnswerWrap

    @staticmethod
    def named(name: str) -> Template:
        """The template of that file name. Raises UserError that names the nearest one."""
        known = template_names()
        if name not in known:
            raise UserError(f"no template is called `{name}`", fix=nearest(name, known))
        return check(Template, yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8")), f"template {name}")

    @model_validator(mode="after")
    def _one_default(self) -> Template:
        if self.system and (self.without_system or self.system_turn is None):
            raise ValueError("`system` needs a `system_turn` and stands alone, without `without_system`")
        return self

    def pieces(self, turns: Sequence[Turn], answer_next: bool = False) -> list[Piece]:
        """The conversation as pieces of text, in order; with `answer_next` it ends where the model is to speak.

        Raises UserError for a system turn the template has no place for.
        """
        out: list[Piece] = []
        held: list[Piece] = []  # a system turn that waits for its user turn
        if not turns or turns[0].role != "system":
            out.append(Piece(self.without_system, trusted=True))
            turns = [Turn("system", self.system), *turns] if self.system else turns
        for turn in turns:
            if held and turn.role != "user":
                raise UserError(_NO_USER, fix=_MOVE)
            if turn.role == "assistant":
                wrap = self.assistant_turn
                out += [Piece(wrap.before, trusted=True), Piece(wrap.gap, learn=True, trusted=True)]
                out += [Piece(turn.text, learn=True), Piece(wrap.end, learn=True, trusted=True)]
                out += [Piece(wrap.after, trusted=True)]
            elif turn.role == "user":
                before, *rest = _wrapped(turn, self.user_turn)
                out += [before, *held, *rest]
                held = []
            elif self.system_turn is None:
                raise UserError(_NO_SYSTEM, fix=_MOVE)
            elif self.system_turn.in_user:
                held = _wrapped(turn, self.system_turn)
            else:
                out += _wrapped(turn, self.system_turn)
        if held:
            raise UserError(_NO_USER, fix=_MOVE)
        if answer_next:
            out.append(Piece(self.assistant_turn.before, trusted=True))
        return out

    def jinja(self, image_mark: str = IMAGE_MARK) -> str:
        """The same template for transformers' `apply_chat_template` (text or typed content parts)."""
        user, system, answer = self.user_turn, self.system_turn, self.assistant_turn
        folded = system is not None and system.in_user
        default = self.without_system
        if system is not None and self.system and not folded:
            default = f"{system.before}{self.system}{system.after}"
        return (
            f"{{%- if messages[0].role != 'system' -%}}{_say(default)}{{%- endif -%}}"
            "{%- for m in messages -%}"
            f"{{%- if m.role == 'system' -%}}{self._system_jinja(image_mark)}"
            f"{{%- elif m.role == 'user' -%}}{_say(user.before)}{self._folded_jinja(image_mark) if folded else ''}"
            f"{_content('m', user.words, image_mark)}{_say(user.after)}"
            f"{{%- else -%}}{_say(answer.before + answer.gap)}{_content('m', True, image_mark)}"
            f"{_say(answer.end + answer.after)}{{%- endif -%}}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{_say(answer.before)}{{%- endif -%}}"
        )

    def _system_jinja(self, image_mark: str) -> str:
        """What `jinja` does at a system turn."""
        system = self.system_turn
        if system is None:
            return f"{{{{ raise_exception({_quote(_NO_SYSTEM)}) }}}}"
        if system.in_user:
            refuse = f"{{{{ raise_exception({_quote(_NO_USER)}) }}}}"
            return f"{{%- if loop.last or loop.nextitem.role != 'user' -%}}{refuse}{{%- endif -%}}"
        return f"{_say(system.before)}{_content('m', system.words, image_mark)}{_say(system.after)}"

    def _folded_jinja(self, image_mark: str) -> str:
        """The system turn that `jinja` writes inside the user turn behind it."""
        system = self.system_turn
        assert system is not None
        default = f"{system.before}{self.system}{system.after}" if self.system else ""
        words = _content("loop.previtem", system.words, image_mark)
        return (
            f"{{%- if loop.first -%}}{_say(default)}{{%- elif loop.previtem.role == 'system' -%}}"
            f"{_say(system.before)}{words}{_say(system.after)}{{%- endif -%}}"
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text. learn: the model has to write it. trusted: special tokens in it count. No token reaches
    over the border between what is learnt and what is not."""

    text: str
    learn: bool = False
    trusted: bool = False


_FOLDER = resources.files("bunny.text") / "templates"
_NO_SYSTEM = "this template has no place for a system turn"
_NO_USER = "this template writes a system turn into the user turn behind it, and there is none"
_MOVE = "put its words into the user turn"


def template_names() -> list[str]:
    """The templates that come along: file names of `text/templates`."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def _wrapped(turn: Turn, wrap: Wrap) -> list[Piece]:
    words = turn.text if wrap.words else IMAGE_MARK * turn.text.count(IMAGE_MARK)
    return [Piece(wrap.before, trusted=True), Piece(words), Piece(wrap.after, trusted=True)]


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
        added = tokenizer.added_tokens_decoder.values()
        self._swallow = {str(token) for token in added if token.rstrip} & set(self._specials)
        self._opening, self._going_on = _coders(tokenizer.backend_tokenizer)
        if template.assistant_turn.end.strip() and self._end is None:
            raise self._wrong_end()

    def row(self, sample: Sample) -> TokenRow:
        """Ids and labels of a whole conversation. Raises UserError if its picture marks do not fit its pictures."""
        _check_marks(sample.id, sample.turns, sample.images)
        ids, learnt = self._encode(self.template.pieces(sample.turns))
        array = np.asarray(ids, dtype=np.int64)
        labels = np.where(np.asarray(learnt, dtype=bool), array, IGNORE)
        return TokenRow(sample.id, array, labels, sample.images)

    def prompt(self, turns: Sequence[Turn], images: Sequence[ImageRef] = (), id: str = "prompt") -> list[int]:
        """Ids up to where the model is to answer the last turn, or to go on with it, where it is an assistant's."""
        _check_marks(id, turns, images)
        begun = turns[-1:] if turns and turns[-1].role == "assistant" else []
        pieces = self.template.pieces(turns[: len(turns) - len(begun)], answer_next=True)
        for turn in begun:
            gap = self.template.assistant_turn.gap
            pieces += [Piece(gap, learn=True, trusted=True), Piece(turn.text, learn=True)]
        return self._encode(pieces)[0]

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer: the template's end token, where it has one, and the tokenizer's own."""
        own = self.tokenizer.eos_token_id
        return list(dict.fromkeys(id for id in (self._end, own) if id is not None))

    @property
    def _end(self) -> int | None:
        """Id of the special token that closes the template's `end`; none if `end` is plain text."""
        return self._last_token(self.template.assistant_turn.end)

    def _last_token(self, text: str) -> int | None:
        atoms = self._atoms(Piece(text, trusted=True))
        return atoms[-1][1][0] if atoms and atoms[-1][1] else None

    def _wrong_end(self) -> UserError:
        """Such an end would be learnt as plain text, and generation would never stop at it."""
        ends = {name: Template.named(name).assistant_turn.end for name in template_names()}
        fitting = [name for name, end in ends.items() if self._last_token(end) is not None]
        if getattr(self.tokenizer, "chat_template", None):
            fitting.append("native")
        end = self.template.assistant_turn.end
        return UserError(
            f"the template ends an answer with `{end}`, which is no token of this tokenizer",
            fix=f"templates that fit it: {', '.join(fitting)}" if fitting else "write a template (docs/templates.md)",
        )

    def _encode(self, pieces: Sequence[Piece]) -> tuple[list[int], list[bool]]:
        ids, learnt = list(self.start), [False] * len(self.start)
        text, learn = "", False  # what is not written yet
        coder = self._opening
        swallow = False  # the last token takes the blanks behind it (`rstrip`, as in Phi-3), but never people's words

        def write(new: Sequence[int], flag: bool) -> None:
            ids.extend(new)
            learnt.extend([flag] * len(new))

        for piece in pieces:
            for atom, special in [("", []), *self._atoms(piece)]:  # an empty piece is a border too
                if text and (special or piece.learn != learn):
                    write(coder.encode(text).ids, learn)
                    text, coder = "", self._going_on
                if special:
                    write(special, piece.learn)
                    coder, swallow = self._opening, atom in self._swallow
                elif rest := atom.lstrip() if swallow and piece.trusted else atom:
                    text, learn, swallow = text + rest, piece.learn, False
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


def _say(text: str) -> str:
    return f"{{{{ {_quote(text)} }}}}" if text else ""


def _content(message: str, words: bool, image_mark: str) -> str:
    """Jinja that writes a message's content, a text or typed parts; without `words`, its picture marks only."""
    mark = _quote(image_mark)
    if not words:
        return (
            f"{{%- if {message}.content is string -%}}{{{{ {mark} * {message}.content.count({mark}) }}}}{{%- else -%}}"
            f"{{%- for c in {message}.content -%}}{{%- if c.type == 'image' -%}}{{{{ {mark} }}}}{{%- else -%}}"
            f"{{{{ {mark} * c.text.count({mark}) }}}}{{%- endif -%}}{{%- endfor -%}}{{%- endif -%}}"
        )
    return (
        f"{{%- if {message}.content is string -%}}{{{{ {message}.content }}}}{{%- else -%}}"
        f"{{%- for c in {message}.content -%}}{{%- if c.type == 'image' -%}}{{{{ {mark} }}}}"
        "{%- if not loop.last and loop.nextitem.type == 'text' and not loop.nextitem.text.startswith('\\n') -%}"
        "{{ '\\n' }}{%- endif -%}{%- else -%}{{ c.text }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
    )


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
