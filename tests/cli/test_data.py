"""`bunny data`: what it prints, how it ends, with tiny sets on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bunny.cli import app
from tests.data.published import make_parts, row, use_tiny_sets, write

Bunny = Callable[..., Result]


@pytest.fixture
def bunny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    """Runs a command line in a folder with the tiny sets; their facts stand for the real ones."""
    monkeypatch.delenv("BUNNY_DATA", raising=False)
    use_tiny_sets(tmp_path / "facts", monkeypatch)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["-q", "data", *map(str, words)])


def test_list_shows_every_set_and_the_next_command(bunny: Bunny) -> None:
    shown = bunny("list")
    assert shown.exit_code == 0
    assert [line.split() for line in shown.stdout.splitlines()[1:4]] == [
        ["both", "5", "unknown", "lab/both"],
        ["one", "3", "unknown", "lab/one"],
        ["two", "~2", "unknown", "lab/two"],
    ]
    assert shown.stdout.splitlines()[-1].startswith("Try next: bunny data check")
    assert [one["name"] for one in json.loads(bunny("list", "--json").stdout)] == ["both", "one", "two"]


def test_check_of_a_whole_set_ends_well(bunny: Bunny, tmp_path: Path) -> None:
    make_parts(tmp_path / "data")
    shown = bunny("check", "both")
    assert shown.exit_code == 0, shown.output
    assert "Both in data, from its parts" in shown.stdout
    assert "repeated ids: 1" in shown.stdout
    assert "all is there" in shown.stdout.splitlines()[-1]


def test_check_of_a_set_with_gaps_says_what_to_do_and_exits_with_1(
    bunny: Bunny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_parts(tmp_path / "elsewhere")
    (root / "finetune/images/vg/VG_100K/1.jpg").unlink()
    monkeypatch.setenv("BUNNY_DATA", str(root))
    shown = bunny("check", "two")
    assert shown.exit_code == 1
    assert "vg/VG_100K/1.jpg" in shown.stdout
    assert f"- {root}/finetune/images/vg/VG_100K: 1 of 1 pictures missing: download from http://vg" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith(f"bunny data check two --root {root}")
    report = bunny("check", "two", "--root", root, "--json")
    assert report.exit_code == 1
    content = json.loads(report.stdout)
    assert (content["complete"], content["folders"][0]["missing"]) == (False, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "tow"), "did you mean `two`"),
        (("check", "one", "--root", "nowhere"), "nowhere: no such folder"),
        (("make-695k", "--svit", "a.json", "--wizard", "b.json", "-o", "c.json"), "a.json: no such file"),
    ],
)
def test_wrong_words_are_told_in_one_line(bunny: Bunny, words: tuple[str, ...], said: str) -> None:
    ran = bunny(*words)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_make_695k_tells_what_went_in(bunny: Bunny, tmp_path: Path) -> None:
    write(tmp_path, "svit.json", [row("s", "coco/1.jpg"), row("text")])
    write(tmp_path, "wizard.json", [{"instruction": "a", "output": "b"}, {}])
    ran = bunny("make-695k", "--svit", "svit.json", "--wizard", "wizard.json", "-o", "root/finetune/bunny_695k.json")
    assert ran.exit_code == 0, ran.output
    assert "from_wizardlm: 1" in ran.stdout
    assert "malformed_row: 1" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "Try next: bunny data check bunny-695k --root root"
    again = bunny("make-695k", "--svit", "svit.json", "--wizard", "wizard.json", "-o", "b.json", "--json")
    assert json.loads(again.stdout)["rows"] == 2
