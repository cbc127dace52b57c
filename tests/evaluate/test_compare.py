"""Two models beside each other: flips, paired differences, and words about whether to believe them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Question
from bunny.evaluate import evaluate
from bunny.evaluate.compare import Comparison, compare
from bunny.evaluate.compare_page import html, markdown
from bunny.evaluate.report import write
from bunny.evaluate.runner import Outcome
from tests.evaluate.stubs import Colours, Stub, ask, gold

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
Says = Callable[[Question], str]


def outcome(wrong: set[int], rows: range = range(120), name: str = "colours") -> Outcome:
    """A model that is wrong on the numbered questions: four questions about each of thirty pictures."""
    colours = Colours([ask(f"p{row // 4}", row) for row in rows])
    colours.name = name
    return evaluate(colours, Stub(lambda question: "?!" if int(question.id[1:]) in wrong else gold(question)))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """B wins questions 0 to 39, loses 100, and both are wrong on 110 and 111; the second benchmark is the same."""
    same = outcome({1, 2, 3}, name="same")
    write(tmp_path / "a", [outcome({*range(40), 110, 111}), same])
    write(tmp_path / "b", [outcome({100, 110, 111}), same])
    return tmp_path / "a", tmp_path / "b"


def test_counts_which_questions_went_which_way(folders: tuple[Path, Path]) -> None:
    pair, same = compare(*folders).pairs
    assert pair.flips() == {"won": 40, "lost": 1, "both wrong": 2, "both right": 77}
    assert same.flips() == {"won": 0, "lost": 0, "both wrong": 3, "both right": 117}
    tree = compare(*folders).as_json()["tasks"]["colours"]
    assert tree["won"] == [f"q{row}" for row in range(40)] and tree["lost"] == ["q100"]


def test_the_difference_is_paired_and_corrected_and_put_in_words(folders: tuple[Path, Path]) -> None:
    pair, same = compare(*folders).pairs
    assert pair.verdict.gap.score == pytest.approx(100 * 39 / 120)
    assert pair.verdict.gap.low > 0 and pair.verdict.corrected == pytest.approx(2 * pair.verdict.p)
    words = pair.verdict.words()
    assert words.startswith("B is 32.5 points above A (95 % interval of B - A: +")
    assert words.endswith("after correction for 2 benchmarks: this can be trusted.")
    assert same.verdict.corrected == 1 and same.verdict.mark == "unsure" and same.verdict.gap.score == 0
    assert "could be chance" in same.verdict.words()


def test_the_other_way_round_is_the_same_with_the_sign_turned(folders: tuple[Path, Path]) -> None:
    there, back = compare(*folders).pairs[0].verdict, compare(*folders[::-1]).pairs[0].verdict
    assert (back.gap.score, back.gap.low, back.gap.high) == pytest.approx(
        (-there.gap.score, -there.gap.high, -there.gap.low)
    )
    assert back.p == pytest.approx(there.p) and back.mark == "worse"


def test_a_sure_difference_that_is_the_same_on_every_picture_is_believed(tmp_path: Path) -> None:
    write(tmp_path / "a", [outcome({*range(0, 120, 2)})])
    write(tmp_path / "b", [outcome(set())])
    (pair,) = compare(tmp_path / "a", tmp_path / "b").pairs
    assert pair.verdict.gap.low > 0 and pair.verdict.mark == "better"


def test_only_common_questions_are_compared_and_the_rest_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a", [outcome({0, 1}, range(100))])
    write(tmp_path / "b", [outcome({1}, range(120)), outcome(set(), name="more")])
    found = compare(tmp_path / "a", tmp_path / "b")
    (pair,) = found.pairs
    assert len(pair.rows) == 100 and pair.only == (0, 20) and pair.b.headline.score == 99
    assert "0 question(s) only in A and 20 only in B" in markdown(found) and found.alone == ["more"]


def test_kept_draws_serve_headlines_that_are_no_mean(folders: tuple[Path, Path]) -> None:
    a, _ = folders
    tasks = json.loads((a / "tasks.json").read_text())
    tasks["colours"] |= {"score": 1500.0, "low": 1400.0, "high": 1600.0}
    (a / "tasks.json").write_text(json.dumps(tasks))
    np.save(a / "draws" / "colours.npy", np.random.default_rng(0).normal(1500, 50, 2000))
    pair = compare(*folders).pairs[0]
    assert pair.a.headline.score == 1500 and pair.verdict.gap.score == pytest.approx(pair.b.headline.score - 1500)


@pytest.mark.parametrize("line", ["", "{", '{"id": "q0"}', '{"id": "q0", "points": null}', "[]"])
def test_a_file_that_is_no_scored_answers_is_told(folders: tuple[Path, Path], line: str) -> None:
    (folders[0] / "answers" / "colours.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"colours\.jsonl"):
        compare(*folders)


def test_folders_without_a_common_benchmark_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write(tmp_path / "c", [outcome(set(), name="other")])
    with pytest.raises(UserError, match="no benchmark in common"):
        compare(folders[0], tmp_path / "c")
    with pytest.raises(UserError, match="no scored answers there"):
        compare(folders[0], tmp_path)


def test_the_page_holds_every_flip_and_each_picture_once(folders: tuple[Path, Path]) -> None:
    asked: list[ImageRef] = []

    def dot(image: ImageRef) -> str:
        asked.append(image)
        return DOT

    page = html(compare(*folders), dot)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    kinds = [row["kind"] for row in data["questions"] if row["task"] == "colours"]
    assert (kinds.count("won"), kinds.count("lost"), kinds.count("both wrong")) == (40, 1, 2)
    assert len(asked) == len(set(asked)) == len(data["pictures"])


def test_what_a_model_says_stays_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    colours = Colours()
    write(tmp_path / "a", [evaluate(colours, Stub(lambda _: evil))])
    write(tmp_path / "b", [evaluate(colours, Stub(gold))])
    page = html(compare(tmp_path / "a", tmp_path / "b"))
    assert evil not in page and "<img src=x" not in page and page.count("</script>") == 2


def test_markdown_names_both_and_shows_the_table(folders: tuple[Path, Path]) -> None:
    found: Comparison = compare(*folders)
    text = markdown(found)
    assert text.startswith("A: a  \nB: b\n")
    assert "| task | n | A | B | B − A | p | detectable | won | lost | both wrong |" in text
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["correction"] == "Holm"
