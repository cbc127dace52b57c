"""A curated set goes to the Hugging Face Hub: card, decisions, figures, and whatever formats were written.

In: a run folder and a repository's name. Out: what was (or would be) uploaded. Files that hold this machine's paths
stay here. The network is asked for nothing before the upload itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import MANIFEST
from bunny.pipeline.curated import CARD, REJECTED, SAMPLES, find_run
from bunny.pipeline.exports import NOT_WRITTEN, write_card_of

STAYS = (SAMPLES, REJECTED, NOT_WRITTEN, MANIFEST)
MANY_BYTES, MANY_FILES = 5 << 30, 10_000  # from here on in pieces that can be gone on with
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def push(
    run: Path, repo: str, *, licence: str = "", private: bool = False, dry_run: bool = False, api: Any = None
) -> dict[str, Any]:
    """Upload a curation; `dry_run` only lists the files. api: a `huggingface_hub.HfApi` (token from the usual places).

    Raises UserError without a licence, for a name that is none, and where the Hub refuses.
    """
    from bunny.curate.card import licence_of

    found = find_run(run)
    check_repo(repo, "my-lab/coreset")
    if not found.summary:
        raise UserError(f"{run}: no summary.json beside its table", fix="curate again: `bunny curate run RECIPE`")
    licence = licence or licence_of(found.folder)
    if not licence:
        raise UserError(
            f"{run}: under which licence?", fix="look at the sources' own and name it: --license cc-by-4.0 (or other)"
        )
    if not dry_run:
        write_card_of(found, licence)
    files = _files(found.folder)
    told: dict[str, Any] = {
        "repo": repo,
        "url": f"https://huggingface.co/datasets/{repo}",
        "license": licence,
        "private": private,
        "files": [{"path": str(path.relative_to(found.folder)), "bytes": path.stat().st_size} for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        "uploaded": False,
        "pictures": any(path.parent != found.folder for path in files),
    }
    if dry_run:
        if not (found.folder / CARD).exists():
            told["files"].insert(0, {"path": CARD, "bytes": 0})  # it is written before the upload
        return told
    ignored = [".*", "*/.*", *STAYS, *(f"*/{name}" for name in STAYS)]
    upload(found.folder, repo, "dataset", private, told, ignored, "Curated with Bunny", api)
    return {**told, "uploaded": True}


def check_repo(repo: str, example: str) -> None:
    """Raise UserError for what is no repository's name."""
    if not _REPO.fullmatch(repo):
        raise UserError(f"`{repo}` is no repository of the Hub", fix=f"write it as OWNER/NAME, e.g. {example}")


def _files(folder: Path) -> list[Path]:
    """What goes up: nothing hidden, nothing that tells where pictures lie on this machine."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in STAYS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def upload(
    folder: Path,
    repo: str,
    kind: str,
    private: bool,
    told: dict[str, Any],
    ignored: list[str],
    message: str,
    api: Any = None,
) -> None:
    """Hand a folder to the Hub's client. kind: `dataset` or `model`. told: its `files` and `bytes`.

    Raises UserError where the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = api or HfApi()
    names = [one["path"] for one in told["files"]]
    many = told["bytes"] > MANY_BYTES or len(names) > MANY_FILES
    try:
        api.create_repo(repo_id=repo, repo_type=kind, private=private, exist_ok=True)
        log.info("%s: %d files, %.1f MB", repo, len(names), told["bytes"] / 1e6)
        if many and hasattr(api, "upload_large_folder"):
            api.upload_large_folder(repo_id=repo, repo_type=kind, folder_path=folder, ignore_patterns=ignored)
        else:
            api.upload_folder(
                repo_id=repo, repo_type=kind, folder_path=folder, ignore_patterns=ignored, commit_message=message
            )
    except (LocalTokenNotFoundError, HFValidationError) as error:
        raise UserError(f"{repo}: {_line(error)}", fix="log in with `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        raise UserError(
            f"{repo}: the Hub refuses: {_line(error)}",
            fix="log in (`hf auth login` or HF_TOKEN) with the right to write there",
        ) from None
    except OSError as error:  # connection errors are OSErrors
        raise UserError(f"{repo}: the Hub cannot be reached: {_line(error)}", fix="try again; it goes on") from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"
