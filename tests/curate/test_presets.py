"""Every preset plans, and runs on a made-up pool (with as many groups and rows as that has)."""

from __future__ import annotations

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.types import Pool
from bunny.curate.engine import select
from bunny.curate.plan import plan, preset_steps
from bunny.curate.presets import preset, presets, read_preset


def some_pool(size: int = 400) -> Pool:
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(size, 16)).astype(np.float32)
    visual[: size // 4] = visual[size // 4 : size // 2] + 0.05 * rng.normal(size=(size // 4, 16))
    visual /= np.linalg.norm(visual, axis=1, keepdims=True)
    return Pool(
        {
            "id": np.array([f"{number:04d}" for number in range(size)], dtype=str),
            "source": np.full(size, "made up", dtype=object),
            "caption": np.array([f"picture {number % 90}" for number in range(size)], dtype=object),
            "sha256": np.array([f"{number // 2 if number < 20 else number}" for number in range(size)], dtype=object),
            "visual": visual,
            "text": np.roll(visual, 1, axis=1),
            "pair_cosine": rng.random(size).astype(np.float32),
        }
    )


@pytest.mark.parametrize("name", presets())
def test_every_preset_plans_and_runs(name: str) -> None:
    steps = preset(name)
    assert plan(steps)
    for step in steps:
        if step["use"] == "cluster" and "groups" in step:
            step["groups"] = 8
    selection = select(some_pool(), steps, seed=0)
    assert 0 < selection.kept().sum() < 400
    assert all(len(run.rows) for run in selection.runs)


@pytest.mark.parametrize("name", presets())
def test_every_preset_says_what_it_is_for_and_where_its_numbers_are_from(name: str) -> None:
    found = read_preset(name)
    assert 20 < len(found.about) < 130
    assert "\n" not in found.about
    assert found.embedder["use"] in ("clip", "lite0_minilm")
    assert found.text.startswith("# ")


def test_the_presets_of_the_documentation_are_there() -> None:
    assert set(presets()) >= {"bunny-laion-2m", "semdedup", "datacomp-clip30", "small-set"}
    assert preset_steps("semdedup") == preset("semdedup")


def test_the_published_numbers_are_in_the_presets() -> None:
    laion = {f"{step['use']}-{step.get('by', '')}": step for step in preset("bunny-laion-2m")}
    assert laion["cluster-"]["groups"] == 100_000
    assert laion["dedup-"]["above"] == 0.86
    assert (laion["band-pair_cosine"]["low"], laion["band-pair_cosine"]["high"]) == (0.40, 0.60)
    assert (laion["band-centre_cosine"]["low"], laion["band-centre_cosine"]["high"]) == (0.15, 0.35)
    assert laion["sample-"]["count"] == 2_000_000
    assert preset("datacomp-clip30") == [{"use": "band", "by": "pair_cosine", "high": 0.3}]


def test_changing_a_preset_leaves_it_as_it_was() -> None:
    preset("small-set")[0]["by"] = "caption"
    assert preset("small-set")[0] == {"use": "exact"}


def test_an_unknown_preset_names_the_nearest() -> None:
    for ask in (preset, read_preset, preset_steps):
        with pytest.raises(UserError, match=r"no preset is called `semdedupe`; did you mean `semdedup`\?"):
            ask("semdedupe")
