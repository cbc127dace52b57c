"""Pieces of text are together the text of the whole, whatever the tokenizer and wherever characters are cut."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bunny.infer.row import token_text
from bunny.infer.spoken import UNREADABLE, Spoken
from tests.tiny import byte_level, metaspace

TOKENIZERS = {"byte_level": byte_level, "metaspace": metaspace}
LETTERS = st.text(st.sampled_from("ab yes no.\n 猫很可爱 🙂👩‍🚀é" + UNREADABLE), max_size=20)


@cache
def tokenizer(kind: str) -> Any:
    return TOKENIZERS[kind]()


def said(some: Spoken, ids: list[int]) -> list[str]:
    """The pieces that come of ids."""
    pieces = []
    for id in ids:
        pieces.append(some.add(id))
        if some.stopped:
            return pieces
    return [*pieces, some.end()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=LETTERS)
@settings(deadline=None)
def test_words_come_out_as_they_went_in(kind: str, text: str) -> None:
    coder = tokenizer(kind)
    ids = coder(text, add_special_tokens=False).input_ids
    whole = coder.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(said(Spoken(coder), ids)) == whole


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
@settings(deadline=None)
def test_any_tokens_in_any_order_are_the_decoded_whole(kind: str, data: st.DataObject) -> None:
    coder = tokenizer(kind)
    ids = data.draw(st.lists(st.integers(0, len(coder) - 1), max_size=30))
    whole = coder.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # sentencepiece spoils a whole run of bytes where a later one is wrong: nobody can know that before
    assume(kind == "byte_level" or UNREADABLE not in whole)
    assert "".join(said(Spoken(coder), ids)) == whole


def test_a_character_is_said_when_it_is_whole() -> None:
    coder = tokenizer("byte_level")
    ids = coder("🙂!", add_special_tokens=False).input_ids
    assert len(ids) == 5
    assert said(Spoken(coder), ids) == ["", "", "", "🙂", "!", ""]


@given(st.text("abc", max_size=24), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
@settings(deadline=None)
def test_the_first_stop_word_ends_the_text_and_no_part_of_it_is_said_before(text: str, stops: list[str]) -> None:
    coder = tokenizer("byte_level")
    ids = [id for letter in text for id in coder(letter, add_special_tokens=False).input_ids]
    some = Spoken(coder, stops)
    pieces = said(some, ids)
    ends = [place for place in range(len(text)) for stop in stops if text.startswith(stop, place)]
    earliest = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
    spoken = "".join(pieces)
    assert some.stopped == bool(ends)
    if earliest is None:
        assert spoken == text
    else:
        seen = text[:earliest]  # when the first stop word was complete
        assert spoken == seen[: min(seen.find(stop) for stop in stops if stop in seen)]


def test_the_beginning_of_a_stop_word_waits() -> None:
    coder = tokenizer("byte_level")
    some = Spoken(coder, ["xyz"])
    letters = [coder(letter, add_special_tokens=False).input_ids[0] for letter in "axyxa"]
    assert [some.add(id) for id in letters] == ["a", "", "", "xy", "xa"]
    assert not some.stopped


@pytest.mark.parametrize(("text", "rest"), [(" yes", "yes"), ("yes", "yes"), ("  yes", " yes"), (" ", "")])
def test_what_the_template_writes_before_an_answer_is_left_out(text: str, rest: str) -> None:
    coder = tokenizer("byte_level")
    ids = [id for letter in text for id in coder(letter, add_special_tokens=False).input_ids]
    assert "".join(said(Spoken(coder, gap=" "), ids)) == rest


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_bytes_of_tokens_are_those_of_the_text(kind: str) -> None:
    coder = tokenizer(kind)
    ids = coder("🙂猫", add_special_tokens=False).input_ids
    assert b"".join(token_text(coder, id)[1] for id in ids).decode().strip() == "🙂猫"
