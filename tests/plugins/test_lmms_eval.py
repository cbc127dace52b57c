"""The lmms-eval plug-in says what Bunny says, in the kit's order."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.pipeline.answering import open_folder
from tests.pipeline.test_answering import save_bunny

pytestmark = pytest.mark.usefixtures("lmms_eval")
RED, BLUE = (Image.new("RGB", (24, 24), colour) for colour in ("red", "blue"))
ASKED = [("what is this?", RED), ("x", BLUE), ("is it red?", RED.copy()), ("a longer question", BLUE)]


def message(doc: tuple[str, Any]) -> list[dict[str, Any]]:
    """What the kit makes of a document: a picture, then its words, which may repeat the picture's mark."""
    return [
        {
            "role": "user",
            "content": [{"type": "image", "url": doc[1]}, {"type": "text", "text": f"<image>\n{doc[0]}"}],
        }
    ]


def requests(kwargs: dict[str, Any], make: Any = message) -> list[Any]:
    return [SimpleNamespace(args=("", make, dict(kwargs), row, "task", "test")) for row in range(len(ASKED))]


@pytest.fixture
def chat(tmp_path: Path) -> Any:
    """The kit's model around a tiny Bunny."""
    made = importlib.import_module("bunny.plugins.lmms_eval").BunnyChat(pretrained=str(save_bunny(tmp_path)))
    made.task_dict = {"task": {"test": ASKED}}
    return made


def test_the_entry_point_names_a_class_that_the_kit_accepts(tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    name, function = declared["lmms_eval.models"]["bunny"].split(":")
    manifest = getattr(importlib.import_module(name), function)()
    place, _, kind = manifest.chat_class_path.rpartition(".")
    assert manifest.model_id == "bunny"
    assert getattr(importlib.import_module(place), kind).is_simple is False


def test_answers_come_in_the_order_of_the_requests_as_bunny_gives_them(chat: Any) -> None:
    said = chat.generate_until(requests({"max_new_tokens": 6, "temperature": 0, "do_sample": False}))
    shown = {"red": RED, "blue": BLUE}
    asked = [
        Question(str(row), text, (ImageRef("red" if row % 2 == 0 else "blue"),), ())
        for row, (text, _) in enumerate(ASKED)
    ]
    answers = chat.who.answerer(GenerationSettings(6), lambda ref: shown[ref.path]).answer(asked)
    assert said == [text for _, text in sorted((answer.id, answer.text) for answer in answers)]
    assert len(set(said)) > 1


def test_equal_pictures_are_encoded_once(chat: Any) -> None:
    calls = []
    encode = chat.who.processor.pixels
    object.__setattr__(chat.who.processor, "pixels", lambda images: calls.append(len(images)) or encode(images))
    chat.generate_until(requests({"max_new_tokens": 2}))
    assert sum(calls) == 2  # of four questions about two pictures


def test_requests_with_other_settings_are_answered_by_themselves(chat: Any) -> None:
    mixed = requests({"max_new_tokens": 6})
    mixed[1].args[2]["max_new_tokens"] = 1
    alone = chat.generate_until(requests({"max_new_tokens": 6}))
    said = chat.generate_until(mixed)
    assert [said[0], *said[2:]] == [alone[0], *alone[2:]]
    assert len(said[1]) <= len(alone[1])


def test_an_answer_ends_before_the_tasks_stop_word(chat: Any) -> None:
    whole = chat.generate_until(requests({"max_new_tokens": 8}))
    stop = whole[0][1:3]
    assert stop and chat.generate_until(requests({"max_new_tokens": 8, "until": [stop]}))[0] == whole[0][:1].strip()


def test_a_setting_without_a_meaning_here_is_named(chat: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="bunny"):
        chat.generate_until(requests({"max_new_tokens": 1, "image_aspect_ratio": "original"}))
    assert "not used: image_aspect_ratio" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [([{"type": "video", "url": "a.mp4"}], "kind video"), (None, "2 messages")],
    ids=["a film", "two messages"],
)
def test_what_a_bunny_cannot_be_asked_is_refused(chat: Any, content: Any, said: str) -> None:
    def made(doc: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": content}] if content else message(doc) * 2

    with pytest.raises(UserError, match=said):
        chat.generate_until(requests({}, made))


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until_multi_round"])
def test_other_kinds_of_tasks_are_refused(chat: Any, kind: str) -> None:
    with pytest.raises(UserError, match="under lmms-eval"):
        getattr(chat, kind)([])


def test_the_folder_is_opened_as_bunny_eval_opens_it(chat: Any, tmp_path: Path) -> None:
    assert chat.who.name == open_folder(tmp_path / "model").name
