"""The published scores: one file, a source for every row, and ours beside those of the same benchmarks."""

from __future__ import annotations

import json

import pytest

from bunny.core.recipe import names
from bunny.evaluate import BENCHMARKS, Outcome, evaluate
from bunny.evaluate.published import beside, published
from bunny.evaluate.report import html, markdown
from tests.evaluate.stubs import Colours, Stub, gold


def outcome(task: str) -> Outcome:
    colours = Colours()
    colours.name = task
    return evaluate(colours, Stub(gold))


def test_every_number_has_a_known_column_and_a_source_with_an_address() -> None:
    known = published()
    for model in known.models:
        assert model.sources and set(model.sources) <= known.sources.keys()
        assert model.scores.keys() <= known.columns.keys() and set(model.by_bunny) <= model.scores.keys()
        assert all(
            0 < score < (2000 if key == "mme_p" else 800 if key == "mme_c" else 100)
            for key, score in model.scores.items()
        )
    assert all(source.where.startswith("https://") for source in known.sources.values())
    assert len({model.name for model in known.models}) == len(known.models)


def test_the_originals_twelve_models_are_all_there() -> None:
    models = [model for model in published().models if model.kind == "bunny"]
    assert len(models) == 12 and all(model.sources == ("readme",) for model in models)
    best = next(model for model in models if model.name == "Bunny-v1.1-Llama-3-8B-V")
    assert best.scores["mme_p"] == 1644.1 and best.scores["pope"] == 87.2
    assert all({"mme_p", "mmb_d", "seed", "gqa", "pope"} <= model.scores.keys() for model in models)


def test_columns_stand_beside_benchmarks_that_exist() -> None:
    assert {column.task for column in published().columns.values()} - {""} <= set(names(BENCHMARKS))


def test_our_row_comes_first_and_gaps_stay_gaps() -> None:
    found = beside([outcome("pope"), outcome("colours")])
    assert found is not None and [column.label for column in found.columns] == ["POPE"]
    assert found.rows[0] == ("this model", "ours", ["100.0"]) and len(found.rows) > 30
    tree = json.loads(json.dumps(found.as_json()))
    assert tree["rows"][0]["scores"] == [100.0]
    mmmu = beside([outcome("mmmu"), outcome("pope")])
    assert mmmu is not None
    cells = {name: row for name, _, row in mmmu.rows}
    assert cells["LLaVA-v1.5-7B (LoRA)"] == ["34.4§", "86.4"] and cells["LLaVA-v1.5-7B"] == ["", "85.9"]


def test_reports_show_them_only_for_benchmarks_that_have_them() -> None:
    for text in (markdown([outcome("pope")]), html([outcome("pope")])):
        assert "Beside published models" in text and "LLaVA-v1.5-13B" in text and "comparison_8B.png" in text
    assert "Beside published models" not in markdown([outcome("colours")]) + html([outcome("colours")])


@pytest.mark.parametrize("name", ["LLaVA-v1.5-7B", "LLaVA-v1.5-13B"])
def test_llava_is_there_as_its_authors_published_it(name: str) -> None:
    model = next(model for model in published().models if model.name == name)
    assert model.sources == ("llava_zoo",) and not model.by_bunny
