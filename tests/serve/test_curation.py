"""The explorer over HTTP: rows by filter, groups, thresholds, pictures, second thoughts, and who may ask."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from bunny.curate.explore import Explorer
from bunny.serve.curation import make_app
from bunny.serve.guarding import host_allowed
from bunny.serve.thumbnails import Thumbnails

from .conftest import ROWS


@pytest.fixture
def client(explorer: Explorer) -> Iterator[TestClient]:
    with TestClient(make_app(explorer), base_url="http://127.0.0.1:8000") as client:
        yield client


def ids(client: TestClient, **words: Any) -> list[str]:
    return [row["id"] for row in client.get("/api/rows", params=words).json()["rows"]]


def test_about_says_what_there_is(client: TestClient) -> None:
    about = client.get("/api/about").json()
    assert (about["rows"], about["kept"], about["steps"]) == (13, 9, ["dedup", "band"])
    assert about["clusters"] and about["groups"] and about["thresholds"] and about["map"]


def test_a_window_has_its_rows_and_the_number_of_all(client: TestClient) -> None:
    found = client.get("/api/rows", params={"start": 3, "count": 2}).json()
    assert found["total"] == 13
    assert [row["id"] for row in found["rows"]] == ["s03", "s04"]
    assert client.get("/api/rows", params={"start": 100}).json()["rows"] == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({"fate": "dropped"}, ["s01", "s05", "s07", "broken"]),
        ({"step": "dedup"}, ["s01", "s05"]),
        ({"reason": "among the lowest"}, ["s07"]),
        ({"source": "red", "fate": "kept"}, ["s03", "s09", "s11"]),
        ({"text": "SQUARE 1"}, ["s01", "s10", "s11"]),
        ({"text": "s1"}, ["s10", "s11"]),
        ({"cluster": 0, "text": "square 1"}, ["s10"]),
        ({"group": 21}, ["s01", "s03", "s05"]),
        ({"step": "no such step"}, []),
        ({"fate": "dropped", "sort": "pair_cosine", "descending": 1}, ["s07", "s05", "s01", "broken"]),
        ({"fate": "dropped", "sort": "pair_cosine"}, ["s01", "s05", "s07", "broken"]),
    ],
)
def test_filters_and_orders(client: TestClient, words: dict[str, Any], wanted: list[str]) -> None:
    assert ids(client, **words) == wanted


@pytest.mark.parametrize("words", [{"fate": "eaten"}, {"sort": "caption"}, {"cluster": "x"}, {"selection": "9"}])
def test_a_wrong_condition_is_told(client: TestClient, words: dict[str, str]) -> None:
    answer = client.get("/api/rows", params=words)
    assert answer.status_code == 404 and answer.json()["error"]


def test_counts_leave_out_their_own_condition(client: TestClient) -> None:
    counts = client.get("/api/counts", params={"step": "dedup", "source": "red"}).json()
    assert counts["step"] == {"dedup": 2, "band": 1}
    assert counts["fate"] == {"kept": 0, "dropped": 2, "changed": 0}
    assert counts["source"] == {"red": 2}


def test_a_selection_of_the_map_can_be_asked_for(client: TestClient) -> None:
    name = client.post("/api/selection", json={"rows": [4, 2, 999]}).json()["selection"]
    assert ids(client, selection=name) == ["s02", "s04"]
    assert client.post("/api/selection", json={"rows": ["x"]}).status_code == 400


def test_clusters_largest_first_with_faces_that_stay_first(client: TestClient) -> None:
    found = client.get("/api/clusters").json()
    assert found["total"] == 2
    assert [(group["label"], group["size"], group["kept"]) for group in found["groups"]] == [(0, 6, 6), (1, 6, 3)]
    assert [face["id"] for face in found["groups"][1]["faces"]][:3] == ["s03", "s09", "s11"]


def test_duplicate_groups_tell_their_lowest_cosine_and_whether_they_are_chained(client: TestClient) -> None:
    (group,) = client.get("/api/duplicates", params={"by": "lowest"}).json()["groups"]
    assert (group["label"], group["size"], group["kept"], group["chained"]) == (21, 3, 1, True)
    assert group["lowest"] == pytest.approx(0.90)
    assert client.get("/api/duplicates", params={"cluster": 0}).json()["groups"] == []
    assert client.get("/api/duplicates", params={"cluster": 1}).json()["total"] == 1


def test_a_sample_is_shown_with_its_twin_its_neighbours_and_those_it_stands_for(client: TestClient) -> None:
    dropped = client.get("/api/sample/5").json()
    assert (dropped["twin"]["id"], dropped["link"]["id"]) == ("s03", "s03")
    assert dropped["record"]["pair_cosine"] == pytest.approx(0.5)
    assert dropped["where"][0].endswith("5.png")
    kept = client.get("/api/sample/3").json()
    assert [row["id"] for row in kept["stands_for"]] == ["s01", "s05"]
    cosines = [row["cosine"] for row in kept["neighbours"]]
    assert cosines == sorted(cosines, reverse=True) and {row["cluster"] for row in kept["neighbours"]} == {1}
    assert client.get("/api/sample/99").status_code == 404
    assert client.get("/api/find", params={"id": "s07"}).json() == {"row": 7}
    assert client.get("/api/find", params={"id": "nobody"}).status_code == 404


def test_a_row_that_never_came_into_the_pool_has_no_picture(client: TestClient) -> None:
    sample = client.get(f"/api/sample/{ROWS}").json()
    assert (sample["picture"], sample["neighbours"], sample["reason"]) == (False, [], "damaged")
    assert client.get(f"/picture/{ROWS}").status_code == 404


def test_removed_counts_are_those_of_the_links(client: TestClient) -> None:
    found = client.get("/api/thresholds").json()
    assert found["used"] == 0.95
    at = dict(zip(found["grid"], found["removed"], strict=True))
    assert at == {0.9: 3, 0.95: 2, 0.955: 2, 0.97: 1}


def test_another_threshold_names_the_pairs_that_make_the_difference(client: TestClient) -> None:
    lower = client.get("/api/threshold", params={"at": 0.9}).json()
    assert (lower["removed"], lower["groups"], lower["largest"], lower["pairs_count"]) == (3, 1, 4, 1)
    assert (lower["pairs"][0]["one"]["id"], lower["pairs"][0]["other"]["id"]) == ("s09", "s03")
    higher = client.get("/api/threshold", params={"at": 0.96}).json()
    assert (higher["removed"], higher["largest"]) == (1, 2)
    assert [pair["one"]["id"] for pair in higher["pairs"]] == ["s05"]
    assert client.get("/api/threshold", params={"at": "much"}).status_code == 400


def test_the_map_has_every_row_once_and_parts_the_heaps(client: TestClient) -> None:
    data = client.get("/api/map").content
    (size,) = struct.unpack_from("<I", data)
    assert size == ROWS and len(data) == 4 + size * 17
    x = struct.unpack_from(f"<{size}f", data, 4 + 4 * size)
    assert max(x[1::2]) < min(x[0::2]) or max(x[0::2]) < min(x[1::2])
    assert [flag & 1 for flag in data[-size:]] == [1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1]
    assert [flag >> 1 for flag in data[-size:]] == [0, 1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]


def test_pictures_come_small_and_a_lost_one_is_said_so(client: TestClient) -> None:
    small, large = (client.get("/picture/4", params={"size": size}) for size in ("", "large"))
    assert small.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(small.content)).size == (192, 128)
    assert Image.open(io.BytesIO(large.content)).size == (300, 200)
    assert client.get(f"/picture/{ROWS - 1}").status_code == 404
    assert client.get("/picture/99").status_code == 404


@pytest.mark.parametrize(
    "path", ["/picture/../run/summary.json", "/page/../curation.py", "/page/__init__.py", "/picture/x"]
)
def test_no_address_leads_to_another_file(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get(path.replace("..", "%2e%2e")).status_code == 404


def test_thumbnails_are_kept_up_to_a_number_of_bytes() -> None:
    opened: list[int] = []

    def open_row(row: int, side: int) -> Image.Image:
        opened.append(row)
        return Image.effect_noise((side, side), 90)

    thumbnails = Thumbnails(open_row, most_bytes=12_000)
    one = thumbnails.get(1, 64)
    assert one == thumbnails.get(1, 64) and opened == [1]
    for row in range(2, 30):
        thumbnails.get(row, 64)
    assert thumbnails.bytes <= 12_000
    thumbnails.get(1, 64)
    assert opened.count(1) == 2


def override(client: TestClient, row: int, keep: bool | None, note: str = "") -> dict[str, Any]:
    answer = client.post("/api/override", json={"row": row, "keep": keep, "note": note})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_second_thought_counts_at_once_and_after_a_new_start(
    client: TestClient, opened: Callable[[], Explorer]
) -> None:
    item = override(client, 5, True, "a nice one")
    assert (item["kept"], item["changed"], item["changed_count"], item["kept_count"]) == (True, True, 1, 10)
    assert ids(client, fate="changed") == ["s05"] and "s05" in ids(client, fate="kept")
    override(client, 0, False)
    again = opened()
    assert again.about()["changed"] == 2 and again.sample(5)["note"] == "a nice one"
    override(client, 5, None)
    assert ids(client, fate="changed") == ["s00"]


def test_a_torn_line_is_passed_over_and_the_next_thought_stands_on_its_own(
    run: Path, opened: Callable[[], Explorer]
) -> None:
    opened().override(5, True, "")
    path = run / "overrides.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "s01", "ke')
    torn = opened()
    assert torn.about()["changed"] == 1
    torn.override(7, True, "")
    assert {one["id"] for one in opened().window({"fate": "changed"}, 0, 9)["rows"]} == {"s05", "s07"}


@pytest.mark.parametrize(
    "body", [{"row": "5", "keep": True}, {"row": 5, "keep": "yes"}, {"row": True, "keep": True}, [1]]
)
def test_a_thought_that_is_none_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/api/override", json=body).status_code == 400


def test_export_of_ids_and_of_the_table(client: TestClient, tmp_path: Path) -> None:
    override(client, 5, True, "nice")
    override(client, 0, False)
    kept = client.get("/export/ids.txt", params={"fate": "kept"}).text.splitlines()
    assert kept == ["s02", "s03", "s04", "s05", "s06", "s08", "s09", "s10", "s11"]
    (tmp_path / "out.parquet").write_bytes(client.get("/export/decisions.parquet").content)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows if row["kept"]] == kept
    assert {row["id"]: (row["kept_by_run"], row["note"]) for row in rows if row["note"] is not None} == {
        "s00": (True, ""),
        "s05": (False, "nice"),
    }


@pytest.mark.parametrize(
    ("host", "bound", "allowed"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost:1", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("evil.example:8000", "127.0.0.1", False),
        ("10.0.0.5:8000", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("10.0.0.5:8000", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("box.local:80", "box.local", True),
        ("[", "127.0.0.1", False),
    ],
)
def test_only_our_own_names_are_answered(host: str, bound: str, allowed: bool) -> None:
    assert host_allowed(host, bound) is allowed


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)
def test_another_site_cannot_change_anything(client: TestClient, headers: dict[str, str]) -> None:
    body = b'{"row": 5, "keep": true}'
    given = {"content-type": "application/json", **headers}
    assert client.post("/api/override", content=body, headers=given).status_code == 403
    assert client.get("/api/about").json()["changed"] == 0


def test_a_link_from_elsewhere_leads_to_the_page_but_to_no_picture(client: TestClient) -> None:
    from_elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=from_elsewhere).status_code == 200
    assert client.get("/picture/1", headers=from_elsewhere).status_code == 403


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    names = ["look.css", "main.js", "api.js", "detail.js", "elements.js", "filters.js", "map.js", "threshold.js"]
    texts = [answer.text, *(client.get(f"/page/{name}").text for name in [*names, "windowed.js"])]
    assert not [text for text in texts if "https://" in text]
    assert all("http://" not in text.replace("http://www.w3.org/2000/svg", "") for text in texts)


def test_a_run_without_its_pool_can_still_be_looked_at(opened: Callable[[], Explorer]) -> None:
    explorer = opened()
    explorer.pool = None
    with TestClient(make_app(explorer), base_url="http://127.0.0.1") as client:
        assert client.get("/api/about").json()["map"] is False
        assert client.get("/api/sample/5").json()["twin"]["id"] == "s03"
        assert client.get("/picture/5").status_code == 404
        assert client.get("/api/map").status_code == 404
