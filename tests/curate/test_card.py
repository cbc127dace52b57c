"""The dataset card: front matter that the Hub reads, tables that say what the files say, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bunny.core.sample_table import write_samples
from bunny.core.types import ImageRef, Sample, Turn
from bunny.curate.card import front_matter, licence_of, write_card

SETTINGS = {
    "seed": 7,
    "pool": {"source": {"use": "folder", "path": "/home/somebody/pictures"}},
    "curate": {"steps": [{"use": "band", "by": "pair_cosine", "high": 0.9}], "preset": None},
}


def make_set(folder: Path, licences: tuple[Any, ...] = ("CC0-1.0", "CC0-1.0", "cc by 4.0"), talk: bool = False) -> Path:
    """A curated folder of three samples that stay, of five seen."""
    folder.mkdir(parents=True)
    summary = {
        "samples": 5,
        "rejected": {"not_a_picture": 1},
        "embedded": 4,
        "embedder": "mean | colour",
        "seed": 7,
        "steps": [
            {
                "step": "band",
                "settings": {"use": "band", "by": "pair_cosine", "high": 0.9},
                "in": 4,
                "out": 3,
                "reasons": {"pair_cosine among the lowest 10%": 1},
            }
        ],
        "kept": 3,
        "seconds": {"embed": 1.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    columns = {
        "id": ["a", "b", "c", "d", "e"],
        "kept": [True, True, True, False, False],
        "source": ["one", "one", "two|<b>", "two|<b>", None],
        "caption": ["a red square", "square", "two words", "gone", None],
        "width": pa.array([10, 20, 30, 1000, None], pa.int32()),
        "pair_cosine": pa.array([0.1, 0.2, 0.3, 0.9, None], pa.float32()),
    }
    pq.write_table(pa.table(columns), folder / "decisions.parquet")
    turns = (Turn("user", "<image>\nWhat?"), Turn("assistant", "It.")) if talk else (Turn("assistant", "a"),)
    meta: list[Mapping[str, Any]] = [{"license": one} if one else {} for one in licences]
    write_samples(
        folder / "samples.parquet",
        [
            Sample(id, (ImageRef("/home/somebody/x.png"),), turns, "one", more)
            for id, more in zip("abc", meta, strict=True)
        ],
    )
    return folder


def card(folder: Path, **more: Any) -> str:
    return write_card(folder, name="little", settings=SETTINGS, **more).read_text(encoding="utf-8")


def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    for kind, file in (("parquet", "00000.parquet"), ("webdataset", "00000.tar")):
        (folder / kind).mkdir()
        (folder / kind / file).touch()
    text = card(folder, licence="cc-by-4.0")
    front = front_matter(folder / "README.md")
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert front["task_categories"] == ["image-to-text", "text-to-image"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [
        {"config_name": "parquet", "data_files": "parquet/*.parquet", "default": True},
        {"config_name": "decisions", "data_files": "decisions.parquet"},
    ]
    (folder / "parquet" / "00000.parquet").unlink()
    card(folder)
    only = [{"config_name": "webdataset", "data_files": "webdataset/*.tar", "default": True}]
    assert front_matter(folder / "README.md")["configs"] == only  # `datasets` takes no second format beside it
    hub = pytest.importorskip("huggingface_hub")
    data = hub.DatasetCard(text).data
    assert (data.license, data.pretty_name) == ("cc-by-4.0", "little")


def test_conversations_are_another_task(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", talk=True)
    assert "conversations about pictures" in card(folder)
    assert front_matter(folder / "README.md")["task_categories"] == ["visual-question-answering"]


def test_tables_say_what_the_files_say(tmp_path: Path) -> None:
    text = card(make_set(tmp_path / "set"))
    assert "3 image-text pairs, chosen from 5 (60.0%)" in text
    assert "| one | 2 | 2 | 100.0% |" in text
    assert "| two\\|&lt;b> | 2 | 1 | 50.0% |" in text
    assert "| (unreadable) | 1 | 0 | 0.0% |" in text
    assert "| width in pixels | 10 | 11 | 20 | 29 | 30 |" in text
    assert "| words of the caption | 1 | 1.1 | 2 | 2.9 | 3 |" in text
    assert '| band | by: "pair_cosine", high: 0.9 | 4 | 3 | 1 pair_cosine among the lowest 10% |' in text
    assert "| reading | | 5 | 4 | 1 not_a_picture |" in text


@pytest.mark.parametrize(
    ("licences", "common"),
    [
        (("CC0-1.0", "CC0-1.0", "CC0-1.0"), "cc0-1.0"),
        (("CC BY 4.0",) * 3, "cc-by-4.0"),
        (("cc0-1.0", "cc0-1.0", "cc-by-4.0"), ""),
        (("cc0-1.0", "cc0-1.0", None), ""),
        (("see website",) * 3, ""),
        ((None,) * 3, ""),
    ],
)
def test_a_licence_is_named_only_if_all_samples_name_it(licences: tuple[Any, ...], common: str, tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", licences)
    assert licence_of(folder) == common
    text = card(folder)
    assert front_matter(folder / "README.md").get("license", "") == common
    assert ("No licence is given yet" in text) == (not common)


def test_licences_are_counted_as_the_records_name_them(tmp_path: Path) -> None:
    text = card(make_set(tmp_path / "set", ("CC0-1.0", "CC0-1.0", None)))
    assert "| CC0-1.0 | 2 |" in text
    assert "| none named | 1 |" in text
    assert "look them up at the sources" in card(make_set(tmp_path / "none", (None,) * 3))


def test_a_licence_once_given_stays(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    card(folder, licence="other")
    card(folder)
    assert licence_of(folder) == "other"


def test_the_recipe_in_the_card_makes_the_set_again_and_tells_no_paths(tmp_path: Path) -> None:
    text = card(make_set(tmp_path / "set"))
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe == {
        "name": "little",
        "seed": 7,
        "pool": {"source": {"use": "folder", "path": "pictures"}},
        "curate": {"steps": [{"use": "band", "by": "pair_cosine", "high": 0.9}]},
    }
    assert "/home/somebody" not in text


def test_the_same_set_gives_the_same_card(tmp_path: Path) -> None:
    assert card(make_set(tmp_path / "one")) == card(make_set(tmp_path / "two"))


def test_no_card_has_no_front_matter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# only words\n")
    assert front_matter(tmp_path / "README.md") == front_matter(tmp_path / "none.md") == {}
