"""Estimates: formulas, counting of sources, and the published plan, which must be what the code computes."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.curate.constants import CONSTANTS, EMBEDDERS, GPU_EMBEDDERS, value
from bunny.curate.estimate import HEADER, Cluster, Job, as_dict, as_rows, estimate, measured_rate, total
from bunny.pipeline.estimating import count_rows

ROOT = Path(__file__).parents[2]
STEPS = [{"use": "exact"}, {"use": "cluster", "groups": 100}, {"use": "dedup", "above": 0.9}]


def job(rows: int = 100_000, stored: bool = True, **changes: object) -> Job:
    return Job(**{"rows": rows, "dims": {"image": 768, "text": 768}, "stored": stored, "steps": STEPS, **changes})  # type: ignore[arg-type]  # made up


def named(found: list, name: str):  # type: ignore[no-untyped-def, type-arg]  # a Stage of a list of them
    return next(stage for stage in found if stage.name == name)


def test_every_constant_has_a_unit_and_a_place_where_it_was_measured() -> None:
    for constant in [*CONSTANTS.values(), *EMBEDDERS.values(), *GPU_EMBEDDERS.values()]:
        assert constant.value > 0 and constant.unit and constant.where


def test_assignment_costs_what_its_formula_says() -> None:
    stage = named(
        estimate(job(1_000_000, steps=[{"use": "cluster", "groups": 1000}]), Cluster(rate=400.0)), "assign rows"
    )
    products = 1e6 * 2 * 768 * 1000 / (400e9 * value("assign"))
    assert stage.cpu_hours * 3600 == pytest.approx(products + 1e6 * 768 * value("encode") / 1e9)


def test_pairs_cost_what_their_formula_says() -> None:
    steps = [{"use": "cluster", "groups": 100}, {"use": "dedup", "above": 0.9, "probes": 1}]
    stage = named(estimate(job(100_000, steps=steps), Cluster(rate=400.0)), "link duplicates")
    products = 100_000 * 1000 * 0.5 * value("skew") * 2 * 768 / (400e9 * value("pairs"))
    assert stage.cpu_hours * 3600 == pytest.approx(products + 100_000 * value("link") / 1e6)


def test_many_groups_cost_less_than_all_centres_would() -> None:
    times = {
        groups: named(estimate(job(steps=[{"use": "cluster", "groups": groups}]), Cluster()), "assign rows").cpu_hours
        for groups in (1000, 100_000)
    }
    assert times[1000] < times[100_000] < 50 * times[1000]


@given(st.integers(1, 10**10), st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_more_rows_cost_more_and_more_machines_take_no_longer(rows: int, nodes: int, cores: int, stored: bool) -> None:
    one = total(estimate(job(rows, stored), Cluster(nodes, cores)))
    more = total(estimate(job(2 * rows, stored), Cluster(nodes, cores)))
    wider = total(estimate(job(rows, stored), Cluster(2 * nodes, cores)))
    assert more.cpu_hours > one.cpu_hours and more.disk > one.disk and more.memory >= one.memory
    assert wider.cpu_hours == one.cpu_hours and wider.hours <= one.hours * (1 + 1e-9)


def test_vectors_that_exist_are_not_made() -> None:
    names = [[stage.name for stage in estimate(job(stored=stored), Cluster())] for stored in (True, False)]
    assert names[0] == ["read", "check vectors", "train centres", "assign rows", "link duplicates", "steps", "write"]
    assert names[1][1] == "embed"


def test_gpus_embed_while_cores_decode() -> None:
    pictures = job(10**6, stored=False, embedder="openai/clip-vit-large-patch14", picture_bytes=1000.0)
    slow, fast = (named(estimate(pictures, Cluster(cores=16, gpus=gpus)), "embed") for gpus in (0, 8))
    assert fast.gpu_hours > 0 and fast.hours < slow.hours / 100
    decoding = job(10**6, stored=False, embedder="openai/clip-vit-large-patch14", picture_bytes=1e6)
    starved = named(estimate(decoding, Cluster(cores=1, gpus=8)), "embed")
    assert starved.hours == pytest.approx(starved.cpu_hours)


def test_the_rate_is_measured_in_less_than_a_second() -> None:
    assert 1.0 < measured_rate(256, 0.05) < 1e5


def test_the_estimate_is_one_json_document_and_one_table() -> None:
    content = as_dict(job(), Cluster(), estimate(job(), Cluster()))
    assert json.loads(json.dumps(content)) == content
    rows = as_rows([*content["stages"], content["total"]])
    assert {len(row) for row in rows} == {len(HEADER)} and rows[-1][0] == "total"


def test_rows_of_tables_arrays_and_pictures_are_counted(tmp_path: Path) -> None:
    pictures = [np.random.default_rng(n).bytes(5000) for n in range(30)]
    pq.write_table(pa.table({"image": pictures, "caption": ["word"] * 30}), tmp_path / "a.parquet")
    counted = count_rows(tmp_path)
    assert (counted.rows, counted.exact) == (30, True) and counted.picture_bytes == pytest.approx(5000, rel=0.02)
    for name, rows in (("img_emb_0", 7), ("img_emb_1", 5), ("text_emb_0", 7)):
        (tmp_path / "emb").mkdir(exist_ok=True)
        np.save(tmp_path / "emb" / f"{name}.npy", np.zeros((rows, 4), np.float16))
    assert count_rows(tmp_path / "emb").rows == 12
    (tmp_path / "plain").mkdir()
    for number in range(4):
        (tmp_path / "plain" / f"{number}.png").write_bytes(b"x" * 100)
    counted = count_rows(tmp_path / "plain")
    assert (counted.rows, counted.picture_bytes) == (4, 100.0)
    (tmp_path / "talks.json").write_text(json.dumps([{"id": str(n), "conversations": []} for n in range(9)]))
    assert count_rows(tmp_path / "talks.json", "llava_json").rows == 9
    assert count_rows(tmp_path / "nothing").rows == 0


def test_rows_of_tars_are_guessed_from_their_sizes(tmp_path: Path) -> None:
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(50):
                for suffix, size in (("jpg", 3000), ("txt", 40)):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = size
                    tar.addfile(member, io.BytesIO(b"x" * size))
    counted = count_rows(tmp_path)
    assert not counted.exact and counted.rows == pytest.approx(150, rel=0.05) and counted.picture_bytes == 3000


LAION = ROOT / "docs" / "laion-2b.md"


def test_the_plan_for_laion_is_what_the_code_computes() -> None:
    text = LAION.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- estimate: (.*?) -->\n(.*?)\n<!-- end -->", text, re.S)
    assert len(blocks) == 2
    for told, table in blocks:
        assert table.strip() == laion_table(json.loads(told)), (
            "write the table again: python tests/curate/test_estimate.py"
        )


def laion_table(told: dict[str, object]) -> str:
    """The Markdown table of one of the plan's estimates."""
    import yaml

    tree = yaml.safe_load((ROOT / "src/bunny/curate/presets/bunny-laion-2m.yaml").read_text(encoding="utf-8"))
    settings = dict(told)
    cluster = Cluster(**settings.pop("machines"))  # type: ignore[arg-type]  # told in the document
    steps = tree if isinstance(tree, list) else tree["steps"]
    plan = Job(steps=steps, **settings)  # type: ignore[arg-type]  # told in the document
    content = as_dict(plan, cluster, estimate(plan, cluster))
    rows = as_rows([*content["stages"], content["total"]])
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    text = LAION.read_text(encoding="utf-8")
    for told, table in re.findall(r"<!-- estimate: (.*?) -->\n(.*?)\n<!-- end -->", text, re.S):
        text = text.replace(table, laion_table(json.loads(told)), 1)
    LAION.write_text(text, encoding="utf-8")
