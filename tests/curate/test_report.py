"""The report: one page that says where everything went, at a cost that does not grow with the pool."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import Decision, ImageRef, IntArray, Pool, Rejected, Sample
from bunny.curate import report_wall
from bunny.curate.columns import Rows, Texts
from bunny.curate.engine import Selection, StepRun
from bunny.curate.plan import plan
from bunny.curate.report import write_report

PLAN = plan(
    [
        {"use": "rules"},
        {"use": "dedup", "above": 0.95, "within": "pool"},
        {"use": "band", "by": "pair_cosine", "high": 0.9},
    ]
)


def chain(count: int, step: float = 15.0) -> np.ndarray:
    """(n, 2) unit rows on a circle, each 15 degrees (cosine 0.966) from the one before."""
    turn = np.radians(np.arange(count) * step)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)


def selection_of(count: int = 40, chained: int = 5, notes: dict[str, Any] | None = None) -> Selection:
    """The first `chained` rows are one stretched group whose middle stays; the last row goes for its caption, the one
    before it for its score."""
    visual = np.concatenate([chain(chained), chain(count - chained, step=8.0)[:, ::-1]])
    pool = Pool(
        {
            "id": Texts.of([f"p{row:05d}" for row in range(count)]),
            "source": Texts.of([("web", "book")[row % 4 == 0] for row in range(count)]),
            "caption": Texts.of([f"<i>caption</i> {row}" for row in range(count)]),
            "visual": Rows.of(visual),
            "pair_cosine": np.linspace(0, 1, count, dtype=np.float32),
        },
        ordered=True,
    )
    rows = np.arange(count)
    reasons = np.full(count, "", object)
    reasons[-1] = "caption <too> short"
    first = StepRun(PLAN[0], rows, Decision(reasons == "", reasons, np.full(count, -1)), 0.25)
    rows, kept = rows[:-1], chained // 2
    gone = (rows < chained) & (rows != kept)
    link = np.where((rows > 0) & (rows < chained), np.float32(0.965), np.nan)
    columns = {
        "component": np.where(rows < chained, 0, rows).astype(np.int32),
        "twin_cosine": np.where(gone, visual[:-1] @ visual[kept], np.nan).astype(np.float32),
        "link_cosine": link.astype(np.float32),
        "cluster": (rows // 20).astype(np.int32),
    }
    reasons = np.where(gone, "near duplicate", "").astype(object)
    second = StepRun(PLAN[1], rows, Decision(~gone, reasons, np.where(gone, kept, -1), columns, notes or {}), 1.5)
    rows = rows[~gone]
    reasons = np.full(len(rows), "", object)
    reasons[-1] = "among the lowest"
    ranks = {"pair_cosine_rank": np.linspace(1, 0, len(rows))}
    third = StepRun(PLAN[2], rows, Decision(reasons == "", reasons, np.full(len(rows), -1), ranks), 0.01)
    rejected = (Rejected("x", "x.png", "not_a_picture"), Rejected("y", "y.png", "not_a_picture"))
    return Selection(pool, (first, second, third), 0, rejected)


class Opened:
    """Gives samples and pictures, and counts them."""

    def __init__(self, selection: Selection) -> None:
        self.pool, self.rows, self.pictures = selection.pool, 0, 0

    def samples(self, rows: IntArray) -> Sequence[Sample]:
        self.rows += len(rows)
        return [
            Sample.pair(self.pool["id"][int(row)], ImageRef(str(row)), self.pool["caption"][int(row)]) for row in rows
        ]

    def thumbnail(self, sample: Sample) -> Image.Image:
        self.pictures += 1
        if sample.images[0].path == "2":
            raise UserError("lost")
        return Image.new("RGB", (300, 200), (int(sample.images[0].path) % 255, 90, 20))


def page_of(selection: Selection, folder: Path, **more: Any) -> str:
    opened = Opened(selection)
    seconds = {"embed": 12.0, "dedup": 1.5}
    write_report(
        selection,
        folder / "report.html",
        samples_of=opened.samples,
        thumbnail=opened.thumbnail,
        model="colours",
        seconds=seconds,
        **more,
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """What a reader sees, in one line."""
    text = re.sub(r"<(style|title)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_the_funnel_counts_every_reason(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(), tmp_path))
    assert "From 42 image-text pairs to 34." in words
    for said in ("2 not a picture", "1 caption &lt;too&gt; short", "4 near duplicate", "1 among the lowest"):
        assert said in words


def test_chaining_is_shown_with_its_share_its_ends_and_the_way_between(tmp_path: Path) -> None:
    """Five rows at 0, 15 … 60 degrees, the one at 30 stays: the outer two are at 0.866 to it, the ends at 0.5."""
    words = words_of(page_of(selection_of(), tmp_path))
    assert "50.0 % of the removed pictures (2 of 4) are less like the one that stays than 0.95" in words
    assert "linked only by others between them, in 1 of the groups" in words
    assert "The ends: cosine 0.500 , 5 pictures from end to end" in words
    assert words.count("← 0.966") == 4


def test_the_steps_own_lowest_cosines_are_taken_for_all_groups(tmp_path: Path) -> None:
    selection = selection_of()
    dedup = selection.runs[1]
    rows = np.arange(39)
    component = np.where(rows < 5, 0, np.where(rows < 8, 1, rows)).astype(np.int32)  # a second group of three
    least = np.where(rows < 5, 0.5, np.where(rows < 8, 0.97, np.nan)).astype(np.float32)
    columns = {**dedup.decision.columns, "component": component, "least_cosine": least}
    told = replace(dedup, decision=replace(dedup.decision, columns=columns))
    words = words_of(page_of(replace(selection, runs=(selection.runs[0], told, selection.runs[2])), tmp_path))
    assert "2 groups; the largest has 5 pictures." in words
    assert "linked only by others between them, in 1 of the groups" in words
    assert words.count("The ends:") == 1


def test_a_tight_group_is_no_chain(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(chained=2), tmp_path))
    assert "linked only by others between them, in 0 of the groups" in words and "The ends:" not in words


def test_what_the_step_says_of_duplicates_left_is_told(tmp_path: Path) -> None:
    notes = {"left": 0.0123, "left_low": 0.009, "left_high": 0.016, "left_rows": 4_096}
    words = words_of(page_of(selection_of(notes=notes), tmp_path))
    assert "1.2 % of the removable duplicates are left, by estimate (95 % interval 0.9 to 1.6 %)" in words
    assert "from 4,096 pictures compared with all" in words
    assert "duplicates are left" not in words_of(page_of(selection_of(), tmp_path))


def test_sources_before_and_after(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(), tmp_path))
    assert "web 30 75.0 % 26 76.5 % 86.7 %" in words
    assert "book 10 25.0 % 8 23.5 % 80.0 %" in words


def test_time_and_memory_of_every_stage(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(), tmp_path, memory={"embed": 1.25e9}))
    assert "embed 12.00 1250 MB" in words and "dedup 1.50 –" in words


def test_the_threshold_curve_stands_at_the_threshold_used(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(), tmp_path))
    assert "At the threshold used, 0.95, 4 of 39 go." in words


def test_the_largest_clusters_come_with_pictures(tmp_path: Path) -> None:
    words = words_of(page_of(selection_of(), tmp_path))
    assert "20 pictures, 16 stay" in words and "19 pictures, 18 stay" in words


def test_captions_and_reasons_cannot_become_markup(tmp_path: Path) -> None:
    page = page_of(selection_of(), tmp_path)
    assert "<i>caption" not in page and "<too>" not in page and "&lt;i&gt;caption&lt;/i&gt; 3" in page


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = page_of(selection_of(), tmp_path)
    assert "<script" not in page and "http" not in page and "<link" not in page and "url(" not in page
    found = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert found and all(address.startswith(("data:image/webp;base64,", "#")) for address in found)


class _Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "a":
            self.links.append(str(given["href"]).removeprefix("#"))
        if tag in ("img", "svg"):
            self.images += 1
            assert given.get("alt") or given.get("aria-label"), attrs


def test_every_section_can_be_reached_and_every_picture_has_words(tmp_path: Path) -> None:
    outline = _Outline()
    outline.feed(page_of(selection_of(), tmp_path))
    assert outline.links and set(outline.links) <= outline.ids
    assert outline.images > 20


def test_a_lost_picture_leaves_its_caption(tmp_path: Path) -> None:
    page = page_of(selection_of(), tmp_path)
    assert "no picture" in page and "&lt;i&gt;caption&lt;/i&gt; 2" in page


def test_a_large_pool_costs_no_more_pictures_than_a_small_one(tmp_path: Path) -> None:
    selection = selection_of(60_000, 2_000)
    many = selection.runs[0]
    reasons = np.array([f"reason {row % 50}" if row % 3 else "" for row in range(60_000)], dtype=object)
    first = replace(many, decision=Decision(reasons == "", reasons, np.full(60_000, -1)))
    selection = replace(selection, runs=(first, *selection.runs[1:]))
    opened = Opened(selection)
    path = tmp_path / "report.html"
    write_report(
        selection, path, samples_of=opened.samples, thumbnail=opened.thumbnail, model="m", seconds={"dedup": 1.0}
    )
    assert opened.pictures <= report_wall.MOST_PICTURES and opened.rows <= 2 * report_wall.MOST_PICTURES
    assert path.stat().st_size < 8_000_000
    assert "38 other reasons" in path.read_text(encoding="utf-8")


def test_pictures_stop_at_a_number_of_bytes_and_captions_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_wall, "MOST_BYTES", 600)
    page = page_of(selection_of(), tmp_path)
    assert 0 < page.count("data:image") < 12 and page.count("no picture") > 20


def test_an_empty_pool_and_one_without_duplicates_have_a_page(tmp_path: Path) -> None:
    pool = Pool({"id": Texts.of([]), "caption": Texts.of([]), "visual": np.empty((0, 2), np.float32)}, ordered=True)
    empty = Selection(pool, (), 0, (Rejected("x", "", "damaged"),))
    assert "From 1 image-text pairs to 0." in words_of(page_of(empty, tmp_path))
    assert "What stays" in words_of(page_of(selection_of(chained=1), tmp_path))


def test_the_same_selection_gives_the_same_page(tmp_path: Path) -> None:
    assert page_of(selection_of(), tmp_path) == page_of(selection_of(), tmp_path)
