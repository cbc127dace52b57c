"""The page of a comparison in a real browser: filters, search, pictures, and nothing found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.types import ImageRef, Question
from bunny.evaluate import evaluate
from bunny.evaluate.report import write
from tests.evaluate.golden import HERE
from tests.evaluate.stubs import Colours, Stub, gold
from tests.serve.browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome here (BUNNY_CHROMIUM names one)")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Thirty pictures with four questions each, of two kinds: B wins 40, loses 20, both are wrong on 10."""
    questions = []
    for row in range(120):
        picture = tmp_path / f"p{row // 4}.png"
        Image.new("RGB", (40, 30), (8 * (row // 4), 90, 160)).save(picture)
        word, kind = ("red", "odd") if row % 2 else ("blue", "even")
        asked = Question(f"q{row}", f"Say {word}, take {row}.", (ImageRef(str(picture)),), (word,), str(row // 4))
        questions.append(Question(asked.id, asked.prompt, asked.images, asked.gold, asked.group, {"kind": kind}))

    def says(wrong: Callable[[int], bool]) -> Stub:
        return Stub(lambda question: "<b>green</b>" if wrong(int(question.id[1:])) else gold(question))

    write(tmp_path / "a", [evaluate(Colours(questions), says(lambda row: row < 40 or 60 <= row < 70))])
    write(tmp_path / "b", [evaluate(Colours(questions), says(lambda row: 60 <= row < 90))])
    ran = CliRunner().invoke(
        app, ["eval", "compare", *map(str, (tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c"))]
    )
    assert ran.exit_code == 0, ran.output
    assert "colours: B is 16.7 points above A" in ran.stdout and str(tmp_path / "c" / "compare.html") in ran.stdout
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["tasks"]["colours"]["flips"]["won"] == 40
    return tmp_path / "c" / "compare.html"


@pytest.fixture
def browser(page: Path) -> Iterator[Browser]:
    program = chromium()
    assert program
    with Browser(program, 1200, 900) as opened:
        opened.open(page.as_uri())
        yield opened


def count(browser: Browser) -> str:
    return str(browser.run("document.getElementById('count').textContent"))


def choose(browser: Browser, id: str, value: str) -> None:
    element = f"document.getElementById('{id}')"
    browser.run(f"{element}.value = {value!r}; {element}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    browser.run(f"{element}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def test_filters_by_kind_category_and_words(browser: Browser, tmp_path: Path) -> None:
    assert count(browser) == "60 of 70 questions"
    assert browser.run("document.querySelectorAll('figure.won').length") == 40
    browser.run("document.querySelector('[value=lost]').click()")
    assert count(browser) == "40 of 70 questions"
    browser.run("document.querySelector('[value=\"both wrong\"]').click()")
    assert count(browser) == "50 of 70 questions"
    choose(browser, "category", "odd")
    assert count(browser) == "25 of 70 questions"
    choose(browser, "search", "TAKE 1")
    assert count(browser) == "9 of 70 questions"  # both words: 1, 11, 13, 15, 17, 19, 21, 31, 61
    choose(browser, "search", "nobody said this")
    assert count(browser) == "0 of 70 questions"
    assert browser.run("document.querySelectorAll('figure').length") == 0
    assert browser.complaints() == []


def test_pictures_are_shown_and_answers_are_text(browser: Browser) -> None:
    assert browser.wait("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.run("document.querySelectorAll('figure img').length") == 60
    assert browser.run("document.querySelector('figure .no').textContent") == "<b>green</b>"
    assert browser.run("document.querySelectorAll('figure b').length") == 0
    assert (
        browser.run("performance.getEntriesByType('resource').filter(one => one.name.startsWith('http')).length") == 0
    )


def test_more_is_shown_on_demand_and_the_page_fits_a_phone(browser: Browser) -> None:
    browser.run("document.querySelector('[value=\"both wrong\"]').click()")
    assert browser.run("document.querySelectorAll('figure').length") == 60
    browser.run("document.getElementById('more').click()")
    assert browser.run("document.querySelectorAll('figure').length") == 70
    assert browser.run("document.getElementById('more').hidden")
    browser.resize(380, 800)
    assert browser.run("document.documentElement.scrollWidth <= 380")


def test_answer_files_of_a_published_benchmark_are_compared(tmp_path: Path) -> None:
    folder = HERE / "pope" / "a"
    rows = [json.loads(line) for line in (folder / "preds/answers.jsonl").read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({**row, "text": "Yes"}) + "\n" for row in rows))
    words = [folder / "preds/answers.jsonl", other, "-t", "pope", "--data", folder / "data", "--json"]
    ran = CliRunner().invoke(app, ["eval", "compare", *map(str, words)])
    assert ran.exit_code == 0, ran.output
    task = json.loads(ran.stdout)["tasks"]["pope"]
    assert sum(task["flips"].values()) == task["n"] > 0
    assert 0 <= task["p_corrected"] <= 1 and task["words"].startswith("B is ")
