"""Parsers read any string: never an exception, never a second opinion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.evaluate.parse import choice, normalise, words, yes_no

ANYTHING = st.text(st.characters(exclude_categories=())) | st.text("aAbBcCdD()., :\nnoyes'。（Ａ）")


@given(ANYTHING)
def test_any_string_is_read_without_an_exception_and_reading_again_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    for read in (words, yes_no, choice):
        parsed = read(text)
        assert parsed.status in ("ok", "fallback", "empty", "malformed")
        assert parsed.value or parsed.status in ("empty", "malformed")
        assert read(parsed.value).value == parsed.value


@given(ANYTHING)
def test_only_texts_without_a_letter_or_digit_are_empty(text: str) -> None:
    assert (words(text).status == "empty") == (yes_no(text).status == "empty") == (choice(text).status == "empty")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" Yes.", "yes"),
        ("NO, it is not", "no"),
        ("yes", "yes"),
        ("**No**", "no"),
        ("Ｙｅｓ", "yes"),
        ("no\n\nyes", "no"),
    ],
)
def test_yes_no_reads_the_first_word(text: str, value: str) -> None:
    assert (yes_no(text).value, yes_no(text).status) == (value, "ok")


@pytest.mark.parametrize("text", ["yesterday", "There is no dog", "nope", "I think yes", "not"])
def test_yes_no_does_not_guess(text: str) -> None:
    assert (yes_no(text).value, yes_no(text).status) == ("", "malformed")


@pytest.mark.parametrize("text", ["", "  \n", "...", "?!", "\u200b"])
def test_nothing_said_is_empty(text: str) -> None:
    assert {yes_no(text).status, words(text).status, choice(text).status} == {"empty"}


@pytest.mark.parametrize("text", ["B", "b", "(B)", "b.", "B. a dog", "B: a dog", "B) A cat", " （Ｂ） "])
def test_choice_reads_a_letter_at_the_start(text: str) -> None:
    assert (choice(text).value, choice(text).status) == ("B", "ok")


@pytest.mark.parametrize(
    "text", ["The answer is B.", "Answer: B", "I choose option B because", "A dog, so B", "B a dog", "It is (B)"]
)
def test_choice_falls_back_to_the_only_letter(text: str) -> None:
    assert (choice(text).value, choice(text).status) == ("B", "fallback")


@pytest.mark.parametrize("text", ["A dog", "A or B", "Bad", "E", "dog", "both A and C"])
def test_choice_does_not_guess(text: str) -> None:
    assert (choice(text).value, choice(text).status) == ("", "malformed")


def test_normalising_drops_case_and_punctuation_only() -> None:
    assert normalise(" A  Red,\tcircle! ") == "a red circle"
    assert normalise("红色 圆。") == "红色 圆"
