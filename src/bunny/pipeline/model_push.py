"""An exported model gets a card and goes to the Hugging Face Hub.

In: the model's folder, its export, what was done. Out: `README.md` in the export; what was uploaded. The card begins
with the source model's own, if it has one, and adds what this copy is, how to run it, and whether it was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bunny.core.errors import UserError
from bunny.core.store import write_atomic
from bunny.curate.card import front_matter
from bunny.pipeline.publishing import check_repo, upload

CARD = "README.md"
LIBRARY = {"llava": "transformers", "gguf": "llama.cpp"}
RUN = {
    "llava": "vllm serve {repo}",
    "gguf": "llama-server -hf {repo}",
    "adapter": "hf download {repo} --local-dir adapter",
    "merged": 'hf download {repo} --local-dir model && bunny chat model PICTURE "What is this?"',
    "original": "hf download {repo} --local-dir model && bunny import model -o bunny-model",
}


def check_push(folder: Path, repo: str, licence: str) -> str:
    """The licence to name. Raises UserError, before anything is written, for a wrong name or without a licence."""
    check_repo(repo, "my-lab/bunny-3b-llava")
    licence = licence or str(front_matter(folder / CARD).get("license") or "")
    if not licence:
        fix = "look at those of the language model, the tower and the data: --license apache-2.0 (or other)"
        raise UserError(f"{folder}: under which licence?", fix=fix)
    return licence


def push_model(folder: Path, facts: dict[str, Any], repo: str, licence: str, private: bool, api: Any = None) -> None:
    """Write the card into the export and upload it; `facts` gets the address. api: a `huggingface_hub.HfApi`."""
    out = Path(facts["out"])
    write_atomic(out / CARD, card(folder, facts, repo, licence))
    files = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    told = {
        "files": [{"path": str(path.relative_to(out)), "bytes": path.stat().st_size} for path in files],
        "bytes": sum(path.stat().st_size for path in files),
    }
    upload(out, repo, "model", private, told, [".*", "*/.*"], f"Bunny, exported as {facts['to']}", api)
    facts |= {"url": f"https://huggingface.co/{repo}", "license": licence, "private": private}


def card(folder: Path, facts: Mapping[str, Any], repo: str, licence: str) -> str:
    """The card's text: the source's front matter and page, if there are any, and this copy's own part."""
    source = folder / CARD
    meta = dict(front_matter(source))
    page = source.read_text(encoding="utf-8").split("\n---\n", 1)[-1].strip() if source.exists() else f"# {repo}"
    meta |= {"license": licence, "pipeline_tag": "image-text-to-text"}
    meta["library_name"] = LIBRARY.get(facts["to"], "bunny-vlm")
    meta["tags"] = list(dict.fromkeys([*meta.get("tags", ()), "bunny-vlm", "vision-language", facts["to"]]))
    head = yaml.safe_dump(meta, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{page}\n\n{_this_copy(facts, repo)}"


def _this_copy(facts: Mapping[str, Any], repo: str) -> str:
    lines = ["## This copy", "", f"Written by `bunny export --to {facts['to']}`.", "", "```sh"]
    lines += [RUN[facts["to"]].format(repo=repo), "```", ""]
    agreement = facts.get("agreement")
    if agreement:
        lines.append(
            f"Compared with the model it was made from: {agreement['probes']} talks, "
            f"{agreement['tokens']} greedy tokens; logits differ by {agreement['logits']:.2g} at most "
            f"(allowed: {agreement['allowed']:.2g})."
        )
    else:
        lines.append("It was not compared with the model it was made from (`--verify`).")
    lines += [f"- {note}" for note in facts.get("notes", ())]
    return "\n".join(lines) + "\n"
