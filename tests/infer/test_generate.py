"""Answers do not depend on what else is asked at the same time, nor on how they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.core.types import GenerationSettings, ImageRef, Question, Turn
from bunny.infer.answerer import ModelAnswerer
from bunny.infer.generate import Generator, Request
from bunny.model.build import build
from bunny.text.template import Template
from tests.tiny import FAMILIES, save_language_model, save_tower


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_tower(folder / "siglip")
    for family in FAMILIES:
        save_language_model(folder / family, family)
    return folder


def generator(parts: Path, family: str = "llama", template: str = "chatml") -> Generator:
    section = ModelSection(language_model=str(parts / family), vision_tower=str(parts / "siglip"))
    kind = Template.named(template)
    return Generator(*build(section, kind.model_dump(), kind.jinja(), seed=0))


def picture(seed: int) -> Image.Image:
    noise = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


ONE, TWO = (picture(1),), (picture(2), picture(3))
QUESTIONS = ["what is this?", "is there a red circle in the picture? yes or no", "x"]


def asked(text: str, pictures: tuple[Any, ...]) -> Request:
    return Request((Turn("user", "<image>\n" * len(pictures) + text),), pictures)


SAME = [asked(text, ONE) for text in QUESTIONS]
MIXED = [asked("red?", ONE), asked("what is the colour of the circle?", ()), asked("same?", TWO), asked("x", ())]
OTHER, THIRD = (picture(5),), (picture(6),)
SEVERAL = [  # three pictures, their questions out of order
    asked("red?", ONE),
    asked("x", OTHER),
    asked("what is the colour of the circle?", OTHER),
    asked("is there a square?", ONE),
    asked("same?", THIRD),
]
SETTINGS = {
    "greedy": GenerationSettings(max_new_tokens=12),
    "penalty": GenerationSettings(max_new_tokens=12, repetition_penalty=1.3),
    "beams": GenerationSettings(max_new_tokens=8, num_beams=3),
    "beams and penalty": GenerationSettings(max_new_tokens=8, num_beams=3, repetition_penalty=1.3),
}


def ids_of(maker: Generator, requests: Sequence[Request], settings: GenerationSettings) -> list[list[int]]:
    """The ids that `answer` decodes, without their end tokens."""
    ends = set(maker._stop_ids())
    return [[id for id in ids if id not in ends] for ids in maker.answer_ids(requests, settings)]


def padded(maker: Generator, requests: Sequence[Request], settings: GenerationSettings) -> list[list[int]]:
    """The same without sharing: equal pictures in other tuples."""
    return ids_of(maker, [Request(r.turns, (*r.images,)) for r in requests], settings)


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_together_padded_and_one_by_one_give_the_same_ids(parts: Path, family: str, how: str) -> None:
    maker, settings = generator(parts, family), SETTINGS[how]
    for requests in (SAME, MIXED, SEVERAL):
        alone = [ids_of(maker, [request], settings)[0] for request in requests]
        assert ids_of(maker, requests, settings) == alone
        assert padded(maker, requests, settings) == alone
        assert any(len(ids) > 2 for ids in alone)


def test_several_pictures_are_read_in_one_pass_and_keep_their_questions(parts: Path) -> None:
    maker, seen = generator(parts), []
    encode = maker.model.model.tower_features
    maker.model.model.tower_features = lambda pixels: seen.append(len(pixels)) or encode(pixels)
    together = ids_of(maker, SEVERAL, SETTINGS["greedy"])
    assert seen == [3]
    swapped = [asked(r.turns[0].text.removeprefix("<image>\n"), OTHER if r.images is ONE else ONE) for r in SEVERAL]
    assert ids_of(maker, swapped, SETTINGS["greedy"]) != together


@pytest.mark.parametrize("template", ["bunny", "plain"])
def test_the_penalty_does_not_see_pads(parts: Path, template: str) -> None:
    maker = generator(parts, template=template)  # the end token, which pads, is in no prompt of these templates
    settings = GenerationSettings(max_new_tokens=12, repetition_penalty=3.0)
    alone = [ids_of(maker, [request], settings)[0] for request in SAME]
    assert ids_of(maker, SAME, settings) == alone
    assert padded(maker, SAME, settings) == alone


def test_requests_that_differ_before_the_picture_share_no_prefix(parts: Path) -> None:
    maker, settings = generator(parts), SETTINGS["greedy"]
    requests = [
        Request((Turn("system", "be short"), Turn("user", "<image>\nwhat?")), ONE),
        Request((Turn("user", "<image>\nwhat?"),), ONE),
        Request((Turn("user", "red?"), Turn("assistant", "yes"), Turn("user", "and <image>?")), ONE),
    ]
    alone = [ids_of(maker, [request], settings)[0] for request in requests]
    assert ids_of(maker, requests, settings) == alone


def test_a_prompt_that_ends_with_its_picture_can_be_answered(parts: Path) -> None:
    maker, settings = generator(parts, template="plain"), SETTINGS["greedy"]
    requests = [Request((Turn("user", "<image>"),), ONE)] * 2
    (alone,) = ids_of(maker, requests[:1], settings)
    assert ids_of(maker, requests, settings) == [alone, alone]


def test_a_picture_changes_the_answer(parts: Path) -> None:
    maker, settings = generator(parts), SETTINGS["greedy"]
    one, two = (ids_of(maker, [asked("what?", (picture(n),))], settings)[0] for n in (1, 9))
    assert one != two


def test_each_picture_is_encoded_once(parts: Path) -> None:
    maker, seen = generator(parts), []
    encode = maker.model.model.tower_features
    maker.model.model.tower_features = lambda pixels: seen.append(len(pixels)) or encode(pixels)
    maker.answer(SAME, SETTINGS["greedy"])
    maker.answer([asked("a", ONE), asked("b", (ONE[0], TWO[0]))], SETTINGS["greedy"])
    assert seen == [1, 2]


@pytest.mark.parametrize("how", ["greedy", "penalty", "beams"])
def test_streaming_gives_the_whole_answer(parts: Path, how: str) -> None:
    maker = generator(parts)
    for request in [*SAME, *MIXED]:
        (whole,) = maker.answer([request], SETTINGS[how])
        assert "".join(maker.stream(request, SETTINGS[how])).strip() == whole


def test_a_failure_while_streaming_reaches_the_caller(parts: Path) -> None:
    maker = generator(parts)

    def fails(**kwargs: Any) -> None:
        raise RuntimeError("no memory")

    maker.model.generate = fails
    with pytest.raises(RuntimeError, match="no memory"):
        list(maker.stream(SAME[0], SETTINGS["greedy"]))


def test_an_answer_ends_before_a_stop_word(parts: Path) -> None:
    maker = generator(parts)
    request = SAME[1]
    (whole,) = maker.answer([request], GenerationSettings(max_new_tokens=12))
    stop = whole[len(whole) // 2 :][:2]
    settings = GenerationSettings(max_new_tokens=12, stop=(stop,))
    assert maker.answer([request], settings) == [whole.partition(stop)[0].strip()]
    assert "".join(maker.stream(request, settings)) == whole.partition(stop)[0].strip()


def test_sampling_follows_its_seed_and_is_not_greedy(parts: Path) -> None:
    maker = generator(parts)
    settings = GenerationSettings(max_new_tokens=12, temperature=1.5)
    torch.manual_seed(3)
    one = maker.answer([SAME[0]], settings)
    torch.manual_seed(3)
    assert maker.answer([SAME[0]], settings) == one
    assert maker.answer([SAME[0]], SETTINGS["greedy"]) != one


def open_picture(ref: ImageRef) -> Image.Image:
    if ref.path == "bad":
        raise UserError("bad: not a picture")
    return picture(int(ref.path))


def test_an_unreadable_picture_is_an_answer_with_an_error(parts: Path) -> None:
    answerer = ModelAnswerer(generator(parts), "tiny", open_picture, SETTINGS["greedy"], batch_rows=2)
    refs = [
        (ImageRef("1"),),
        (ImageRef("bad"),),
        (),
        (ImageRef("1"),),
        (ImageRef("1"),),
        (ImageRef("2"), ImageRef("1")),
    ]
    questions = [Question(f"q{n}", f"what {n}?", images, ("x",)) for n, images in enumerate(refs)]
    answers = {answer.id: answer for answer in answerer.answer(questions)}
    assert sorted(answers) == [question.id for question in questions]
    assert (answers["q1"].text, answers["q1"].error) == ("", "bad: not a picture")
    assert all(not answer.error for id, answer in answers.items() if id != "q1")
    for question in questions:
        (alone,) = answerer.answer([question])
        assert alone == answers[question.id]
