"""The whole arrow: samples in, a selection and its files out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.recipe import CurateSection, check, make
from bunny.core.sample_table import read_samples
from bunny.core.types import Rejected, Sample
from bunny.curate import Selection, curate
from bunny.curate.plan import plan, preset_steps

from .conftest import ColourEmbedder, Gallery

STEPS = [
    {"use": "exact"},
    {"use": "rules", "max_words": 5},
    {"use": "cluster", "groups": 3},
    {"use": "dedup", "above": 0.995},
    {"use": "band", "by": "pair_cosine", "high": 0.9},
    {"use": "band", "by": "centre_cosine", "low": 0.1},
    {"use": "sample", "count": 8},
]
UNREAD = Rejected("s99", "pool.parquet:7", "damaged", "cut short")


@pytest.fixture
def run(samples: list[Sample], embedder: ColourEmbedder, gallery: Gallery, tmp_path: Path) -> Callable[..., Selection]:
    def start(folder: str = "out", steps: list[dict[str, object]] = STEPS, pool: list[Sample] = samples) -> Selection:
        where = tmp_path / folder
        return curate(pool, [UNREAD], embedder, steps, seed=0, folder=where, open_image=gallery.open, threads=2)

    return start


def test_every_sample_has_one_row_in_the_decision_table(
    run: Callable[..., Selection], samples: list[Sample], tmp_path: Path
) -> None:
    selection = run()
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out/decisions.parquet").to_pylist()}
    assert set(rows) == {sample.id for sample in samples} | {"s99"}
    assert [id for id, row in rows.items() if row["kept"]] == selection.ids()
    for id, row in rows.items():
        why = selection.why(id)
        assert (row["kept"], row["step"], row["twin"] or "") == (why.kept, why.step, why.twin)
        assert bool(row["reason"]) != row["kept"]
        assert (row["twin"] is None) == (row["twin_cosine"] is None) == (row["twin_kept"] is None)
    assert rows["s99"]["step"] == rows["s32"]["step"] == "reading"
    assert rows["s30"]["twin"]
    kept = rows[selection.ids()[0]]
    for name in ("cluster", "component", "pair_cosine", "centre_cosine", "pair_cosine_rank", "width", "caption"):
        assert kept[name] is not None
    assert rows["s30"]["cluster"] is None  # it never got as far


def test_counts_in_the_summary_add_up(run: Callable[..., Selection], samples: list[Sample], tmp_path: Path) -> None:
    run()
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert told["samples"] == len(samples) + 1
    assert told["samples"] - sum(told["rejected"].values()) == told["embedded"] == told["steps"][0]["in"]
    for step, following in zip(told["steps"], [*(step["in"] for step in told["steps"][1:]), told["kept"]], strict=True):
        assert step["in"] - sum(step["reasons"].values()) == step["out"] == following
    assert {"embed", "dedup", "write"} <= set(told["seconds"])
    listed = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert {item["id"]: item["reason"] for item in listed}["s99"] == "damaged"
    assert len(listed) == sum(told["rejected"].values())


def test_the_same_recipe_gives_the_same_bytes_in_any_order(
    run: Callable[..., Selection], samples: list[Sample], tmp_path: Path
) -> None:
    run("a")
    run("b", pool=samples[::-1])
    one, other = (tmp_path / folder / "decisions.parquet" for folder in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_a_wrong_step_is_found_before_anything_is_embedded(
    run: Callable[..., Selection], embedder: ColourEmbedder
) -> None:
    with pytest.raises(UserError, match=r"curate.steps, number 2: nothing is called `dedpu`, did you mean `dedup`"):
        run(steps=[{"use": "exact"}, {"use": "dedpu"}])
    assert embedder.seen == 0


def test_vectors_in_a_folder_of_their_own_serve_other_steps(
    samples: list[Sample], embedder: ColourEmbedder, gallery: Gallery, tmp_path: Path
) -> None:
    for number, count in enumerate((3, 5)):
        found = curate(
            samples,
            [],
            embedder,
            [{"use": "sample", "count": count}],
            seed=0,
            folder=tmp_path / str(number),
            open_image=gallery.open,
            vectors=tmp_path / "vectors",
        )
        assert len(found.ids()) == count
    assert embedder.seen == len(samples) - 1  # once; one picture cannot be opened


def test_a_score_that_is_not_a_number_is_null_in_the_table(
    run: Callable[..., Selection], gallery: Gallery, tmp_path: Path
) -> None:
    run(pool=[gallery.add("n", (9, 9, 9), "no colour named"), gallery.add("r", (9, 0, 0), "red")], steps=[])
    table = pq.read_table(tmp_path / "out/decisions.parquet").to_pylist()
    assert [row["pair_cosine"] is None for row in table] == [True, False, True]


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_pools_give_all_files(
    run: Callable[..., Selection], samples: list[Sample], tmp_path: Path, size: int
) -> None:
    run(pool=samples[:size])
    for name in ("decisions.parquet", "report.html", "rejected.jsonl", "summary.json"):
        assert (tmp_path / "out" / name).stat().st_size
    assert pq.read_table(tmp_path / "out/decisions.parquet").num_rows == size + 1


def test_the_summary_names_what_the_same_bytes_need(run: Callable[..., Selection], tmp_path: Path) -> None:
    run()
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert (told["seed"], told["embedder"]) == (0, "colours")
    assert [step["settings"] for step in told["steps"]] == STEPS
    pool = json.loads((tmp_path / "out/pool/pool.json").read_text())
    assert told["pool"] == {"key": pool["key"], "parts": pool["parts"]}
    assert all((tmp_path / "out/pool" / part).is_dir() for part in pool["parts"])


# from a notebook


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of noise with a text each, one twice, and one that is none."""
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"a red picture, number {number}")
    (place / "twice.png").write_bytes((place / "3.png").read_bytes())
    (place / "twice.txt").write_text("the red picture again")
    (place / "broken.png").write_bytes(b"no picture")
    (place / "broken.txt").write_text("a red nothing")
    return place


COLOURS = {"use": "tests.curate.recipe_classes:Colours"}


def test_a_folder_is_curated_by_one_call(folder: Path, tmp_path: Path) -> None:
    import bunny

    steps = [{"use": "exact"}, {"use": "sample", "count": 5}]
    formats = [{"use": "ids"}]
    found = bunny.curate(folder, steps=steps, embedder=COLOURS, output=tmp_path / "run", part_rows=4, write=formats)
    assert len(found.ids()) == 5
    assert str(found.why("twice.png")).startswith("twice.png is dropped by exact: the same pixels as")
    assert str(found.why("broken.png")).startswith("broken.png is dropped by reading: not_a_picture")
    assert found.report == tmp_path / "run/curated/report.html"
    assert found.report.exists()
    assert [sample.id for sample in read_samples(tmp_path / "run/curated/samples.parquet")] == found.ids()
    assert (tmp_path / "run/curated/ids/ids.txt").read_text().split() == found.ids()


def test_the_package_is_still_a_package() -> None:
    import bunny.curate
    from bunny.curate import Selection as Same

    assert bunny.curate.Selection is Same
    assert bunny.curate.engine.Selection is Same


def test_a_second_call_embeds_nothing_and_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    import bunny

    steps = [{"use": "exact"}]
    files = ("decisions.parquet", "samples.parquet", "rejected.jsonl")
    seen = []
    for _ in range(2):
        bunny.curate(folder, steps=steps, embedder=COLOURS, output=tmp_path / "run")
        parts = sorted((tmp_path / "run/pool").glob("part-*/part.json"))
        seen.append(
            [(tmp_path / "run/curated" / name).read_bytes() for name in files] + [part.read_bytes() for part in parts]
        )
    assert seen[0] == seen[1]


def test_a_preset_brings_its_embedder_unless_one_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bunny
    from bunny.pipeline import curation

    block = curation.preset("small-set")["embedder"]
    assert block["side"] == 192
    monkeypatch.setattr(curation, "DEMO_PACKAGES", ("json",))
    assert curation.preset_embedder("small-set", {"use": "folder", "path": str(folder)}) == block
    assert curation.load(folder).curate.embedder == block
    assert curation.load(folder, preset="semdedup").curate.embedder["use"] == "clip"
    with_vectors = {"use": "table", "path": "a.parquet", "vectors": {"image": "image_embedding"}}
    assert curation.preset_embedder("small-set", with_vectors) is None
    monkeypatch.setattr(curation, "DEMO_PACKAGES", ("no_such_package",))
    with pytest.raises(UserError, match="the demo's is not installed"):
        bunny.curate(folder, preset="small-set", output=tmp_path / "run")
    assert bunny.curate(folder, preset="small-set", embedder=COLOURS, output=tmp_path / "run").ids()


def test_an_outcome_introduces_itself_in_one_line(folder: Path, tmp_path: Path) -> None:
    import bunny

    found = bunny.curate(folder, steps=[{"use": "exact"}], embedder=COLOURS, output=tmp_path / "run")
    gone = len(found.pool) - len(found.ids())
    words = f"<Selection: {len(found.ids())} of {len(found.pool)} stay (exact -{gone}), written to "
    assert repr(found) == f"{words}{tmp_path / 'run/curated'}>"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": [{"use": "exact"}]}, "it has no vectors, and no embedder is named; add `embedder"),
        (
            {"embedder": COLOURS},
            "curate: no steps: give `steps` (`[]` makes the pool alone), or the name of a `preset`",
        ),
        ({"embedder": COLOURS, "preset": "smal-set"}, "no preset is called `smal-set`; did you mean `small-set`"),
        ({"embedder": COLOURS, "steps": [{"use": "exatc"}]}, "did you mean `exact`"),
        ({"embedder": COLOURS, "steps": [{"use": "rules", "min_words": 90}]}, "curation kept nothing of 12 rows"),
        ({"embedder": COLOURS, "steps": [{"use": "exact"}], "engine": {"use": "locl"}}, "did you mean `local`"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_in_one_line(
    folder: Path, tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    import bunny

    with pytest.raises(UserError, match=re.escape(told)):
        bunny.curate(folder, output=tmp_path / "run", **settings)


def test_the_recipes_of_the_documentation_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs/curate.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block).get("curate", {}) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    recipes = [block for block in blocks if {"steps", "preset"} & block.keys()]  # the others are excerpts
    assert len(recipes) >= 2
    for recipe in recipes:
        section = check(CurateSection, recipe, "docs/curate.md")
        steps = section.steps or (preset_steps(section.preset) if section.preset else [])
        assert len(plan(steps)) == len(steps)
        for block, package in ((section.embedder, "bunny.infer.embedders"), (section.engine, "bunny.curate.engines")):
            assert block is None or make(block, package)
