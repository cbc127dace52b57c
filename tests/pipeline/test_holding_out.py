"""Objects held out of training: nothing that is written for the training names them, and benchmarks ask about them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.errors import UserError
from bunny.core.recipe import find
from bunny.data.words import load_words
from bunny.evaluate import BENCHMARKS
from bunny.evaluate.made_up import THINGS, named_pictures
from bunny.pipeline.holding_out import choose, hold_out

PLURALS = {word: f"{word}s" for word in THINGS}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A rule for each thing; every second one is a kind of `creature`, each is confusable with its neighbour."""
    rules = {
        word: {
            "also": [PLURALS[word]],
            "implies": ["creature"] * (n % 2),
            "confusable": [list(THINGS)[n - 1]],
            "folders": [f"drawings/of {word}"],
        }
        for n, word in enumerate(THINGS)
    }
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump({"words": {"creature": {}, **rules}}))
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Each thing four times: by its name in a title, its plural in the keywords, a description, its folder."""
    rows = []
    for word in THINGS:
        rows += [
            {"id": f"{word}1", "title": f"The {word.upper()}!", "keywords": [], "description": "", "category": ""},
            {"id": "2", "title": "", "keywords": ["x", PLURALS[word]], "description": "", "category": ""},
            {"id": "3", "title": "", "keywords": [], "description": f"not a {word}, perhaps", "category": ""},
            {"id": "4", "title": "", "keywords": [], "description": "", "category": f"drawings/of {word}/old"},
        ]
    rows.append({"id": "5", "title": "a creature", "keywords": [], "description": "", "category": "drawings"})
    (tmp_path / "pool").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool" / "part-0000.parquet")
    return tmp_path / "pool"


def test_no_text_of_the_training_names_what_is_held_out(words: Path, pool: Path, tmp_path: Path) -> None:
    facts = hold_out(words, named_pictures(tmp_path), pool, tmp_path / "out", share=0.5)
    held = facts["held_out"]
    text = (tmp_path / "out" / "words.yaml").read_text()
    left = pq.read_table(tmp_path / "out" / "pool" / "part-0000.parquet").to_pylist()
    assert held and facts["left_out"] == 4 * len(held)
    assert facts["kept"] == len(left) == 4 * (len(THINGS) - len(held)) + 1
    assert not any(word in (text + json.dumps(left)).lower() for word in held)
    assert set(load_words(tmp_path / "out" / "words.yaml").words) == {"creature", *THINGS} - set(held)


def test_the_same_files_hold_out_the_same_and_another_seed_may_not(words: Path, tmp_path: Path) -> None:
    rules, shown = load_words(words), dict.fromkeys(THINGS, 3)
    assert choose(rules, shown, 0.5, 1) == choose(rules, dict(reversed(shown.items())), 0.5, 1)
    assert len({tuple(choose(rules, shown, 0.5, seed)) for seed in range(8)}) > 1


def test_broader_words_and_rare_things_are_never_held_out(words: Path) -> None:
    shown = {**dict.fromkeys(THINGS, 9), "creature": 50, next(iter(THINGS)): 1}
    drawn = {word for seed in range(20) for word in choose(load_words(words), shown, 0.5, seed)}
    assert drawn <= set(THINGS) - {next(iter(THINGS))}


@pytest.mark.parametrize("share", [0, -1, 0.9, 0.01])
def test_a_share_that_leaves_no_choice_is_refused(words: Path, share: float) -> None:
    with pytest.raises(UserError, match="objects with 2 pictures"):
        choose(load_words(words), dict.fromkeys(THINGS, 3), share, 0)


@pytest.mark.parametrize("name", ["picture_yes_no", "reading", "colour"])
def test_a_benchmark_asks_about_the_held_out_things_alone(name: str, words: Path, tmp_path: Path) -> None:
    pictures = named_pictures(tmp_path)
    facts = hold_out(words, pictures, None, tmp_path / "out", share=0.5)
    more = {"cache": tmp_path / "sheets"} if name == "reading" else {}
    kind = find(name, BENCHMARKS, "test")
    asked = kind.model_validate({"path": pictures, "trained": facts["words"], "split": "unseen", **more}).questions()  # type: ignore[attr-defined]
    named = {word for question in asked for word in THINGS if f" {word}" in question.prompt or word in question.gold}
    assert asked and named <= set(facts["held_out"])


def test_a_side_of_the_split_without_the_words_of_the_training_is_refused(tmp_path: Path) -> None:
    kind = find("picture_yes_no", BENCHMARKS, "test")
    with pytest.raises(UserError, match="seen by whom"):
        kind.model_validate({"path": named_pictures(tmp_path), "split": "unseen"}).questions()  # type: ignore[attr-defined]


def test_the_command_tells_what_it_held_out(words: Path, pool: Path, tmp_path: Path) -> None:
    line = [
        "eval",
        "hold-out",
        words,
        "--pictures",
        named_pictures(tmp_path),
        "--pool",
        pool,
        "--out",
        tmp_path / "out",
    ]
    ran = CliRunner().invoke(app, [*map(str, line), "--share", "0.5"])
    assert ran.exit_code == 0 and "left out" in ran.stdout
    nothing = CliRunner().invoke(app, [*map(str, line), "--share", "2"])
    assert nothing.exit_code == 2 and "0.1 to 0.5" in nothing.stderr
