"""Previews: which rows are asked, and pages that nothing in them can break."""

from __future__ import annotations

import html.parser
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Question, Sample, Turn
from bunny.train.preview import Preview, first_of_each, questions_of

HOSTILE = "</dd><script>alert(1)</script><img src=x onerror='alert(2)'> {{ 7 * 7 }} {% raw %} \x00 \u202e"


class Tags(html.parser.HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def preview(folder: Path, questions: Sequence[Question], texts: Sequence[str], **more: Any) -> Preview:
    return Preview(
        folder, "tune", lambda *_: list(texts), lambda ref: f"data:image/webp;base64,{ref}", questions, **more
    )


@pytest.mark.parametrize("place", ["question", "wanted", "answer", "name", "id"])
def test_hostile_text_stays_text(tmp_path: Path, place: str) -> None:
    value = dict.fromkeys(("question", "wanted", "answer", "id"), "plain") | {place: HOSTILE}
    asked = Question(value["id"], value["question"], (ImageRef("p"),), (value["wanted"],))
    seen = preview(tmp_path, [asked], [value["answer"]])
    seen.name = value.get("name", "tune")
    for step in (0, 10):
        page = Tags(seen.write(None, None, step).read_text(encoding="utf-8"))
    assert {"script", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert [at for tag, at in page.tags if tag == "img"] == [
        {"src": "data:image/webp;base64,p", "alt": "the picture asked about"}
    ]
    if place not in ("id",):
        assert HOSTILE.replace("\x00", "") in page.text.replace("\ufffd", "").replace("\x00", "")


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = preview(tmp_path, [Question("a", "q", (ImageRef("p"),), ("w",))], ["t"]).write(None, None, 3)
    for tag, attributes in Tags(page.read_text(encoding="utf-8")).tags:
        assert tag not in ("link", "script")
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert "href" not in attributes


def test_earlier_answers_stand_on_the_page(tmp_path: Path) -> None:
    texts = ["first words"]
    seen = preview(tmp_path, [Question("a", "q", (ImageRef("p"),), ("w",))], texts)
    seen.answer = lambda *_: list(texts)
    seen.write(None, None, 0)
    texts[0] = "later words"
    page = seen.write(None, None, 20).read_text(encoding="utf-8")
    assert page.index("later words") < page.index("step 0") < page.index("first words")


def test_a_run_that_goes_on_forgets_what_came_later(tmp_path: Path) -> None:
    seen = preview(tmp_path, [Question("a", "q", (ImageRef("p"),), ("w",))], ["t"])
    for step in (0, 10, 20):
        seen.write(None, None, step)
    seen.forget_after(10)
    assert [row["step"] for row in seen.record.read()] == [0, 10]
    assert sorted(path.stem for path in (tmp_path / "previews").iterdir()) == ["step-000000", "step-000010"]


def test_a_picture_that_cannot_be_read_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def unreadable(ref: ImageRef) -> str:
        raise UserError(f"{ref}: torn")

    seen = Preview(tmp_path, "tune", lambda *_: ["t"], unreadable, [Question("a", "q", (ImageRef("p"),), ("w",))])
    with caplog.at_level(logging.WARNING, "bunny"):
        page = [seen.write(None, None, step) for step in (1, 2)][-1].read_text(encoding="utf-8")
    assert caplog.text.count("p: torn") == 1
    assert "cannot be read" in page


def talk(id: str, pictures: Sequence[str], *texts: str) -> Sample:
    turns = [Turn("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(texts)]
    return Sample(id, tuple(ImageRef(p) for p in pictures), tuple(turns))


def test_first_rows_with_pictures_each_about_another() -> None:
    rows = [
        talk("words", [], "hello?", "hi"),
        talk("a", ["1"], "<image>\nwhat?", "this", "and?", "that"),
        talk("again", ["1"], "<image>\nwhere?", "here"),
        talk("behind", ["2"], "who is it? <image>", "me"),
        talk("two", ["3", "4"], "<image> and <image>\nsame?", "no"),
        Sample.pair("pair", ImageRef("5"), "a caption"),
        talk("more", ["6"], "<image>\nand now?", "end"),
    ]
    found = questions_of(iter(rows), 5)
    assert [(one.id, one.prompt, one.gold[0], len(one.images)) for one in found] == [
        ("a", "what?", "this", 1),
        ("behind", "who is it?", "me", 1),
        ("two", "and\nsame?", "no", 2),
        ("pair", "", "a caption", 1),
        ("more", "and now?", "end", 1),
    ]


def test_one_question_about_each_held_out_picture() -> None:
    asked = [Question(f"q{n}", "?", (ImageRef(str(n // 2)),) if n else (), ("g",)) for n in range(20)]
    assert [one.id for one in first_of_each(asked, 3)] == ["q1", "q2", "q4"]
