"""Models of other kinds answer by their own processor and template; together as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.infer.any_model import AnyAnswerer, load_any
from bunny.infer.any_processor import pictures_only
from tests.infer.foreign import FOREIGN
from tests.infer.test_generate import open_picture
from tests.tiny import save_language_model

ASKED: list[tuple[str, tuple[str, ...]]] = [
    ("what is this?", ("1",)),
    ("x", ()),
    ("is there a red circle in the picture? yes or no", ("2",)),
    ("red?", ("1",)),
    ("same?", ("2", "1")),
    ("what?", ("bad",)),
    ("a longer one", ()),
]
QUESTIONS = [Question(f"q{n}", text, tuple(map(ImageRef, refs)), ()) for n, (text, refs) in enumerate(ASKED)]


def answerer(folder: Path, **settings: Any) -> AnyAnswerer:
    parts = load_any(folder, torch.float32, torch.device("cpu"))
    return AnyAnswerer(*parts, "tiny", open_picture, GenerationSettings(max_new_tokens=8, **settings), batch_rows=3)


def said(one: AnyAnswerer, questions: Sequence[Question]) -> dict[str, str]:
    return {answer.id: answer.text or answer.error for answer in one.answer(questions)}


@pytest.mark.parametrize("kind", FOREIGN)
def test_together_and_one_by_one_give_the_same_answers(tmp_path: Path, kind: str) -> None:
    FOREIGN[kind](tmp_path)
    one = answerer(tmp_path)
    together = said(one, QUESTIONS)
    assert together["q5"] == "bad: not a picture"
    assert together == {id: text for question in QUESTIONS for id, text in said(one, [question]).items()}
    assert len(set(together.values())) > 3


def test_an_answer_ends_before_a_stop_word(tmp_path: Path) -> None:
    FOREIGN["llava"](tmp_path)
    (whole,) = said(answerer(tmp_path), QUESTIONS[:1]).values()
    stop = whole[len(whole) // 2 :][:2]
    assert list(said(answerer(tmp_path, stop=(stop,)), QUESTIONS[:1]).values()) == [whole.partition(stop)[0].strip()]


def test_a_model_without_eyes_is_refused_in_one_line(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    with pytest.raises(UserError, match="no image-text model that transformers opens"):
        answerer(tmp_path)


def test_a_processor_without_a_template_is_refused(tmp_path: Path) -> None:
    FOREIGN["llava"](tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        answerer(tmp_path)


@pytest.mark.parametrize(
    ("said", "package"),
    [
        ("Lfm2VlImageProcessor requires the Torchvision library but it was not found", "torchvision"),
        ("Package `num2words` is required to run SmolVLM processor.", "num2words"),
    ],
)
def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, said: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise ImportError(said)

    FOREIGN["llava"](tmp_path)
    monkeypatch.setattr("bunny.infer.any_model.load_processor", fails)
    with pytest.raises(UserError, match=f"needs the package {package}; pip install {package}"):
        answerer(tmp_path)


def test_a_processor_that_cannot_do_without_its_part_for_films_asks_for_torchvision() -> None:
    class Films:
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["video_processor", "tokenizer"]

    with pytest.raises(ImportError, match="requires the Torchvision library"):
        pictures_only(Films)
