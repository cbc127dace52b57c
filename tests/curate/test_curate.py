"""The whole arrow: samples in, a selection and its files out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import ImageRef, Rejected, Sample
from bunny.curate import Selection, curate
from bunny.curate.plan import plan

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


# the report


def page(tmp_path: Path) -> str:
    return (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_report_needs_no_network_and_no_script(run: Callable[..., Selection], tmp_path: Path) -> None:
    run()
    html = page(tmp_path)
    assert not re.findall(r'(?:src|href)="(?!data:image/webp;base64,)', html)
    assert "<script" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_the_report_shows_counts_reasons_charts_and_settings(run: Callable[..., Selection], tmp_path: Path) -> None:
    selection = run()
    html = page(tmp_path)
    for found in selection.runs:
        for reason, count in found.counts().items():
            assert f"<b>{count:,}</b> {reason}".replace("'", "&#39;") in html
    assert "damaged" in html
    assert html.count("<svg") == 4
    assert "above: 0.995" in html
    assert f"<b>{len(selection.ids())}</b>" in html


def test_the_kept_one_of_every_duplicate_group_is_marked(run: Callable[..., Selection], tmp_path: Path) -> None:
    run()
    groups = page(tmp_path).split("<h2>Duplicate groups</h2>")[1].split("<h2>")[0].split('<div class="group')[2:]
    assert groups
    assert all(group.count('class="stays"') == 1 for group in groups)


def test_every_picture_of_the_report_has_words(run: Callable[..., Selection], tmp_path: Path) -> None:
    run()
    assert re.findall(r"<img ", page(tmp_path))
    assert not re.findall(r'<img (?![^>]*alt="[^"]+")', page(tmp_path))


def test_captions_cannot_break_out_of_the_page(
    gallery: Gallery, embedder: ColourEmbedder, run: Callable[..., Selection], tmp_path: Path
) -> None:
    nasty = '"><script>alert(1)</script> red'
    run(pool=[gallery.add("n", (200, 0, 0), nasty)], steps=[{"use": "exact"}])
    assert "<script>" not in page(tmp_path)
    assert "&lt;script&gt;" in page(tmp_path)


def test_pictures_that_are_gone_or_too_many_leave_their_captions(
    samples: list[Sample], embedder: ColourEmbedder, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def forgetful(ref: ImageRef) -> Image.Image:
        nonlocal calls
        calls += 1
        if calls > len(samples):  # all were opened once for embedding
            raise UserError("gone")
        return gallery.open(ref)

    curate(samples, [], embedder, [{"use": "exact"}], seed=0, folder=tmp_path / "out", open_image=forgetful)
    assert "no picture" in page(tmp_path)
    assert "<img" not in page(tmp_path)
    monkeypatch.setattr("bunny.curate.report_wall.MOST_BYTES", 500)
    curate(samples, [], embedder, [{"use": "exact"}], seed=0, folder=tmp_path / "out", open_image=gallery.open)
    assert 1 <= page(tmp_path).count("<img") < 10


def test_the_recipes_of_the_documentation_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs/curate.md").read_text(encoding="utf-8")
    recipes = [yaml.safe_load(block)["curate"] for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(recipes) == 2
    for recipe in recipes:
        assert len(plan(recipe["steps"])) == len(recipe["steps"])
        make(recipe["embedder"], "bunny.infer.embedders")
