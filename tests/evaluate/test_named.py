"""Benchmarks on named pictures: what they ask is true, balanced, the same every time, and drawn once."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.recipe import find
from bunny.core.types import Question
from bunny.evaluate import BENCHMARKS, Blind, evaluate, majority, shuffled
from bunny.evaluate.colours import HUES, colour_of
from bunny.evaluate.made_up import THINGS, named_pictures
from bunny.evaluate.named import chinese, one_of
from bunny.evaluate.sheets import SIDE
from bunny.evaluate.text_metrics import anls, edits
from tests.evaluate.stubs import Stub, gold

DRAWN = ("counting", "position", "reading")
ALL = (*DRAWN, "choice", "colour")
DEMO = Path(__file__).parents[2] / "demo"


def made(name: str, folder: Path, **settings: Any) -> Any:
    example = find(name, BENCHMARKS, "test").example(folder)  # type: ignore[attr-defined]
    return type(example).model_validate({**example.model_dump(), **settings})


def pixels(question: Question) -> np.ndarray:  # type: ignore[type-arg]
    (image,) = question.images
    content = pq.read_table(image.path).column("image")[int(image.member)].as_py()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def cells(picture: np.ndarray) -> dict[tuple[int, int], str]:  # type: ignore[type-arg]
    """(column, line) -> the thing whose colour is there, seen in the pixels alone."""
    found = {}
    for line in range(picture.shape[0] // SIDE):
        for column in range(picture.shape[1] // SIDE):
            middle = picture[line * SIDE + SIDE // 2, column * SIDE + SIDE // 2].astype(int)
            for word, colour in THINGS.items():
                if np.abs(middle - colour).sum() < 30:
                    found[column, line] = word
    return found


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ALL)
def test_whoever_sees_is_right_and_whoever_does_not_is_at_chance(name: str, language: str, tmp_path: Path) -> None:
    benchmark = made(name, tmp_path, language=language, sets=4)
    constants = {question.gold[0] for question in benchmark.questions()}
    seeing = evaluate(benchmark, Stub(gold), baselines={"blind": Blind(Stub(lambda _: "?"))})
    assert seeing.result.headline.score == 100 and seeing.result.baselines["blind"].score == 0
    most = {"counting": 20, "position": 25, "reading": 50, "choice": 0, "colour": 100 / 3}[name]
    for constant in constants:
        score = evaluate(benchmark, Stub(lambda _, said=constant: said)).result.headline.score  # type: ignore[misc]
        assert score <= most + 1e-9


@pytest.mark.parametrize("name", ["counting", "position"])
def test_the_words_alone_tell_nothing(name: str, tmp_path: Path) -> None:
    answers = defaultdict(Counter)  # type: ignore[var-annotated]
    for question in made(name, tmp_path, sets=6).questions():
        answers[question.prompt][question.gold[0]] += 1
    assert all(len(set(counts.values())) == 1 and len(counts) in (4, 5) for counts in answers.values())


def test_choices_alone_tell_nothing(tmp_path: Path) -> None:
    answers = defaultdict(Counter)  # type: ignore[var-annotated]
    for question in made("choice", tmp_path, sets=2).questions():
        answers[question.prompt][question.gold[0]] += 1
    assert all(set(counts) == set("ABC") and len(set(counts.values())) == 1 for counts in answers.values())


def test_a_choice_counts_only_if_it_is_right_in_every_order(tmp_path: Path) -> None:
    benchmark = made("choice", tmp_path)
    result = evaluate(benchmark, Stub(lambda question: "A")).result
    assert result.headline.score == 0 and result.scores["vanilla"].score == pytest.approx(100 / 3)


def test_the_sheets_show_as_many_things_as_the_gold_says(tmp_path: Path) -> None:
    benchmark = made("counting", tmp_path)
    benchmark.prepare()
    for question in benchmark.questions():
        word = question.id.split(":")[0]
        seen = Counter(cells(pixels(question)).values())
        assert seen[word] == int(question.gold[0]) and sum(seen.values()) == 6


def test_things_stand_where_the_gold_says(tmp_path: Path) -> None:
    benchmark = made("position", tmp_path)
    benchmark.prepare()
    for question in benchmark.questions():
        places = {word: place for place, word in cells(pixels(question)).items()}
        one, other = (question.id.split(":")[at][:-1] for at in (0, 1))
        (x, y), (u, v) = places[one], places[other]
        (answer,) = [
            name for name, true in {"left": x < u, "right": x > u, "above": y < v, "below": y > v}.items() if true
        ]
        assert answer == question.gold[0]


def test_words_are_written_in_black_over_pictures_of_other_things(tmp_path: Path) -> None:
    benchmark = made("reading", tmp_path)
    benchmark.prepare()
    for question in benchmark.questions():
        picture = pixels(question)
        assert (picture.max(axis=2) < 60).sum() > 50  # ink
        shown = question.id.split(":")[-1][:-1]
        assert question.gold[0] != shown


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_drawn_once_and_the_same_every_time(name: str, tmp_path: Path) -> None:
    first = made(name, tmp_path / "a")
    first.prepare()
    path = Path(first.questions()[0].images[0].path)
    stamp, content = path.stat().st_mtime_ns, path.read_bytes()
    first.prepare()
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    first.prepare()
    assert path.read_bytes() == content and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("name", DRAWN)
def test_other_settings_are_other_pictures(name: str, tmp_path: Path) -> None:
    one, other = made(name, tmp_path), made(name, tmp_path, seed=1)
    assert one.questions()[0].images[0].path != other.questions()[0].images[0].path
    named_pictures(tmp_path)
    assert one.questions() == made(name, tmp_path).questions()


@pytest.mark.parametrize("name", ALL)
def test_things_that_training_never_saw_are_scored_apart(name: str, tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(yaml.safe_dump({"words": {"dog": {}, "car": {}}}))
    trained = {"trained": tmp_path / "words.yaml", "sets": 6}
    everything = made(name, tmp_path, **trained)
    groups = {bool(question.meta["seen"]) for question in everything.questions()}
    result = evaluate(everything, Stub(gold)).result
    assert result.scores["unseen"].score == 100 and (groups == {True, False} or name == "position")
    options = {"options": 2} if name == "choice" else {}
    held_out = made(name, tmp_path, split="unseen", **trained, **options)
    if name != "counting":
        words = {question.prompt for question in held_out.questions()}
        assert words and not any("dog" in text.split("?")[0] for text in words)
    assert {bool(question.meta["seen"]) for question in held_out.questions()} == {False}


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_ask_about_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture of one nameable thing"):
        made(name, tmp_path, words=("zebra",)).questions()


def test_chinese_is_drawn_only_with_a_font_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be drawn in Chinese"):
        made("reading", tmp_path, written="zh").questions()


@pytest.mark.parametrize(
    ("text", "value", "status"),
    [
        ("left", "left", "ok"),
        ("On the left of it.", "left", "fallback"),
        ("left or right", "", "malformed"),
        ("在气球的左边", "left", "fallback"),
        ("上方", "above", "ok"),
        ("?!", "", "empty"),
        ("nowhere", "", "malformed"),
    ],
)
def test_closed_answers_are_read(text: str, value: str, status: str) -> None:
    from bunny.evaluate.benchmarks.position import FORMS

    read = one_of(text, FORMS)
    assert (read.value, read.status) == (value, status)
    assert one_of(read.value, FORMS).value == value


def test_a_form_inside_a_longer_one_does_not_count() -> None:
    assert one_of("一只气球", {"球": "ball", "气球": "balloon"}).value == "balloon"


def test_counts_are_read_as_figures_and_words(tmp_path: Path) -> None:
    from bunny.evaluate.benchmarks.counting import FORMS

    for text, value in (("3", "3"), ("Three.", "3"), ("There are two", "2"), ("三张", "3"), ("两", "2"), ("10", "")):
        assert one_of(text, FORMS).value == value


@pytest.mark.parametrize("name", HUES)
def test_a_pure_colour_is_named_and_doubt_is_not(name: str) -> None:
    low, high = HUES[name]
    middle = ((low + high + (360 if low > high else 0)) / 2) % 360
    hsv = Image.new("HSV", (40, 40), (round(middle * 256 / 360), 220, 240))
    assert colour_of(hsv.convert("RGB")) == name
    between = Image.new("HSV", (40, 40), (round((high + 5) * 256 / 360) % 256, 220, 240))
    assert colour_of(between.convert("RGB")) is None
    half = hsv.convert("RGB")
    half.paste((20, 200, 200), (0, 0, 20, 40))
    assert colour_of(half) is None
    assert colour_of(Image.new("RGB", (40, 40), (120, 120, 120))) is None


def test_edit_distance_agrees_with_its_definition() -> None:
    def slow(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        rest = slow(one[1:], other[1:]) + (one[0] != other[0])
        return min(rest, slow(one[1:], other) + 1, slow(one, other[1:]) + 1)

    rng = np.random.default_rng(0)
    for _ in range(60):
        one, other = ("".join(rng.choice(list("abc"), rng.integers(6))) for _ in range(2))
        assert edits(one, other) == slow(one, other)
    assert anls("", "hat") == anls("hat", "") == 0


@pytest.mark.skipif(not (DEMO / "heldout.parquet").is_file(), reason="the demo's held-out pictures are not here")
@pytest.mark.parametrize("name", ALL)
def test_the_demos_held_out_pictures_give_questions(name: str, tmp_path: Path) -> None:
    kind = find(name, BENCHMARKS, "test")
    drawn = {"cache": tmp_path} if name in DRAWN else {}
    settings = {"path": DEMO / "heldout.parquet", "sets": 10, **drawn}
    english = kind.model_validate(settings).questions()  # type: ignore[attr-defined]
    asked: Sequence[Question] = kind.model_validate({**settings, "language": "zh"}).questions()  # type: ignore[attr-defined]
    assert len(asked) == len(english) >= 12 and all(any("一" <= letter <= "鿿" for letter in q.prompt) for q in asked)
    assert len({question.group for question in english}) >= 5


def test_every_word_of_the_demo_has_a_chinese_name() -> None:
    words = yaml.safe_load((DEMO / "words.yaml").read_text(encoding="utf-8"))["words"]
    assert set(words) <= chinese().keys() and len(set(chinese().values())) == len(chinese())


@pytest.mark.parametrize("name", ALL)
def test_the_most_frequent_answer_is_at_chance(name: str, tmp_path: Path) -> None:
    benchmark = made(name, tmp_path, sets=4)
    model = Stub(gold)
    outcome = evaluate(benchmark, model, baselines={"majority": majority(benchmark)})
    most = {"counting": 20, "position": 25, "reading": 50, "choice": 0, "colour": 100 / 3}[name]
    assert outcome.result.baselines["majority"].score <= most + 1e-9


def test_wrong_pictures_can_be_shown(tmp_path: Path) -> None:
    benchmark = made("position", tmp_path)
    model = Stub(gold)
    outcome = evaluate(benchmark, model, baselines={"shuffled": shuffled(model, benchmark.questions())})
    assert outcome.baselines["shuffled"].result.n == len(benchmark.questions())
