"""The report says what was measured, and whether to believe it."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Interval
from bunny.evaluate import Blind, Outcome, evaluate, majority
from bunny.evaluate.report import html, markdown, rates, show, table, verdicts, write
from tests.evaluate.stubs import Colours, Stub, ask, gold

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="


@pytest.fixture
def outcome() -> Outcome:
    colours = Colours([ask(f"p{row // 3}", row) for row in range(90)])
    model = Stub(lambda question: gold(question) if question.id != "q5" else "", "a <model>")
    weak = Stub(lambda question: "red", "says red")
    return evaluate(colours, model, baselines={"majority": majority(colours), "blind": Blind(weak), "same": model})


def test_says_in_words_which_differences_can_be_trusted(outcome: Outcome) -> None:
    by_name = dict(zip(outcome.baselines, verdicts(outcome), strict=True))
    assert by_name["blind"].startswith("48.9 points above blind (95 % interval of the difference ")
    assert by_name["blind"].endswith("can be trusted.")
    assert by_name["same"].endswith("could be chance.")


def test_a_trusted_loss_reads_as_a_loss() -> None:
    colours = Colours([ask(f"p{row // 3}", row) for row in range(90)])
    worse = evaluate(colours, Stub(lambda _: "red"), baselines={"blind": Stub(gold)})
    (sentence,) = verdicts(worse)
    assert re.fullmatch(
        r"50\.0 points below blind \(.* difference -\d.* to -\d.*\): the difference can be trusted\.", sentence
    )


def test_markdown_holds_scores_baselines_and_readings(outcome: Outcome) -> None:
    text = markdown([outcome])
    assert "| task | model | majority | blind | same | n | unparsed | guessed | missing |" in text
    assert show(outcome.result.headline) in text and "| 90 | 1.1 % | 0.0 % | 0.0 % |" in text
    assert "90 questions about 30 pictures (or sets of them)." in text
    assert "Of 90 answers, 1 empty (1.1 %); the others could be read." in text
    assert "most frequent answer of the test questions (blue)" in text


def test_terminal_table_shows_scores_and_gains_within_80_columns(outcome: Outcome) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table([replace(outcome, result=replace(outcome.result, task="picture_yes_no"))]))
    text = console.export_text()
    rows = {
        name: next(line for line in text.splitlines() if f" {name} " in line and "score" not in line)
        for name in ("model", "blind", "same")
    }
    assert show(outcome.result.headline) in rows["model"] and "n = 90" in rows["model"]
    assert show(outcome.result.baselines["blind"]) in rows["blind"]
    assert show(outcome.gains()["blind"]) in rows["blind"] and rows["blind"].split()[-1] == "yes"
    assert rows["same"].split()[-1] == "no"


def test_task_without_a_baseline_shows_a_dash(outcome: Outcome) -> None:
    alone = evaluate(Colours(), Stub(gold))
    assert f"| colours | {show(alone.result.headline)} | – | – | – | 12 | 0.0 % | 0.0 % | 0.0 % |" in markdown(
        [outcome, alone]
    )


def test_page_is_self_contained_and_escapes_what_models_say(outcome: Outcome) -> None:
    page = html([outcome], lambda image: DOT)
    assert "a &lt;model&gt;" in page and "<model>" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "Some right answers" in page and "Worst questions" in page
    assert page.count(DOT) == 8 + 1


def test_page_shows_other_pictures_before_it_shows_one_twice(outcome: Outcome) -> None:
    shown: list[ImageRef] = []
    html([outcome], lambda image: shown.append(image) or DOT)
    assert len(set(shown)) == len(shown)


def test_unreadable_picture_does_not_stop_the_report(outcome: Outcome, caplog: pytest.LogCaptureFixture) -> None:
    def broken(image: ImageRef) -> str:
        raise UserError(f"{image}: truncated")

    assert "picture cannot be read" in html([outcome], broken)
    assert "truncated" in caplog.text


def test_writes_page_table_and_every_answer(outcome: Outcome, tmp_path: Path) -> None:
    page = write(tmp_path / "report", [outcome])
    assert page.read_text() == html([outcome])
    tasks = json.loads((page.parent / "tasks.json").read_text())
    assert set(tasks["colours"]["baselines"]) == {"majority", "blind", "same"}
    files = {path.name: len(path.read_text().splitlines()) for path in (page.parent / "answers").iterdir()}
    assert files == {f"colours{ending}.jsonl": 90 for ending in ("", ".majority", ".blind", ".same")}


def test_interval_is_shown_with_one_decimal() -> None:
    assert show(Interval(62.449, 58.05, 66.5)) == "62.4 [58.0, 66.5]"


def test_the_worst_questions_are_those_that_a_baseline_has_right() -> None:
    colours = Colours([ask(f"p{row // 3}", row) for row in range(90)])
    model = Stub(lambda question: "?!" if question.id in ("q5", "q7", "q8", "q30") else gold(question))
    weak = Stub(lambda question: gold(question) if question.id in ("q7", "q8") else "red")
    page = html([evaluate(colours, model, baselines={"weak": weak})], lambda image: DOT)
    worst = page.split("Worst questions")[1].split("<h3>")[0]
    shown = re.findall(r"Say (\w+), take (\d)", worst)
    assert shown == [("red", "1"), ("red", "2")]  # q7 before q8, which is about the same picture; q5; q30 is in no list
    assert "Some wrong answers" in page


def test_rates_of_what_was_not_read_stand_beside_the_score() -> None:
    colours = Colours([ask(f"p{row // 3}", row) for row in range(90)])
    outcome = evaluate(colours, Stub(lambda question: "" if question.id < "q2" else gold(question)))
    empty = sum(question.id < "q2" for question in colours.questions())
    assert rates(outcome) == {"unparsed": pytest.approx(100 * empty / 90), "guessed": 0, "missing": 0}
    assert f"{100 * empty / 90:.1f} %" in html([outcome])


def test_a_difference_that_could_be_chance_comes_with_what_could_be_found() -> None:
    colours = Colours([ask(f"p{row // 3}", row) for row in range(90)])
    one = Stub(lambda question: "?!" if question.id == "q5" else gold(question))
    other = Stub(lambda question: "?!" if question.id in ("q8", "q11") else gold(question))
    (sentence,) = verdicts(evaluate(colours, one, baselines={"other": other}))
    assert re.search(
        r"this could be chance; so many questions find a true difference of \d\.\d points in four of five cases\.$",
        sentence,
    )
