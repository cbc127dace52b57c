"""Words are found in the text of a picture, and a "no" is asked only where it is surely true."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bunny.data.words import WordList, load_words

DEMO_WORDS = Path(__file__).parents[2] / "demo" / "words.yaml"
RULES = """
ignore_titles: [clipart by]
ignore_folders: [icons]
words:
  animal: {also: [animals, bear], folders: [animals]}
  bird: {also: [birds, duck], implies: [animal]}
  dog: {also: [dogs], except: [hot dog], implies: [animal]}
  tree: {also: [trees, palm tree], folders: [plants/trees], confusable: [flower]}
  flower: {also: [flowers]}
"""


@pytest.fixture
def words(tmp_path: Path) -> WordList:
    path = tmp_path / "words.yaml"
    path.write_text(RULES, encoding="utf-8")
    return load_words(path)


def test_finds_plurals_and_kinds_in_any_case(words: WordList) -> None:
    assert words.words_of("Two DUCKS-01, duck_b", [], "", "") == ["animal", "bird"]


def test_matches_whole_words_only(words: WordList) -> None:
    assert words.words_of("Treehouse dogma bearing", [], "", "") == []


def test_a_form_of_several_words_stands_in_one_field(words: WordList) -> None:
    assert words.words_of("palm", ["tree-top"], "", "") == ["tree"]
    assert words.words_of("palm", ["treetop"], "", "") == []
    assert words.words_of("Palm Tree", [], "", "") == ["tree"]


def test_finds_words_in_keywords_folder_and_file_name(words: WordList) -> None:
    assert words.words_of("", ["dog"], "", "") == ["animal", "dog"]
    assert words.words_of("", [], "", "plants/trees/evergreen") == ["tree"]
    assert words.words_of("", [], "", "plants/treeshrews") == []
    assert words.words_of("", [], "", "", "flower_02") == ["flower"]


def test_a_form_that_rules_a_word_out_wins(words: WordList) -> None:
    assert words.words_of("Hot dog", ["dog"], "", "food") == []


def test_a_description_rules_words_out_but_adds_none(words: WordList) -> None:
    assert words.words_of("", [], "a flower", "") == []
    assert words.words_of("dog", [], "a hot dog with mustard", "") == []


def test_the_title_of_a_series_is_not_read(words: WordList) -> None:
    assert words.words_of("Clipart by N. N. - dog_04", [], "", "", "tree") == ["tree"]


def test_pictures_in_ignored_folders_have_no_words(words: WordList) -> None:
    assert words.words_of("dog", ["tree"], "", "icons/theme") == []


def test_no_is_fair_for_another_known_kind(words: WordList) -> None:
    assert words.may_ask_no("bird", ["animal", "dog"])
    assert words.may_ask_no("flower", ["dog", "animal"])


def test_no_is_never_asked_of_a_present_word(words: WordList) -> None:
    assert not words.may_ask_no("dog", ["animal", "dog"])


def test_no_is_never_asked_of_a_confusable_word_either_way(words: WordList) -> None:
    assert not words.may_ask_no("flower", ["tree"])
    assert not words.may_ask_no("tree", ["flower"])


def test_no_is_never_asked_of_a_picture_without_words(words: WordList) -> None:
    assert not words.may_ask_no("dog", [])


def test_no_is_never_asked_of_a_kind_where_only_the_broad_word_is_known(words: WordList) -> None:
    assert not words.may_ask_no("bird", ["animal"])


def test_a_relation_to_a_word_without_a_rule_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("words: {dog: {implies: [pet]}}", encoding="utf-8")
    with pytest.raises(ValueError, match="'dog' names \\['pet'\\]"):
        load_words(path)


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("words: {dog: {synonyms: [hound]}}", encoding="utf-8")
    with pytest.raises(ValidationError, match="synonyms"):
        load_words(path)


def test_the_demo_words_load_and_broad_words_are_closed() -> None:
    demo = load_words(DEMO_WORDS)
    assert 30 <= len(demo.words) <= 60
    for rule in demo.words.values():
        for broad in rule.implies:
            assert set(demo.words[broad].implies) <= set(rule.implies)
