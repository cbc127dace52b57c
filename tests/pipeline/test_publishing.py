"""A curated set goes up: what is handed to the Hub's client, which is a stub here; the network is never asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from bunny.core.errors import UserError
from bunny.curate.card import front_matter
from bunny.pipeline import publishing
from tests.curate.test_card import make_set


class Hub:
    """Stands for `huggingface_hub.HfApi`: remembers what it was asked for, or fails as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, **words: Any) -> None:
        self.calls.append(("create_repo", words))
        if self.error:
            raise self.error

    def upload_folder(self, **words: Any) -> None:
        self.calls.append(("upload_folder", words))

    def upload_large_folder(self, **words: Any) -> None:
        self.calls.append(("upload_large_folder", words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_set(tmp_path / "runs" / "little" / "curated")
    (folder / "parquet").mkdir()
    (folder / "parquet" / "00000.parquet").write_bytes(b"x" * 100)
    (folder / "parquet" / ".written.jsonl").write_text("{}")
    (folder / "parquet" / "not_written.jsonl").write_text("{}")
    (folder / "rejected.jsonl").write_text("{}")
    return folder.parent


def test_a_push_creates_the_data_set_and_uploads_with_a_card(run: Path) -> None:
    hub = Hub()
    told = publishing.push(run, "lab/set", licence="cc-by-4.0", private=True, api=hub)
    (_, made), (name, sent) = hub.calls
    assert made == {"repo_id": "lab/set", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert (name, sent["repo_id"], sent["repo_type"]) == ("upload_folder", "lab/set", "dataset")
    assert front_matter(Path(sent["folder_path"]) / "README.md")["license"] == "cc-by-4.0"
    assert told["uploaded"] is True
    assert told["url"] == "https://huggingface.co/datasets/lab/set"


def test_what_is_listed_is_what_the_client_would_send(run: Path) -> None:
    """The client filters by patterns; the list is made by us: both must agree."""
    from huggingface_hub.utils import filter_repo_objects

    hub = Hub()
    told = publishing.push(run, "lab/set", licence="mit", api=hub)
    sent = hub.calls[1][1]
    folder = Path(sent["folder_path"])
    all_files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    left = list(filter_repo_objects(all_files, ignore_patterns=sent["ignore_patterns"]))
    assert left == sorted(one["path"] for one in told["files"])
    assert left == ["README.md", "decisions.parquet", "parquet/00000.parquet", "summary.json"]


def test_a_large_set_goes_up_in_pieces(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MANY_BYTES", 50)
    hub = Hub()
    publishing.push(run, "lab/set", licence="mit", api=hub)
    assert hub.calls[1][0] == "upload_large_folder"


def test_a_dry_run_asks_nobody_and_changes_nothing(run: Path) -> None:
    hub = Hub()
    told = publishing.push(run, "lab/set", licence="mit", dry_run=True, api=hub)
    assert hub.calls == []
    assert told["uploaded"] is False
    assert not (run / "curated" / "README.md").exists()


def test_without_a_licence_nothing_goes_up_but_a_common_one_counts(run: Path, tmp_path: Path) -> None:
    hub = Hub()
    with pytest.raises(UserError, match=r"under which licence\?.*--license"):
        publishing.push(run, "lab/set", api=hub)
    assert hub.calls == []
    make_set(tmp_path / "free" / "curated", ("cc0-1.0",) * 3)
    assert publishing.push(tmp_path / "free", "lab/set", api=hub)["license"] == "cc0-1.0"


@pytest.mark.parametrize("repo", ["set", "a/b/c", "lab/", "lab/se t", "../x"])
def test_a_name_that_is_no_repository_is_refused(repo: str, run: Path) -> None:
    with pytest.raises(UserError, match="no repository"):
        publishing.push(run, repo, licence="mit", api=Hub())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LocalTokenNotFoundError("no token"), "hf auth login"),
        (
            HfHubHTTPError("403", response=httpx.Response(403, request=httpx.Request("POST", "http://hub"))),
            "the Hub refuses",
        ),
        (ConnectionError("no route"), "cannot be reached"),
    ],
)
def test_what_the_hub_answers_is_told_in_one_line(error: Exception, told: str, run: Path) -> None:
    with pytest.raises(UserError, match=told):
        publishing.push(run, "lab/set", licence="mit", api=Hub(error))
