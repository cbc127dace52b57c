"""Conversations made from pairs: right about the picture, useless to a model that cannot see it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.seeds import stream
from bunny.core.types import ImageRef, Sample, Turn
from bunny.data.makers.captions import Captions
from bunny.data.makers.choices import Choices
from bunny.data.makers.easy_vqa import EasyVqa
from bunny.data.makers.object_questions import ObjectQuestions
from bunny.data.makers.short_names import ShortNames

WORDS_FILE = """
words:
  animal: {}
  bird: {implies: [animal]}
  dog: {implies: [animal], confusable: [cat]}
  cat: {implies: [animal]}
  car: {}
  tree: {confusable: [flower]}
  flower: {}
"""


def pair(id: str, words: list[str] | None = None, **meta: Any) -> Sample:
    if words is not None:
        meta["words"] = words
    return Sample.pair(id, ImageRef(f"{id}.png"), f"caption of {id}", "pool", **meta)


def pool(count: int = 300) -> list[Sample]:
    """Pictures with one to three of twelve words, some words much more frequent than others."""
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(12)]
    likely = np.array([1.3**-number for number in range(12)])
    draw = [rng.choice(words, rng.integers(1, 4), replace=False, p=likely / likely.sum()) for _ in range(count)]
    return [pair(f"p{number}", row.tolist()) for number, row in enumerate(draw)]


def made(maker: Any, samples: list[Sample], seed: int = 0) -> list[Sample]:
    return list(maker.make(samples, stream("test", seed)))


def word_of(sample: Sample) -> str:
    return sample.turns[0].text.removeprefix("<image>\nIs there a ").removesuffix(" in the picture?")


MAKERS = {
    "captions": Captions(),
    "plain captions": Captions(plain=True),
    "object_questions": ObjectQuestions(),
    "choices": Choices(),
    "short_names": ShortNames(most_words=3),
    "easy_vqa": EasyVqa(pictures=20, per_picture=3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_all_makers_give_well_formed_conversations_with_unique_ids(name: str) -> None:
    rows = made(MAKERS[name], pool(60))
    assert rows
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert [turn.role for turn in row.turns] == ["user", "assistant"]
        assert row.turns[0].text.startswith("<image>")
        assert row.turns[0].text.count("<image>") == len(row.images) == 1
        assert row.turns[1].text.strip()


@pytest.mark.parametrize("name", MAKERS)
def test_all_makers_repeat_themselves_for_the_same_seed_only(name: str) -> None:
    assert made(MAKERS[name], pool(60)) == made(MAKERS[name], pool(60))
    if name not in ("plain captions",):
        assert made(MAKERS[name], pool(60)) != made(MAKERS[name], pool(60), seed=1)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"easy_vqa"}))
def test_no_samples_make_no_conversations(name: str) -> None:
    assert made(MAKERS[name], []) == []


def test_rows_about_a_picture_share_its_place_and_stay_together() -> None:
    rows = made(ObjectQuestions(), pool(60))
    order = list(dict.fromkeys(row.images for row in rows))
    assert [row.images for row in rows] == [images for images in order for row in rows if row.images == images]


def test_plain_captions_are_the_bare_picture_and_the_caption() -> None:
    (row,) = made(Captions(plain=True), [pair("a")])
    assert row.turns == (Turn("user", "<image>"), Turn("assistant", "caption of a"))
    assert row.id == "a/caption"


def test_captions_use_all_instructions() -> None:
    asked = Counter(row.turns[0].text for row in made(Captions(instructions=("One.", "Two.")), pool(200)))
    assert set(asked) == {"<image>\nOne.", "<image>\nTwo."}
    assert min(asked.values()) > 70


def test_pairs_without_words_are_told_not_dropped_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    samples = [pair("a"), Sample("b", (), (Turn("assistant", "x"),)), Sample("c", (ImageRef("c.png"),), ())]
    assert [row.id for row in made(Captions(), samples)] == ["a/caption"]
    assert "2 of 3 samples have no words or no picture" in caplog.text


def test_every_word_is_asked_as_often_with_yes_as_with_no() -> None:
    asked = Counter((word_of(row), row.turns[1].text) for row in made(ObjectQuestions(), pool()))
    words = {word for word, _ in asked}
    assert len(words) == 12
    assert all(asked[word, "yes"] == asked[word, "no"] > 0 for word in words)


def test_a_frequent_word_can_be_held_back() -> None:
    asked = Counter((word_of(row), row.turns[1].text) for row in made(ObjectQuestions(per_word=5), pool()))
    assert max(asked.values()) == 5
    assert all(asked[word, "yes"] == asked[word, "no"] for word, _ in asked)


def test_answers_to_object_questions_are_true_and_asked_once() -> None:
    samples = {sample.id: sample for sample in pool()}
    rows = made(ObjectQuestions(yes_per_picture=3), list(samples.values()))
    for row in rows:
        shows = word_of(row) in samples[row.id.partition("/")[0]].meta["words"]
        assert row.turns[1].text == ("yes" if shows else "no")
    assert len({(row.images, word_of(row)) for row in rows}) == len(rows)


def test_no_picture_is_asked_much_more_than_others() -> None:
    rows = made(ObjectQuestions(yes_per_picture=2), pool())
    asked = Counter(row.images for row in rows if row.turns[1].text == "no")
    assert max(asked.values()) <= 5


def test_each_wording_is_as_often_yes_as_no() -> None:
    maker = ObjectQuestions(questions=("Is there {a} {word}?", "Can you see {a} {word}?"))
    asked = Counter((row.turns[0].text[8:11], row.turns[1].text) for row in made(maker, pool()))
    assert asked["Is ", "yes"] == asked["Is ", "no"] > 100
    assert asked["Can", "yes"] == asked["Can", "no"] > 100


def test_confusable_and_broader_words_are_never_asked_for_a_no(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(WORDS_FILE)
    titles = {"d": "dog", "c": "cat", "t": "tree", "f": "flower", "k": "car", "x": "nothing known"}
    samples = [pair(f"{id}{n}", title=title) for n in range(6) for id, title in titles.items()]
    maker = make({"use": "object_questions", "words": "words.yaml"}, "bunny.data.makers", folder=tmp_path)
    said = {(row.id[0], word_of(row)) for row in made(maker, samples) if row.turns[1].text == "no"}
    assert said
    assert not said & {("d", "cat"), ("c", "dog"), ("t", "flower"), ("f", "tree"), ("d", "animal"), ("c", "animal")}
    assert not {id for id, _ in said} & {"x"}


def test_words_known_to_be_absent_are_the_only_ones_asked_for_a_no() -> None:
    samples = [pair("a", ["cat"], absent=["car"]), pair("b", ["car"], absent=[]), pair("c", ["hat"], absent=["car"])]
    rows = made(ObjectQuestions(), samples)
    assert {(row.id[0], word_of(row)) for row in rows if row.turns[1].text == "no"} <= {("a", "car"), ("c", "car")}
    assert Counter(row.turns[1].text for row in rows) == {"yes": 1, "no": 1}


def test_one_picture_gives_no_questions_because_none_could_be_a_no() -> None:
    assert made(ObjectQuestions(), [pair("a", ["cat"])]) == []


@pytest.mark.parametrize("options", [2, 4])
def test_letters_are_right_equally_often(options: int) -> None:
    letters = Counter(row.turns[1].text for row in made(Choices(options=options), pool()))
    assert len(letters) == options
    assert max(letters.values()) - min(letters.values()) <= 1


def test_choices_are_true_and_have_one_right_option() -> None:
    samples = {sample.id: sample for sample in pool()}
    rows = made(Choices(per_picture=2), list(samples.values()))
    for row in rows:
        options = dict(line.split(". ") for line in row.turns[0].text.split("\n")[2:6])
        words = samples[row.id.partition("/")[0]].meta["words"]
        assert len(set(options.values())) == 4
        assert [letter for letter, word in options.items() if word in words] == [row.turns[1].text]


def test_a_word_among_the_options_does_not_tell_that_it_is_right() -> None:
    shown: Counter[str] = Counter()
    right: Counter[str] = Counter()
    even = [pair(f"p{n}", [f"word{n % 9}"]) for n in range(360)]
    for row in made(Choices(), even):
        options = dict(line.split(". ") for line in row.turns[0].text.split("\n")[2:6])
        shown.update(options.values())
        right[options[row.turns[1].text]] += 1
    assert sum(right.values()) == 360
    assert all(abs(right[word] / shown[word] - 0.25) < 0.03 for word in shown)


def test_choices_can_ask_for_the_word_itself() -> None:
    rows = made(Choices(answer="word", suffix=""), pool(30))
    assert all(f". {row.turns[1].text}" in row.turns[0].text for row in rows)


def test_too_few_fair_words_make_no_choice() -> None:
    assert made(Choices(), [pair("a", ["cat"]), pair("b", ["dog"])]) == []


def test_names_are_asked_only_where_one_word_is_meant(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(WORDS_FILE)
    samples = [pair("a", title="a dog"), pair("b", title="dog and car"), pair("c", title="?")]
    rows = made(ShortNames(words="words.yaml", folder=tmp_path, suffix=""), samples)
    assert [(row.id, row.turns[1].text) for row in rows] == [("a/name", "dog")]


@pytest.mark.parametrize("maker", [ObjectQuestions(), Choices(), ShortNames()])
def test_pictures_without_any_known_word_are_a_user_error(maker: Any) -> None:
    with pytest.raises(UserError, match="no picture has a known word; set `words`"):
        made(maker, [pair("a")])


def test_a_words_file_that_is_not_there_or_wrong_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such words file"):
        made(ObjectQuestions(words="no.yaml", folder=tmp_path), [pair("a")])
    (tmp_path / "words.yaml").write_text("words: {cat: {confusable: [dgo]}}")
    with pytest.raises(UserError, match="dgo") as caught:
        made(ObjectQuestions(words="words.yaml", folder=tmp_path), [pair("a")])
    assert "\n" not in str(caught.value)


def test_easy_vqa_asks_the_training_split_only() -> None:
    from easy_vqa import get_train_questions

    official = {(picture, text, answer) for text, answer, picture in zip(*get_train_questions(), strict=True)}
    rows = made(EasyVqa(pictures=50, suffix=" Short."), [])
    for row in rows:
        picture = int(row.id.split("/")[1])
        question = row.turns[0].text.removeprefix("<image>\n").removesuffix(" Short.")
        assert (picture, question, row.turns[1].text) in official
        assert Path(row.images[0].path).parts[-3:] == ("train", "images", f"{picture}.png")
    assert len({row.images for row in rows}) == 50


def test_easy_vqa_reads_the_whole_split_by_default() -> None:
    rows = made(EasyVqa(), [])
    assert (len(rows), len({row.images for row in rows})) == (38_575, 4_000)


def test_easy_vqa_caps_questions_per_picture() -> None:
    rows = made(EasyVqa(pictures=50, per_picture=3), [])
    assert max(Counter(row.images for row in rows).values()) == 3
