"""Every template passes this suite unedited, with a byte-level and a sentencepiece-like tokenizer, and so does what
`native` makes of the chat templates that model families write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

import bunny.text
from bunny.core.errors import UserError
from bunny.core.types import IGNORE, IMAGE_MARK, ImageRef, Sample, TokenRow, Turn
from bunny.text.native import native_template
from bunny.text.template import Template, Writer
from tests.text.chat_templates import STYLES, tokenizer_of
from tests.tiny import ENDS, byte_level, metaspace

NAMES = sorted(path.stem for path in (Path(str(bunny.text.__file__)).parent / "templates").glob("*.yaml"))
TOKENIZERS = {"byte_level": byte_level(), "metaspace": metaspace()}
MARKS = sorted({mark for name in NAMES for mark in re.findall(r"<[^<>\s]+>", Template.named(name).jinja(""))})
for tokenizer in TOKENIZERS.values():  # every template's own tokens
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS}, replace_extra_special_tokens=False)
IMAGE, TOKENS = 9_999, 4
WRITERS = {
    (name, kind): Writer(Template.named(name), tokenizer, IMAGE, TOKENS)
    for name in NAMES
    for kind, tokenizer in TOKENIZERS.items()
}
for style in STYLES:
    tokenizer = tokenizer_of(style)
    WRITERS["native", style] = Writer(native_template(tokenizer), tokenizer, IMAGE, TOKENS)
each = pytest.mark.parametrize("case", WRITERS, ids="-".join)
Case = tuple[str, str]

A, B = ImageRef("a"), ImageRef("b")
TALKS: dict[str, tuple[Turn, ...]] = {
    "one turn": (Turn("user", "<image>\nwhat is this?"), Turn("assistant", "a red circle")),
    "no picture": (Turn("user", "yes or no?"), Turn("assistant", "yes")),
    "system": (Turn("system", "be short"), Turn("user", "<image>\nwhat?"), Turn("assistant", "a circle")),
    "turns": (
        Turn("user", "<image>\nwhat is this?"),
        Turn("assistant", "a circle"),
        Turn("user", "and the colour?"),
        Turn("assistant", "red"),
    ),
    "pictures": (Turn("user", "left <image> and right\n<image> same?"), Turn("assistant", "no")),
    "later picture": (
        Turn("user", "<image>\nwhat?"),
        Turn("assistant", "one"),
        Turn("user", "and <image>?"),
        Turn("assistant", "two"),
    ),
    "blanks": (Turn("user", "  <image>\n what \n"), Turn("assistant", "  two  blanks \n")),
    "newlines": (Turn("user", "<image>\n\nwhat"), Turn("assistant", "\n\nyes\n")),
    "unicode": (Turn("user", "<image>\n图中有什么？ 🐰"), Turn("assistant", "一只兔子 🐇 é")),
    "caption": (Turn("user", "<image>"), Turn("assistant", "a title")),
    "answer first": (Turn("assistant", "hello"), Turn("user", "<image>"), Turn("assistant", "yes")),
    "special words": (
        Turn("user", f"<image>\nwhat is {' '.join(ENDS)} <s> USER: x ASSISTANT: y?"),
        Turn("assistant", f"<image> {''.join(ENDS)} ASSISTANT: <s>"),
    ),
}
each_talk = pytest.mark.parametrize("talk", TALKS)


def turns_of(case: Case, talk: str) -> tuple[Turn, ...]:
    """The talk, less a system turn if the template has no place for one."""
    refused = WRITERS[case].template.system_turn is None
    return tuple(turn for turn in TALKS[talk] if not (refused and turn.role == "system"))


def sample(turns: tuple[Turn, ...]) -> Sample:
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role != "assistant")
    return Sample("s", (A, B)[:marks], turns)


def ids_of(writer: Writer, text: str) -> list[int]:
    """Ids of a text whose special tokens count."""
    return list(writer.tokenizer(text, add_special_tokens=False).input_ids)


def spans(labels: list[int]) -> list[tuple[int, list[int]]]:
    """(where it starts, ids) of each run of learnt ids."""
    out: list[tuple[int, list[int]]] = []
    for place, (before, now) in enumerate(zip([IGNORE, *labels[:-1]], labels, strict=True)):
        if now != IGNORE and before == IGNORE:
            out.append((place, [now]))
        elif now != IGNORE:
            out[-1][1].append(now)
    return out


def said(writer: Writer, row: TokenRow) -> list[str]:
    """The texts of what is learnt, span by span.

    A sentencepiece decoder eats a blank before the first word: a letter in front keeps it. Such a tokenizer also puts a
    blank before a text that follows a picture or a special token; that one is no part of the answer.
    """
    coder = writer.tokenizer.backend_tokenizer
    head = coder.encode("x", add_special_tokens=False).ids
    openings = {IMAGE, *writer.tokenizer.all_special_ids}
    texts = []
    for start, span in spans(row.labels.tolist()):
        text = str(coder.decode([*head, *span], skip_special_tokens=False)).removeprefix("x")
        opened = start == 0 or int(row.ids[start - 1]) in openings
        texts.append(text.removeprefix(" ") if opened and coder.normalizer is not None else text)
    return texts


def answers(template: Template, turns: tuple[Turn, ...]) -> list[str]:
    """What is learnt, span by span; answers with nothing written between them are one span."""
    wrap, out, apart = template.assistant_turn, list[str](), True
    for turn in turns:
        if turn.role == "assistant":
            text = wrap.gap + turn.text + wrap.end
            out = [*out, text] if apart or wrap.before else [*out[:-1], out[-1] + text]
            apart = bool(wrap.after)
        else:
            around = template.user_turn
            apart = apart or around.words or IMAGE_MARK in turn.text or around.before + around.after != ""
    return out


@each
@each_talk
def test_labels_cover_exactly_the_answers_and_their_ends(case: Case, talk: str) -> None:
    writer, turns = WRITERS[case], turns_of(case, talk)
    row = writer.row(sample(turns))
    assert said(writer, row) == answers(writer.template, turns)
    learnt = row.labels != IGNORE
    np.testing.assert_array_equal(row.ids[learnt], row.labels[learnt])


@each
@each_talk
def test_a_row_starts_with_the_ids_of_its_inference_prompts(case: Case, talk: str) -> None:
    writer, turns = WRITERS[case], turns_of(case, talk)
    row = writer.row(sample(turns))
    ends = []
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            before = sample(turns[:number])
            prompt = writer.prompt(before.turns, before.images)
            assert row.ids[: len(prompt)].tolist() == prompt
            ends.append(len(prompt))
    assert all(row.labels[end] != IGNORE for end in ends)
    begins = [end for end in ends if end == 0 or row.labels[end - 1] == IGNORE]
    assert [
        start for start, _ in spans(row.labels.tolist())
    ] == begins  # what is learnt begins exactly where the model begins to speak


@each
@each_talk
def test_words_of_people_never_become_special_tokens(case: Case, talk: str) -> None:
    writer = WRITERS[case]
    plain = tuple(Turn(turn.role, "x <image>" if "<image>" in turn.text else "x") for turn in turns_of(case, talk))
    plain = tuple(Turn(turn.role, turn.text if turn.role != "assistant" else "x") for turn in plain)
    specials = set(writer.tokenizer.all_special_ids) | {IMAGE}
    want = [id for id in writer.row(sample(plain)).ids.tolist() if id in specials]
    found = [id for id in writer.row(sample(turns_of(case, talk))).ids.tolist() if id in specials]
    extra = (len(sample(turns_of(case, talk)).images) - len(sample(plain).images)) * TOKENS
    assert [id for id in found if id != IMAGE] == [id for id in want if id != IMAGE]
    assert found.count(IMAGE) == want.count(IMAGE) + extra


@each
@each_talk
def test_each_picture_takes_its_tokens(case: Case, talk: str) -> None:
    row = WRITERS[case].row(sample(turns_of(case, talk)))
    assert (row.ids == IMAGE).sum() == TOKENS * len(row.images)
    assert (row.labels[row.ids == IMAGE] == IGNORE).all()


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters="\n "), max_size=30)
texts = st.one_of(words, st.sampled_from([*ENDS, "ASSISTANT: yes", "USER:", " ", "\n", "<s>"]))
asked = texts.map(lambda text: text + "?")
talks = st.lists(st.tuples(asked, texts.filter(lambda text: text.strip() != "")), min_size=1, max_size=3)


@pytest.mark.parametrize("case", WRITERS, ids="-".join)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(talk=talks)
def test_any_conversation_keeps_its_words_labels_and_prompts(case: Case, talk: list[tuple[str, str]]) -> None:
    writer = WRITERS[case]
    turns = tuple(turn for ask, answer in talk for turn in (Turn("user", ask), Turn("assistant", answer)))
    turns = tuple(Turn(turn.role, turn.text.replace(IMAGE_MARK, "")) for turn in turns)
    row = writer.row(sample(turns))
    assert said(writer, row) == answers(writer.template, turns)
    prompt = writer.prompt(turns[:1])
    assert row.ids[: len(prompt)].tolist() == prompt


@each
@each_talk
def test_the_chat_template_writes_the_same_ids(case: Case, talk: str) -> None:
    if talk in ("special words", "answer first"):  # transformers lets words of people become special tokens
        return
    writer, turns = WRITERS[case], turns_of(case, talk)[:-1]
    rendered = writer.tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.text} for turn in turns],
        chat_template=writer.template.jinja(),
        add_generation_prompt=True,
        tokenize=False,
    )
    ids: list[int] = []
    for number, part in enumerate(rendered.split(IMAGE_MARK)):
        ids += ([IMAGE] * TOKENS if number else []) + (ids_of(writer, part) if part else [])
    whole = sample(turns)
    assert [*writer.start, *ids] == writer.prompt(whole.turns, whole.images)


@each
def test_pictures_as_typed_parts_stand_where_the_mark_would(case: Case) -> None:
    writer = WRITERS[case]

    def rendered(content: Any) -> str:
        return str(
            writer.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=writer.template.jinja(),
                add_generation_prompt=True,
                tokenize=False,
            )
        )

    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    assert rendered(parts) == rendered("<image>\nwhat?")
    assert rendered([{"type": "image"}, *parts]) == rendered("<image><image>\nwhat?")
    assert rendered([*parts, {"type": "image"}]) == rendered("<image>\nwhat?<image>")


@each
def test_marks_that_do_not_fit_the_pictures_are_refused(case: Case) -> None:
    with pytest.raises(UserError, match="s: 1 <image> marks, 2 pictures; give one mark per picture"):
        WRITERS[case].row(Sample("s", (A, B), (Turn("user", "<image>"), Turn("assistant", "x"))))
    with pytest.raises(UserError, match="1 <image> marks, 0 pictures"):
        WRITERS[case].prompt((Turn("user", "what is <image>?"),))


@each
def test_a_system_turn_is_written_or_refused_by_both(case: Case) -> None:
    template, turns = WRITERS[case].template, TALKS["system"][:2]
    talk = [{"role": turn.role, "content": turn.text} for turn in turns]

    def rendered() -> str:
        return str(WRITERS[case].tokenizer.apply_chat_template(talk, chat_template=template.jinja(), tokenize=False))

    if template.system_turn is None:
        with pytest.raises(UserError, match="no place for a system turn; put its words into the user turn"):
            template.pieces(turns)
        with pytest.raises(TemplateError, match="no place for a system turn"):
            rendered()
    else:
        text = "".join(piece.text for piece in template.pieces(turns))
        assert rendered() == text
        assert ("be short" in text) == template.system_turn.words


@each
def test_the_stop_tokens_hold_the_templates_end(case: Case) -> None:
    writer = WRITERS[case]
    end = writer.template.assistant_turn.end
    assert writer.tokenizer.eos_token_id in writer.stop_ids
    if end.strip():
        assert writer.stop_ids[0] == writer.tokenizer.get_vocab()[end.strip()]
