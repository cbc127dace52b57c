"""Conversations: what is remembered, what is said again, how they are kept in files, and which models take part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bunny.core.chat import ChatEvent, ChatRequest, Finished, Piece
from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Turn
from bunny.pipeline import chat_file
from bunny.pipeline.chat import Chat, Conversation, How
from tests.infer.foreign import FOREIGN
from tests.tiny_bunny import save_bunny

GREEDY = GenerationSettings(max_new_tokens=12)
DRAWN = GenerationSettings(max_new_tokens=12, temperature=1.0)


class Echo:
    """An engine that says what it was asked, in two pieces."""

    name = "echo"

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []
        self.cancelled = 0
        self.error = self.says = ""

    def submit(self, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> Echo:
        self.asked.append(request)
        if not self.error:
            listen(Piece("said "))
            listen(Piece(self.says or request.turns[-1].text.replace("<image>\n", "")))
        listen(Finished("error" if self.error else "stop", 1, 2, error=self.error))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def talk(echo: Echo) -> Conversation:
    chat = object.__new__(Chat)
    chat.engine = echo  # type: ignore[assignment]
    return Conversation(chat, GREEDY)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 7), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def said(talk: Conversation, text: str, *images: Any) -> str:
    return "".join(talk.ask(text, images))


def test_earlier_turns_and_pictures_are_told_with_each_question(talk: Conversation, echo: Echo, picture: Path) -> None:
    talk.system = "Be brief."
    assert said(talk, "one", picture) == "said one"
    said(talk, "two")
    request = echo.asked[-1]
    assert [(turn.role, turn.text) for turn in request.turns] == [
        ("system", "Be brief."),
        ("user", "<image>\none"),
        ("assistant", "said one"),
        ("user", "two"),
    ]
    assert (len(request.images), len(set(request.image_keys))) == (1, 1)
    talk.reset()
    said(talk, "three")
    assert [turn.text for turn in echo.asked[-1].turns] == ["Be brief.", "three"]
    assert echo.asked[-1].images == ()


def test_the_same_picture_has_the_same_key_and_another_has_another(talk: Conversation, picture: Path) -> None:
    said(talk, "which?", picture, Image.open(picture), Image.new("RGB", (7, 9), "red"))
    one, same, other = (shown.key for shown in talk.pictures)
    assert one == same != other


def test_a_stopped_answer_is_remembered_as_far_as_it_went(talk: Conversation, echo: Echo) -> None:
    with closing(talk.ask("one")) as pieces:  # type: ignore[type-var]
        assert next(pieces) == "said "
    assert [turn.text for turn in talk.turns] == ["one", "said"]
    assert echo.cancelled == 1


def test_a_picture_mark_that_a_model_writes_is_no_picture_later(talk: Conversation, echo: Echo) -> None:
    echo.says = "<image> x"
    assert said(talk, "one") == "said <image> x"
    assert talk.turns[-1].text == "said [image] x"


def test_a_failed_answer_and_its_question_are_not_remembered(talk: Conversation, echo: Echo, picture: Path) -> None:
    said(talk, "one")
    echo.error = "out of memory"
    with pytest.raises(UserError, match="out of memory"):
        said(talk, "two", picture)
    assert ([turn.text for turn in talk.turns], talk.pictures) == (["one", "said one"], ())


def test_another_answer_takes_the_place_of_the_last(talk: Conversation, echo: Echo, picture: Path) -> None:
    with pytest.raises(UserError, match="no question yet"):
        list(talk.again())
    said(talk, "one")
    said(talk, "two", picture)
    assert "".join(talk.again()) == "said two"
    assert [turn.text for turn in talk.turns][2:] == ["<image>\ntwo", "said two"]
    assert (len(talk.pictures), len(echo.asked[-1].images)) == (1, 1)
    echo.error = "no"
    with pytest.raises(UserError):
        list(talk.again())
    assert len(talk.turns) == 4
    assert len(talk.pictures) == 1


def test_a_saved_conversation_comes_back_and_is_a_row_to_learn_from(talk: Conversation, picture: Path) -> None:
    talk.system = "Be brief."
    said(talk, "one", picture)
    said(talk, "two")
    path = picture.parent / "talk.json"
    chat_file.save(talk, path)
    (row,) = json.loads(path.read_text())
    assert (row["id"], row["image"]) == ("talk", "a.png")
    assert [turn["from"] for turn in row["conversations"]] == ["system", "human", "gpt", "human", "gpt"]
    other = Conversation(talk._chat, GREEDY)
    other.replace(*chat_file.load(path))
    assert other.turns == talk.turns
    assert [shown.key for shown in other.pictures] == [shown.key for shown in talk.pictures]


def test_what_cannot_be_saved_or_loaded_says_why(talk: Conversation, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to save"):
        chat_file.save(talk, tmp_path / "talk.json")
    said(talk, "one", Image.new("RGB", (3, 3)))
    with pytest.raises(UserError, match="is no file"):
        chat_file.save(talk, tmp_path / "talk.json")
    with pytest.raises(UserError, match="no such file"):
        chat_file.load(tmp_path / "talk.json")
    for text, why in [("[]", "no conversation"), ('[{"conversations": []}]', "malformed row"), ("{", "malformed json")]:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=why):
            chat_file.load(tmp_path / "x.json")


# Real models, tiny


@pytest.fixture(scope="module")
def bunny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bunny(tmp_path_factory.mktemp("model"))


WORDS_ALONE = [kind for kind in FOREIGN if kind != "paligemma"]  # whose processor refuses a question without a picture


@pytest.fixture(scope="module", params=["bunny", *WORDS_ALONE])
def model(request: pytest.FixtureRequest, bunny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Chat:
    if request.param == "bunny":
        return Chat(bunny_folder)
    folder = tmp_path_factory.mktemp(request.param)
    FOREIGN[request.param](folder)
    return Chat(folder)


def test_pieces_make_the_answer_and_a_seed_draws_it_again(model: Chat, picture: Path) -> None:
    talk = Conversation(model, DRAWN, seed=3)
    first = list(talk.ask("what is this?", [picture]))
    assert talk.last is not None
    assert talk.last.completion_tokens == 12
    assert talk.last.reason == "length"
    assert len(first) > 2
    assert "".join(talk.again()) == "".join(first)
    talk.seed = 4
    assert "".join(talk.again()) != "".join(first)


def test_beams_and_stop_words_are_heeded(model: Chat, picture: Path) -> None:
    whole = said(Conversation(model, GREEDY), "what?", picture)
    beams = Conversation(model, GenerationSettings(max_new_tokens=12, num_beams=3))
    assert said(beams, "what?", picture)
    stop = whole.strip()[len(whole.strip()) // 2 :][:2]
    cut = GenerationSettings(max_new_tokens=12, stop=(stop,))
    assert said(Conversation(model, cut), "what?", picture) == whole.partition(stop)[0]


def test_a_stopped_answer_leaves_the_model_free(model: Chat) -> None:
    talk = Conversation(model, GenerationSettings(max_new_tokens=200))
    with closing(talk.ask("what?")) as pieces:  # type: ignore[type-var]
        next(pieces)
    assert said(talk, "and?")
    assert [turn.role for turn in talk.turns] == ["user", "assistant", "user", "assistant"]


def test_a_prompt_longer_than_the_model_reads_is_refused_with_its_length(model: Chat) -> None:
    talk = Conversation(model, GREEDY)
    for beams in (1, 2):
        talk.settings = GenerationSettings(max_new_tokens=12, num_beams=beams)
        with pytest.raises(UserError, match=r"the prompt has \d+ tokens, the model reads \d+"):
            said(talk, "word " * 2000)
    assert talk.turns == ()


@pytest.mark.parametrize(("kind", "bits"), [("bunny", "4bit"), ("bunny", "8bit"), ("llava", "8bit")])
def test_packed_weights_answer_on_processors_too(bits: str, kind: str, tmp_path: Path, picture: Path) -> None:
    pytest.importorskip("bitsandbytes")
    if kind == "llava":
        FOREIGN["llava"](tmp_path / "model")
    else:
        save_bunny(tmp_path, width=64)  # four bits are packed in blocks of 64
    chat = Chat(tmp_path / "model", How(load_in=bits, device="cpu"))
    model: Any = getattr(chat.engine, "model", None) or chat.engine._generator.model  # type: ignore[attr-defined]
    packed = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")]
    assert len(packed) == 14
    assert all("language_model.layers" in name for name in packed)
    talk = Conversation(chat, GREEDY)
    assert said(talk, "what is this?", picture)
    assert said(talk, "and?")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (How(load_in="3bit"), "use 4bit or 8bit"),
        (How(load_in="4bit", dtype="float16"), "leave --dtype out"),
        (How(device="cuda:9"), "no such device here; this machine has cpu"),
        (How(device="gpu"), "no such device here"),
        (How(dtype="float8"), "did you mean `float"),
    ],
)
def test_a_way_that_this_machine_has_not_got_is_refused(bunny_folder: Path, how: How, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Chat(bunny_folder, how)


def test_without_bitsandbytes_packing_says_what_to_install(bunny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'bunny-vlm\[gpu\]'"):
        Chat(bunny_folder, How(load_in="4bit"))


@pytest.fixture
def endpoint() -> Iterator[tuple[str, Any]]:
    from tests.serve.chat_stub import Stub
    from tests.serve.running import served

    stub = Stub()
    stub.key = "s3cret"
    with served(stub.app()) as address:
        yield f"{address}v1", stub


def test_an_endpoint_takes_part_in_a_conversation(
    endpoint: tuple[str, Any], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, stub = endpoint
    monkeypatch.setenv("BUNNY_API_KEY", "s3cret")
    chat = Chat("tiny", How(endpoint=url))
    talk = Conversation(chat, GREEDY)
    assert said(talk, "what?", picture) == "tiny: [picture] what?"
    assert said(talk, "and?") == "tiny: and?"
    assert [turn["role"] for turn in stub.asked[-1]["messages"]] == ["user", "assistant", "user"]
    stub.plan = [[429]]
    with pytest.raises(UserError, match="busy or cannot be reached; try again"):
        said(talk, "more?")
    assert talk.turns[-1] == Turn("assistant", "tiny: and?")
    chat.engine.close(timeout_seconds=5)


def test_pictures_without_a_file_can_be_asked_about(talk: Conversation, echo: Echo) -> None:
    said(talk, "what?", Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert echo.asked[0].images[0].getpixel((0, 0)) == (255, 255, 255)
    assert talk.pictures[0].ref is None
    talk.replace([Turn("user", "<image>"), Turn("assistant", "b")], [])
    with pytest.raises(UserError, match=r"gone.png"):
        talk.replace([Turn("user", "<image>"), Turn("assistant", "b")], [ImageRef("gone.png")])
