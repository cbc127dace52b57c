"""A study's file: what it crosses, and what is said about mistakes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bunny.core.errors import UserError
from bunny.study.cells import cells_of
from bunny.study.recipe import Study, steps_of

TREE: dict[str, Any] = {
    "name": "made-up",
    "recipe": "base.yaml",
    "selections": {"random": {}, "all": {"whole": True}, "curated": {"preset": "small-set"}},
    "budget": {"steps": 2},
    "tasks": [{"use": "easy_vqa"}],
}


def load(folder: Path, **changes: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False), encoding="utf-8")
    return Study.load(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sedes": [1]}, "did you mean `seeds`"),
        ({"budget": {"stepps": 2}}, "did you mean `steps`"),
        ({"selections": {"random": {"prest": "x"}, "all": {}}}, "did you mean `preset`"),
        ({"against": ["randm"]}, "did you mean `random`"),
        ({"ablate": {"of": "curatd"}}, "did you mean `curated`"),
        ({"shares": [1.5]}, "share 1.5"),
        ({"shares": [0.0]}, "share 0"),
        ({"seeds": []}, "needs selections, seeds"),
        ({"budget": {"steps": 5, "equal": "compute"}}, "step_cpu_seconds"),
        ({"selections": {"random": {"whole": True, "shares": [0.1]}, "all": {}}}, "draws no share"),
        ({"selections": {"random": {"preset": "small-set", "steps": [{"use": "exact"}]}, "all": {}}}, "or a `preset`"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(tmp_path, **changes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such study"):
        Study.load(tmp_path / "none.yaml")


def test_selections_shares_seeds_and_sizes_are_crossed(tmp_path: Path) -> None:
    study = load(tmp_path, shares=[0.1, 0.5], seeds=[3, 4], sizes={"base": {}, "wide": {"tune.lora.r": 64}})
    names = [cell.name for cell in cells_of(study)]
    assert len(names) == len(set(names)) == (2 + 1 + 2) * 2 * 2
    assert names[:3] == ["all.all.s3.base", "random.10.s3.base", "curated.10.s3.base"]


def test_whole_seeds_come_first(tmp_path: Path) -> None:
    seeds = [cell.seed for cell in cells_of(load(tmp_path, seeds=[7, 8]))]
    assert seeds == sorted(seeds)


def test_a_pattern_runs_a_part(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert {cell.selection for cell in cells_of(study, "random.*,all.*")} == {"random", "all"}
    assert {cell.seed for cell in cells_of(study, "*.s1.*")} == {1}
    with pytest.raises(UserError, match="no cell is called"):
        cells_of(study, "randm.*")


def test_an_ablation_takes_each_step_alone_and_leaves_each_out(tmp_path: Path) -> None:
    study = load(tmp_path, ablate={"of": "curated"})
    choices = study.choices()
    names = ["exact", "rules", "dedup", "band pair_cosine", "band centre_cosine"]
    assert set(choices) == {*TREE["selections"], *(f"{way} {name}" for way in ("only", "without") for name in names)}
    assert [step["use"] for step in steps_of(choices["only dedup"])] == ["cluster", "dedup"]
    assert [step["use"] for step in steps_of(choices["only exact"])] == ["exact"]
    assert [step["use"] for step in steps_of(choices["without rules"])] == ["exact", "cluster", "dedup", "band", "band"]


def test_an_ablation_may_be_compared_with(tmp_path: Path) -> None:
    study = load(tmp_path, ablate={"of": "curated"}, against=["random", "only exact"])
    assert "only exact" in study.against


def test_changes_of_the_base_recipe_are_laid_over_it(tmp_path: Path) -> None:
    stage = {"data": [{"use": "captions"}], "language_model": "lora", "learning_rate": 1e-3}
    base = {"name": "base", "model": {"language_model": "a", "vision_tower": "b"}, "align": stage, "tune": stage}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    recipe = load(tmp_path, set={"align": None, "tune.lora.r": 8}).base({"tune.lora.alpha": 3, "seed": 5})
    assert recipe.align is None
    assert (recipe.tune.lora.r, recipe.tune.lora.alpha, recipe.seed) == (8, 3, 5)
