"""A tokenizer's own chat template becomes a `Template`: what `template: native` in a recipe means.

In: a tokenizer with a `chat_template`. Out: the five lines of a template file, and a proof that they write the same.
The Jinja program is never read: talks of made-up words are rendered and cut at those words. What cannot be said in five
lines (a history that is rewritten, say) is refused, not approximated. Three things are settled here:

- Thinking is off (`enable_thinking=False`). If the model then speaks behind an empty thought that earlier answers of a
  talk lack (Qwen3), earlier answers get it too, so that a training row begins with its inference prompts.
- A date in the system text is pinned to `DAY`, so that training and every later use see one prompt.
- The token that the tokenizer puts before every text (BOS) is left to it. Blanks at the ends of people's words are
  kept, where many chat templates strip them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2.exceptions import TemplateError

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import Turn
from bunny.text.template import AnswerWrap, SystemWrap, Template, Wrap

DAY = datetime(2024, 7, 26)  # what Llama-3's templates fall back to where they are told no date
THOUGHT = re.compile(r"<think>\s*</think>\s*$")
MEND = "name a template that comes along (docs/templates.md) or write one, five lines of YAML"

ASK, SAY = Turn("user", "Qasked1q"), Turn("assistant", "Qsaid1q")
AGAIN, RULE = Turn("user", "Qasked2q"), Turn("system", "Qruled1q")
"""Turns whose words no template contains: it is cut at them."""

REAL = (
    Turn("system", "Be brief.\nAlways."),
    Turn("user", "What is this, then?\n\nTell me: 1 or 2?"),
    Turn("assistant", "Two red balls (é).\n- one\n- two"),
    Turn("user", "And <b>now</b>?"),
    Turn("assistant", "Yes."),
    Turn("user", "Why"),
    Turn("assistant", "Because {it} is 'so'"),
)
"""The talk the proof is made of."""


def native_template(tokenizer: Any) -> Template:
    """The tokenizer's own chat template as a `Template` that writes the same text, proved on talks of one to three
    turns. Raises UserError if there is none, or none that five lines can say; it names the first difference."""
    own = _Own.of(tokenizer)
    template = _with_system(_without_system(own), own)
    for turns in _talks(template.system_turn is not None):
        if difference := _difference(own, template, turns):
            raise UserError(f"`native`: {difference}", fix=MEND)
    if own.text([ASK]) != own.text([ASK], day=datetime(1999, 12, 31)):
        log.info("native template: its date is pinned to %s", DAY.date())
    if THOUGHT.search(template.assistant_turn.before):
        log.info("native template: thinking is off; every answer stands behind an empty thought")
    if template.system_turn is None:
        log.info("native template: it has no fixed place for a system turn; such turns are refused")
    return template


@dataclass(frozen=True, slots=True)
class _Own:
    """The chat template to take apart. start: what the tokenizer itself puts before every text."""

    tokenizer: Any
    start: str
    special: re.Pattern[str]

    @staticmethod
    def of(tokenizer: Any) -> _Own:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError("`native`: this tokenizer has no chat template of its own", fix=MEND)
        start = "".join(tokenizer.convert_ids_to_tokens(tokenizer("").input_ids))
        tokens = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        listed = "|".join(re.escape(token) for token in tokens if token.strip())
        return _Own(tokenizer, start, re.compile(f"({listed})" if listed else r"(?!)()"))

    def text(self, turns: Sequence[Turn], answer_next: bool = True, day: datetime = DAY) -> str:
        """The talk as the chat template writes it, less `start`. Raises UserError where it refuses."""
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.text} for turn in turns],
                chat_template=_calendar(day) + self.tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=answer_next,
                enable_thinking=False,
                thinking=False,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise UserError(f"`native`: the tokenizer's chat template fails: {error}", fix=MEND) from error
        return str(text).removeprefix(self.start)

    def cut(self, *turns: Turn, answer_next: bool = True) -> list[str]:
        """The texts around the words of a talk, one more than there are turns."""
        text, out = self.text(turns, answer_next), list[str]()
        for turn in turns:
            before, found, text = text.partition(turn.text)
            if not found or turn.text in text:
                raise UserError("`native`: the chat template drops, repeats or moves what people say", fix=MEND)
            out.append(before)
        return [*out, text]

    def atoms(self, text: str) -> list[str]:
        """The text in special tokens and what stands between them."""
        return [atom for atom in self.special.split(text) if atom]

    def shared(self, one: str, other: str) -> str:
        """The common beginning of two texts, in whole atoms."""
        atoms = self.atoms(one)
        return "".join(atoms[: _alike(atoms, self.atoms(other))])

    def shared_end(self, one: str, other: str) -> str:
        """The common ending, likewise."""
        back = self.atoms(one)[::-1]
        return "".join(back[: _alike(back, self.atoms(other)[::-1])][::-1])


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many elements two sequences have in common, counted from the first."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def _calendar(day: datetime) -> str:
    """Jinja that takes the place of transformers' `strftime_now`, so that today is `day`; it writes nothing itself."""
    codes = [f"%{flag}{code}" for flag in ("-", "") for code in "aAbBdHIjmMpSyY"]
    known = "".join(f".replace('{code}', '{day.strftime(code)}')" for code in codes)
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{known} }}}}{{%- endmacro %}}\n"  # this \n is trimmed


def _without_system(own: _Own) -> Template:
    """The template but for its system turn."""
    start, asked = own.cut(ASK)
    _, closed = own.cut(ASK, answer_next=False)
    _, given, ended = own.cut(ASK, SAY, answer_next=False)
    _, _, between, _ = own.cut(ASK, SAY, AGAIN)
    after_user = own.shared(closed, asked)
    end = _end(own, between)
    rest = between.removeprefix(end)  # what closes an answer behind its end, then what opens a user turn
    after = own.shared(ended.removeprefix(end), rest)
    before_user = rest.removeprefix(after)
    if not start.endswith(before_user):  # Llama-2 opens every user turn but the first with BOS
        before_user = own.shared_end(start, rest)
        after = rest.removesuffix(before_user)
    if not given.startswith(asked):
        what = f"an answer is written behind {given!r}, and the model is to speak behind {asked!r}"
        raise UserError(f"`native`: {what}", fix=MEND)
    return Template(
        system="",
        without_system=start.removesuffix(before_user),
        system_turn=None,
        user_turn=Wrap(before=before_user, after=after_user),
        assistant_turn=AnswerWrap(
            before=asked.removeprefix(after_user), gap=given.removeprefix(asked), end=end, after=after
        ),
    )


def _end(own: _Own, between: str) -> str:
    """What ends an answer: up to the first special token of the text between an answer and the next question."""
    atoms = own.atoms(between)
    for number, atom in enumerate(atoms):
        if own.special.fullmatch(atom):
            return "".join(atoms[: number + 1])
    raise UserError("`native`: the chat template ends an answer with no token that generation could stop at", fix=MEND)


def _with_system(template: Template, own: _Own) -> Template:
    """The template with a system turn, if its chat template has one fixed place for it."""
    opening = template.user_turn.before
    try:
        head, middle, _ = own.cut(RULE, ASK)
    except UserError:
        return template
    if middle.endswith(opening):
        turn = SystemWrap(before=head, after=middle.removesuffix(opening))
    elif head.startswith(opening):
        turn = SystemWrap(before=head.removeprefix(opening), after=middle, in_user=True)
    else:
        return template
    default = template.without_system
    words = default.removeprefix(turn.before).removesuffix(turn.after)
    filled = template.model_copy(update={"system_turn": turn})
    if words and default == turn.before + words + turn.after and not own.special.search(words) and not turn.in_user:
        filled = filled.model_copy(update={"system": words, "without_system": ""})
    talks = [turns for turns in _talks(True) if turns[0].role == "system"]
    return template if any(_difference(own, filled, turns) for turns in talks) else filled


def _talks(system: bool) -> list[tuple[Turn, ...]]:
    """Finished talks of one to three questions, each without and (where it has a place) with a system turn."""
    return [REAL[first : 1 + 2 * count] for first in ((1, 0) if system else (1,)) for count in (1, 2, 3)]


def _difference(own: _Own, template: Template, turns: Sequence[Turn]) -> str:
    """Where the two write a finished talk, or the prompt for its last answer, differently; empty if nowhere."""
    asked, answer = turns[:-1], template.assistant_turn
    theirs = own.text(asked)
    ours = _written(template, asked) + answer.before
    if theirs != ours and THOUGHT.search(answer.before):  # a thought may be missing in earlier answers
        bare = answer.model_copy(update={"before": THOUGHT.sub("", answer.before)})
        ours = _written(template.model_copy(update={"assistant_turn": bare}), asked) + answer.before
    if theirs == ours:
        ours += answer.gap + turns[-1].text + answer.end
        theirs = own.text(turns, answer_next=False)[: len(ours)]  # what stands behind the last end teaches nothing
    if theirs == ours:
        return ""
    place = _alike(theirs, ours)
    what = (
        f"its chat template writes {theirs[place : place + 40]!r} where ours would write {ours[place : place + 40]!r}"
    )
    return f"{what}, in a talk of {len(turns)} turns"


def _written(template: Template, turns: Sequence[Turn]) -> str:
    return "".join(piece.text for piece in template.pieces(turns))
