"""The official rules on any text: they never fail, and hold their own examples."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.evaluate.official import cmmmu_text, letters, mmmu_text, vqa_text, yes_no
from bunny.evaluate.parse import choice

PIECES = [
    "A",
    "(B)",
    "C.",
    " D ",
    "answer is",
    "the",
    "two",
    "1,000",
    "3.5",
    "'s",
    "dont",
    "\n",
    "\t",
    ". The",
    "=",
    "yes",
]
PIECES += [
    "No",
    "not",
    "none",
    "Z",
    "对",
    "不对",
    "错误",
    "是",
    "。",
    "（B）",
    "\u2028",
    "\x00",
    "\ud800",
    "１",
    "1e999",
    "nan",
]
TEXT = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
OPTIONS = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["None", "NA", "nan", "", "cat"])), min_size=1, max_size=6
)
CHOICES = OPTIONS.map(lambda options: dict(zip("ABCDEF", options, strict=False)))
FORMS = [vqa_text.vqa_eval, vqa_text.evalai, vqa_text.vlmevalkit]
SAID = [yes_no.pope, yes_no.mme, yes_no.mme_lmms_eval, yes_no.exactly, yes_no.one_of_both]
NAMED = [letters.vlmevalkit, letters.lmms_eval, mmmu_text.letter, cmmmu_text.letters]


@pytest.mark.parametrize("module", ["vqa_text", "mmmu_text", "cmmmu_text", "letters", "yes_no"])
def test_examples_in_the_docstrings_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"bunny.evaluate.official.{module}"))
    assert tried and not failed


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_normal_forms_are_lower_case_single_spaced_and_without_articles(form: Callable[[str], str], text: str) -> None:
    words = form(text).split(" ")
    assert not vqa_text.ARTICLES & set(words)
    assert form(text) == " ".join(form(text).split())


@pytest.mark.parametrize("rule", SAID, ids=lambda rule: rule.__name__)
@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_yes_and_no_are_read_the_same_again(rule: Callable[[str], str], text: str) -> None:
    value = rule(text)
    assert value in ("yes", "no", "")
    assert not value or rule(value) == value


@pytest.mark.parametrize("rule", NAMED, ids=lambda rule: f"{rule.__module__[-10:]}.{rule.__name__}")
@given(text=TEXT, choices=CHOICES)
@settings(max_examples=150, deadline=None)
def test_choices_are_read_the_same_again(rule: Callable[..., str], text: str, choices: dict[str, str]) -> None:
    value = rule(text, choices)
    assert set(value) <= {*choices, "Z", *"ABCDE"}  # lmms-eval looks for five letters, whatever there is
    assert rule(text, choices) == value
    if value and len(value) == 1 and value in choices:
        assert rule(value, choices) == value


@given(text=TEXT)
@settings(max_examples=200, deadline=None)
def test_the_strict_reading_never_guesses_between_letters(text: str) -> None:
    parsed = choice(text)
    assert parsed.value in ("", *"ABCD")
    assert choice(parsed.value).value == parsed.value
    assert choice("A, B").value == choice("A/B").value == choice("A or B").value == ""


@given(gold=st.lists(TEXT, min_size=1, max_size=3), text=TEXT)
@settings(max_examples=150, deadline=None)
def test_open_questions_never_fail(gold: list[str], text: str) -> None:
    assert mmmu_text.is_right(gold, text) in (True, False)
    assert cmmmu_text.fills(gold[0], text) in (True, False)
    assert cmmmu_text.judgement(text) in ("对", "错", "")
    assert letters.scienceqa(letters.scienceqa(text)) in (letters.scienceqa(text), "")


@given(people=st.lists(st.sampled_from(["red", "Red", "a red", "blue", "1", "one", ""]), max_size=12), said=TEXT)
@settings(max_examples=150, deadline=None)
def test_soft_accuracy_is_a_share_whatever_the_order(people: list[str], said: str) -> None:
    worth = vqa_text.vqa_eval_accuracy(people, said)
    assert 0 <= worth <= 1
    assert vqa_text.vqa_eval_accuracy(people[::-1], said) == pytest.approx(worth)


def test_a_third_of_a_point_for_each_person_that_agrees() -> None:
    people = ["red"] * 2 + ["blue"] * 8
    assert vqa_text.soft_accuracy(people, "red") == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert vqa_text.soft_accuracy(people, "blue") == 1.0
    assert vqa_text.soft_accuracy([], "red") == 0.0
