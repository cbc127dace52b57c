"""Recipes: what is refused, with which words, and what overrides and the `fast` block change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Recipe, Section, check, find, make

STAGE = {"data": [{"use": "captions"}], "language_model": "frozen", "learning_rate": 1e-3}
TREE: dict[str, Any] = {
    "name": "little",
    "pool": {"source": {"use": "table", "path": "pool.parquet"}},
    "curate": {"embedder": {"use": "clip"}, "steps": [{"use": "dedup", "above": 0.9}, {"use": "sample", "count": 5}]},
    "model": {"language_model": "lm", "vision_tower": "tower"},
    "align": STAGE,
    "tune": {**STAGE, "language_model": "lora"},
    "evaluate": {"tasks": [{"use": "easy_vqa"}]},
    "fast": {"align.max_steps": 3, "curate.steps.1.count": 2},
}


def write(folder: Path, tree: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
    return path


def changed(**sections: Any) -> dict[str, Any]:
    return {**TREE, **sections}


def test_a_recipe_is_read_and_its_defaults_are_there(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, TREE))
    assert (recipe.name, recipe.seed, recipe.tune.lora.r, recipe.tune.lora.alpha) == ("little", 0, 128, 256)
    assert recipe.align.max_steps is None
    assert recipe.model_dump()["evaluate"]["baselines"] == ("majority", "blind", "untrained")


def test_a_path_in_a_recipe_is_seen_from_the_recipes_folder(tmp_path: Path) -> None:
    assert Recipe.load(write(tmp_path, TREE)).locate("pool.parquet") == (tmp_path / "pool.parquet").resolve()


@pytest.mark.parametrize(
    ("tree", "place", "hint"),
    [
        (changed(seeed=1), "unknown key `seeed`", "did you mean `seed`?"),
        (changed(align={**STAGE, "learning_rte": 1}), "align: unknown key `learning_rte`", "`learning_rate`"),
        (
            changed(tune={**STAGE, "lora": {"rank": 8}}),
            "tune.lora: unknown key `rank`",
            "known: alpha, dropout, quantise, r",
        ),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_is_named(
    tmp_path: Path, tree: dict[str, Any], place: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.load(write(tmp_path, tree))
    message = str(caught.value)
    assert place in message
    assert hint in message
    assert "\n" not in message


def test_a_bad_value_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml: align\.learning_rate: .*greater than 0 \(and 1 more\)"):
        Recipe.load(write(tmp_path, changed(align={**STAGE, "learning_rate": -1, "rows_per_step": 0})))


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tune: Field required"):
        Recipe.load(write(tmp_path, {key: value for key, value in TREE.items() if key != "tune"}))


def test_data_from_files_need_no_pool_and_no_benchmarks(tmp_path: Path) -> None:
    left_out = ("pool", "curate", "evaluate")
    recipe = Recipe.load(write(tmp_path, {key: value for key, value in TREE.items() if key not in left_out}))
    assert (recipe.pool, recipe.curate, recipe.evaluate) == (None, None, None)


@pytest.mark.parametrize(("lonely", "pair"), [("pool", "`pool` and `curate`"), ("second", "`second` and `merge`")])
def test_sections_that_need_each_other_are_both_given(tmp_path: Path, lonely: str, pair: str) -> None:
    tree = {key: value for key, value in TREE.items() if key != "curate"} | {"second": STAGE}
    tree = tree if lonely == "pool" else TREE | {"second": STAGE}
    with pytest.raises(UserError, match=f"{pair} go together"):
        Recipe.load(write(tmp_path, tree))


def test_overrides_change_nested_values_and_list_items(tmp_path: Path) -> None:
    overrides = [
        "tune.lora.r=64",
        "curate.steps.0.above=0.8",
        "evaluate.baselines=[blind, shuffled]",
        "align.max_steps=null",
    ]
    recipe = Recipe.load(write(tmp_path, TREE), overrides)
    assert recipe.tune.lora.r == 64
    assert recipe.curate.steps[0] == {"use": "dedup", "above": 0.8}
    assert recipe.evaluate.baselines == ("blind", "shuffled")


def test_an_override_fills_a_section_that_is_empty_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, changed(tune={**STAGE, "lora": None}))
    assert Recipe.load(path, ["tune.lora.r=8"]).tune.lora.r == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.lora.r", "has no `=`"),
        ("tune.lorra.r=1", "tune: unknown key `lorra`, did you mean `lora`?"),
        ("curate.steps.7.above=1", "`7` is not in the list; use a number from 0 to 1"),
        ("curate.steps.first.above=1", "`first` is not in the list"),
        ("name.of.it=1", "no settings above `of`"),
        ("seed=[1", "override `seed=[1`: not valid YAML"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Recipe.load(write(tmp_path, TREE), [override])
    assert "\n" not in str(caught.value)


def test_the_fast_block_applies_only_when_asked_and_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, TREE)
    assert Recipe.load(path).align.max_steps is None
    quick = Recipe.load(path, fast=True)
    assert (quick.align.max_steps, quick.curate.steps[1]["count"]) == (3, 2)
    assert Recipe.load(path, ["align.max_steps=7"], fast=True).align.max_steps == 7


def test_a_fast_block_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fast: Input should be a valid dictionary"):
        Recipe.load(write(tmp_path, changed(fast=["align.max_steps=3"])), fast=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1, 2", "not valid YAML"),
        ("- just\n- a list\n", "a recipe is a mapping of sections"),
        ("", "a recipe is a mapping of sections"),
        ("name: a\nname: b\n", "key `name` twice"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Recipe.load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_binary_or_unreadable_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read as text"):
        Recipe.load(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="cannot be read as text"):
        Recipe.load(tmp_path / "picture.yaml")


def test_a_recipe_cannot_be_changed_after_loading(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, TREE))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]  # the point of the test


def test_checking_leaves_the_callers_tree_alone() -> None:
    class Bag(Section):
        items: list[int]

    tree = {"items": [1]}
    check(Bag, tree, "here").items.append(2)
    assert tree == {"items": [1]}


def steps_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a good step, one that lacks a library, one with a bug in it, and a file that is no step."""
    package = folder / "made_up_steps"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "drop.py").write_text(
        "from bunny.core.recipe import Section\n"
        "class Drop(Section):\n    above: float\n    seed: int = 0\n    folder: str = ''\n"
        "USE = Drop\n"
    )
    (package / "needy.py").write_text("import a_library_nobody_has\n")
    (package / "buggy.py").write_text("import math\nmath.no_such_function\n")
    (package / "words.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    return "made_up_steps"


def test_a_block_becomes_an_object_with_the_context_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = steps_package(tmp_path, monkeypatch)
    step = make({"use": "drop", "above": 0.5, "seed": 9}, package, seed=1, folder="f", colour="red")
    assert (step.above, step.seed, step.folder) == (0.5, 9, "f")
    assert type(make({"use": "made_up_steps.drop:Drop", "above": 1}, package)) is type(step)


def test_a_block_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = steps_package(tmp_path, monkeypatch)
    for block, message in [
        ({"above": 1}, "no `use`"),
        ({"use": "dropp", "above": 1}, "nothing is called `dropp`, did you mean `drop`?"),
        ({"use": "drop.er"}, "nothing is called `drop.er`"),
        ({"use": "words"}, "nothing is called `words`"),
        ({"use": "nobody.home:Step"}, "nothing is called `nobody.home:Step`"),
        ({"use": "needy"}, "needy needs the Python package `a_library_nobody_has`; pip install"),
        ({"use": "drop", "abve": 1}, "drop: unknown key `abve`, did you mean `above`?"),
        ({"use": "drop", "above": "much"}, "drop: above: "),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            make(block, package)


def test_a_bug_in_a_step_is_not_reported_as_a_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttributeError, match="no_such_function"):
        find("buggy", steps_package(tmp_path, monkeypatch), "here")


def test_nearest_names_one_word_or_all() -> None:
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == "did you mean `learning_rate`?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", []) == "nothing is known here"


def test_a_section_keeps_the_checks_of_its_fields() -> None:
    class Dial(Section):
        turn: int = Field(1, ge=0)

    with pytest.raises(UserError, match="here: turn: "):
        check(Dial, {"turn": -1}, "here")
