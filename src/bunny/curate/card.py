"""The card of a curated set: `README.md` in the Hub's format, true by construction.

In: the folder of a finished curation (summary, decision table, samples, what was written beside them). Out: YAML front
matter (licence, tasks, size, files) and a page: what it is, sources, licences, figures, how it was chosen, how to make
the same bytes again, limits.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bunny.core.sample_table import iterate_samples
from bunny.core.store import write_atomic

CARD = "README.md"
LICENCE_KEYS = ("license", "licence", "rights", "license_url")
_COMMONS = ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
HUB_LICENCES = frozenset(
    ["apache-2.0", "mit", "cc0-1.0", "pddl", "odc-by", "odbl", "gpl-3.0", "other", "unknown"]
    + [f"cc-{kind}-{version}" for kind in _COMMONS for version in ("2.0", "2.5", "3.0", "4.0")]
)
"""Names that the Hub knows, of those that data sets use."""

_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
_SHOWN = 15  # rows of a table


def write_card(folder: Path, *, name: str, settings: Mapping[str, Any], licence: str = "") -> Path:
    """Write the card into the curated folder. settings: the recipe's `seed`, `pool` and `curate`.

    licence: of the set as a whole; default: that of an earlier card, else the one all samples name, else none.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    licences, talks = _samples(folder / "samples.parquet")
    licence = licence or str(front_matter(folder / CARD).get("license", "")) or _common(licences)
    front = _front(folder, name, summary, licence, talks)
    parts = [
        f"# {name}\n",
        _what(folder, summary, talks),
        _sources(folder / "decisions.parquet"),
        _licences(licences, licence),
        _figures(folder / "decisions.parquet"),
        _chosen(summary),
        _again(folder, name, settings, summary),
        _limits(summary),
    ]
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    write_atomic(folder / CARD, f"---\n{head}---\n\n" + "\n".join(parts))
    return folder / CARD


def front_matter(card: Path) -> dict[str, Any]:
    """What stands between the `---` lines at a card's head; nothing where there is no card."""
    try:
        text = card.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    _, head, _ = text.split("---\n", 2) if text.startswith("---\n") and text.count("---\n") > 1 else ("", "", "")
    found = yaml.safe_load(head)
    return found if isinstance(found, dict) else {}


def licence_of(folder: Path) -> str:
    """The licence that a card of this folder would name; empty if that is not known."""
    return str(front_matter(folder / CARD).get("license", "")) or _common(_samples(folder / "samples.parquet")[0])


def _samples(path: Path) -> tuple[Counter[str], bool]:
    """Licences that the samples name (empty: none), and whether any sample is a conversation."""
    licences: Counter[str] = Counter()
    talks = False
    for sample in iterate_samples(path) if path.exists() else ():
        named = next((sample.meta[key] for key in LICENCE_KEYS if sample.meta.get(key)), "")
        licences[" ".join(str(named).split())] += 1
        talks = talks or any(turn.role == "user" for turn in sample.turns)
    return licences, talks


def _common(licences: Mapping[str, int]) -> str:
    """The Hub's name of the licence that all samples name, if they do."""
    (only,) = licences if len(licences) == 1 else ("",)
    name = only.lower().replace(" ", "-")
    return name if name in HUB_LICENCES else ""


def _front(folder: Path, name: str, summary: Mapping[str, Any], licence: str, talks: bool) -> dict[str, Any]:
    front: dict[str, Any] = {"license": licence} if licence else {}
    front["pretty_name"] = name
    front["task_categories"] = ["visual-question-answering"] if talks else ["image-to-text", "text-to-image"]
    front["size_categories"] = [next((size for size, limit in _SIZES if summary["kept"] < limit), "n>10M")]
    front["tags"] = ["image-text", "data-curation", "bunny-vlm"]
    front["configs"] = _configs(folder)
    return front


def _configs(folder: Path) -> list[dict[str, Any]]:
    """What the Hub shows and `datasets` loads. It reads all configs of a set by one format: Parquet where it can be."""
    if any((folder / "webdataset").glob("*.tar")) and not any((folder / "parquet").glob("*.parquet")):
        return [{"config_name": "webdataset", "data_files": "webdataset/*.tar", "default": True}]
    names = {"parquet": "parquet/*.parquet", "decisions": "decisions.parquet"}
    found = [{"config_name": name, "data_files": files} for name, files in names.items() if any(folder.glob(files))]
    return [{**found[0], "default": True}, *found[1:]]


def _what(folder: Path, summary: Mapping[str, Any], talks: bool) -> str:
    kept, seen = summary["kept"], summary["samples"]
    kind = "conversations about pictures" if talks else "image-text pairs"
    lines = [
        f"{kept:,} {kind}, chosen from {seen:,} ({kept / max(1, seen):.1%}). Every one of the {seen:,} has a row in",
        "`decisions.parquet` that says whether it stayed, which step dropped it and why, and which picture stands for",
        "it.",
        "",
        "| file | what it holds |",
        "|---|---|",
    ]
    held = {
        "parquet": "pictures (bytes as they were found), captions, scores; loads with `datasets`",
        "webdataset": "the same as tar shards",
        "llava_json": "the same as a LLaVA list and a folder of pictures",
        "datacomp_uids": "the uids as a DataComp subset",
        "ids": "the ids, one a line",
    }
    lines += [f"| `{kind}/` | {what} |" for kind, what in held.items() if (folder / kind).is_dir()]
    lines += [
        "| `decisions.parquet` | every sample's fate and scores |",
        "| `summary.json` | counts of each step |",
    ]
    return "\n".join(lines) + "\n"


def _sources(decisions: Path) -> str:
    rows = _by_source(decisions)
    lines = [f"| {_cell(source)} | {seen:,} | {kept:,} | {kept / seen:.1%} |" for source, seen, kept in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        seen, kept = sum(row[1] for row in rows[_SHOWN:]), sum(row[2] for row in rows[_SHOWN:])
        lines.append(f"| {len(rows) - _SHOWN} more | {seen:,} | {kept:,} | {kept / seen:.1%} |")
    return "\n".join(["## Sources\n", "| source | seen | kept | share |", "|---|--:|--:|--:|", *lines]) + "\n"


def _by_source(decisions: Path) -> list[tuple[str, int, int]]:
    """(source, rows seen, rows kept), most kept first."""
    seen: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for batch in _batches(decisions, ["source", "kept"]):
        for counts, rows in ((seen, batch), (kept, batch.filter(batch.column("kept")))):
            for one in rows.column("source").value_counts().to_pylist():
                counts[one["values"] or "(unreadable)"] += one["counts"]
    return sorted(((name, seen[name], kept[name]) for name in seen), key=lambda row: (-row[2], row[0]))


def _licences(licences: Counter[str], licence: str) -> str:
    """What the samples themselves say; nothing is looked up."""
    total = sum(licences.values())
    said = [f"| {_cell(name) or 'none named'} | {count:,} |" for name, count in licences.most_common(_SHOWN)]
    lines = ["## Licences\n"]
    lines.append(f"The set as a whole is published under `{licence}`.\n" if licence else "No licence is given yet.\n")
    if total and set(licences) != {""}:
        lines += ["What the samples' own records name:\n", "| licence | samples |", "|---|--:|", *said]
    else:
        lines.append("The samples' records name no licences: look them up at the sources.")
    return "\n".join(lines) + "\n"


def _figures(decisions: Path) -> str:
    """Five numbers of each score of the samples that stay."""
    import numpy as np

    names = {
        "width": "width in pixels",
        "height": "height in pixels",
        "words": "words of the caption",
        "pair_cosine": "likeness of picture and caption",
        "centre_cosine": "likeness to the centre of the group",
        "aesthetic": "aesthetic score",
        "clip_score": "CLIP score of the source",
    }
    values: dict[str, list[Any]] = {name: [] for name in names}
    for batch in _batches(decisions, [*names, "caption", "kept"]):
        kept = batch.filter(batch.column("kept"))
        for name in names:
            if name in kept.schema.names:
                values[name].append(kept.column(name).drop_null().to_numpy(zero_copy_only=False).astype(np.float64))
        if "caption" in kept.schema.names:
            values["words"].append(_words(kept.column("caption")))
    lines = []
    for name, title in names.items():
        found = np.concatenate([*values[name], np.zeros(0)])
        if len(found) and found.any():
            five = " | ".join(f"{value:.4g}" for value in np.quantile(found, [0, 0.05, 0.5, 0.95, 1]))
            lines.append(f"| {title} | {five} |")
    head = ["## Figures\n", "| of what stays | least | 5 % | median | 95 % | most |", "|---|--:|--:|--:|--:|--:|"]
    return "\n".join([*head, *lines]) + "\n"


def _words(captions: Any) -> Any:
    import numpy as np
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(captions.drop_null())
    return np.asarray(pc.list_value_length(pc.utf8_split_whitespace(trimmed)), dtype=np.float64)


def _chosen(summary: Mapping[str, Any]) -> str:
    """The funnel: each step with its settings, and for which reasons it dropped how many."""
    lines = [
        "## How it was chosen\n",
        f"Pictures and captions were compared by {summary['embedder']}. Steps, in order:\n",
        "| step | settings | in | out | dropped, why |",
        "|---|---|--:|--:|---|",
    ]
    if summary["rejected"]:
        why = "; ".join(f"{count:,} {reason}" for reason, count in summary["rejected"].items())
        lines.append(f"| reading | | {summary['samples']:,} | {summary['embedded']:,} | {_cell(why)} |")
    for step in summary["steps"]:
        settings = {key: value for key, value in step["settings"].items() if key != "use"}
        said = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())
        why = "; ".join(f"{count:,} {reason}" for reason, count in list(step["reasons"].items())[:_SHOWN])
        lines.append(f"| {step['step']} | {_cell(said)} | {step['in']:,} | {step['out']:,} | {_cell(why)} |")
    return "\n".join(lines) + "\n"


def _again(folder: Path, name: str, settings: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The recipe, and what shows that a second run made the same."""
    recipe = {
        "name": name,
        **{key: settings[key] for key in ("seed", "pool", "curate") if settings.get(key) is not None},
    }
    digest = hashlib.sha256()
    with (folder / "decisions.parquet").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    text = yaml.safe_dump(without_roots(recipe), sort_keys=False, allow_unicode=True)
    manifest = folder / "manifest.json"
    mark = json.loads(manifest.read_text(encoding="utf-8")).get("fingerprint") if manifest.exists() else None
    marked = f"Fingerprint of settings and inputs (`manifest.json`): `{mark}`. " if mark else ""
    return (
        "## Made again\n\n"
        f"On the same pool, with seed {summary['seed']}, `bunny curate run recipe.yaml` gives the same bytes. "
        "The recipe:\n\n"
        f"```yaml\n{text}```\n\n"
        f"{marked}sha256 of `decisions.parquet`: `{digest.hexdigest()}`.\n"
    )


def without_roots(value: Any) -> Any:
    """Settings as they are, but for folders of one machine: of an absolute path its last part."""
    if isinstance(value, Mapping):
        return {key: without_roots(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_roots(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _limits(summary: Mapping[str, Any]) -> str:
    lines = [
        "## Limits\n",
        f"- Likeness is what {summary['embedder']} takes for it: what that model does not see, no step saw either.",
        "- Nobody looked at every picture. Faces, names, insults and untrue captions were not searched for, unless a "
        "step above says so.",
        "- Licences are those the records name; they were not verified.",
        "- A step that ranks keeps a share of this pool: what is rare in it may be rarer than before.",
    ]
    return "\n".join(lines) + "\n"


def _batches(decisions: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Record batches of those columns that the table has."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(decisions) as file:
        known = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(batch_size=65_536, columns=known)


def _cell(text: str) -> str:
    """Text that cannot break out of a table's cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
