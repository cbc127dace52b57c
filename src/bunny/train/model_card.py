"""The card of a trained model: `README.md` in the Hub's format, from what the stage has left in its folder.

In: a finished stage's folder (figures, left-out rows, evaluations) and what only its maker knows (parts, data, recipe).
Out: YAML front matter (licence, base models, sets, scores) and a page: what it is, what it learnt from, how, how well,
how to use it, limits. `card.json` beside it holds the contents, so that scores can be put in later.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData

from bunny.core.errors import UserError
from bunny.core.log import Metrics
from bunny.core.store import write_atomic

CARD, CONTENTS = "README.md", "card.json"
CURVES = "training/curves.png"
HUB_LICENCES = frozenset({"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "gemma"})
"""Names that the Hub knows, of those that models use."""

_RECIPE = "\0recipe\0"  # stands on the page until its blank lines are settled
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


@dataclass(frozen=True, slots=True)
class Part:
    """A model that this one was made from. hub: its repository, if it has one; licence: of its weights, if known."""

    what: str
    name: str
    hub: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """A set of rows that was learnt from: rows there were, rows taken. hub: its repository, if it has one."""

    name: str
    available: int
    used: int
    hub: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What the page says. stage: `align`, `tune`, `second` or `merge`. recipe: its settings, as YAML can hold them.

    facts: the stage's figures; left_out: reason -> rows; curation: kept and seen, or nothing; during: scores while it
    learnt, as in evaluations.jsonl; scores: the `tasks` of results.json; merged: weight -> what was averaged.
    """

    name: str
    stage: str
    parts: Sequence[Part]
    recipe: Mapping[str, Any]
    title: str = ""
    data: Sequence[Data] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    curation: Mapping[str, int] = field(default_factory=dict)
    during: Sequence[Mapping[str, Any]] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, float] = field(default_factory=dict)
    has_curves: bool = False

    @property
    def licence(self) -> str:
        """The Hub's name of the licence that all parts have; `other` where they differ; empty if one is unknown."""
        names = {part.licence.lower().replace(" ", "-") for part in self.parts}
        if not names or "" in names:
            return ""
        return next(iter(names)) if len(names) == 1 and names <= HUB_LICENCES else "other"


def write_card(folder: Path, card: Card) -> Path:
    """Write `README.md` and `card.json`. The figures of the stage are read from its folder."""
    training = folder / "training"
    if training.is_dir():
        card = replace(
            card,
            facts={**card.facts, **_figures(Metrics(training).read())},
            left_out=_reasons(training / "left_out.jsonl"),
            during=Metrics(training, "evaluations.jsonl").read(),
            has_curves=(folder / CURVES).exists(),
        )
    return _write(folder, card)


def add_scores(folder: Path, scores: Mapping[str, Any]) -> Path | None:
    """Put an evaluation's scores into the card of a model, if it has one of ours. scores: `tasks` of results.json."""
    try:
        told = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        parts, data = [Part(**one) for one in told["parts"]], [Data(**one) for one in told["data"]]
        card = Card(**{**told, "parts": parts, "data": data})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / CONTENTS}: damaged ({error})", fix="delete it: the card stays as it is") from None
    return _write(folder, replace(card, scores=scores))


def _write(folder: Path, card: Card) -> Path:
    write_atomic(folder / CONTENTS, json.dumps(asdict(card), indent=1))
    write_atomic(folder / CARD, f"---\n{_front(card).to_yaml()}\n---\n\n{_page(card)}")
    return folder / CARD


def _front(card: Card) -> ModelCardData:
    """The metadata that the Hub reads."""
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=task,
            dataset_name=task,
            metric_type="score",
            metric_name=f"score in %, 95 % interval {row['low']:.1f} to {row['high']:.1f}, n = {row['n']}",
            metric_value=round(row["score"], 2),
        )
        for task, row in card.scores.items()
    ]
    named: dict[str, Any] = {"model_name": card.name, "eval_results": results} if results else {}
    return ModelCardData(
        license=card.licence or None,
        license_name="see-the-parts" if card.licence == "other" else None,
        base_model=[part.hub for part in card.parts if part.hub] or None,
        datasets=list(dict.fromkeys(one.hub for one in card.data if one.hub)) or None,
        tags=["bunny-vlm", "vision-language", "multimodal", card.stage],
        pipeline_tag="image-text-to-text",
        library_name="transformers",
        **named,
    )


def _page(card: Card) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": cell, "count": lambda number: f"{number:,}"}
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = re.sub(r"\n{3,}", "\n\n", text.render(card=card, recipe=_RECIPE, curves=CURVES))
    recipe = yaml.safe_dump(dict(card.recipe), sort_keys=False, allow_unicode=True)
    return page.replace(_RECIPE, _block(recipe))


def cell(text: object) -> str:
    """Text that cannot break out of a table's cell, a line or a list.

    >>> cell("a | b <script>")
    'a \\\\| b &lt;script>'
    """
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _block(text: str) -> str:
    """A fenced block that its own contents cannot end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _reasons(path: Path) -> dict[str, int]:
    """Reason -> number of rows, most frequent first."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(Counter(str(json.loads(line)["reason"]) for line in lines).most_common())


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The run in a few numbers; rates are work over time, without what stood between the steps."""
    if not rows:
        return {}
    seconds = sum(row["seconds"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    tenth = max(1, len(rows) // 10)
    return {
        "first_loss": sum(row["loss"] for row in rows[:tenth]) / tenth,
        "last_loss": sum(row["loss"] for row in rows[-tenth:]) / tenth,
        "loss_steps": tenth,
        "samples_per_second": sum(row["samples_per_second"] * row["seconds"] for row in rows) / seconds,
        "tokens_per_second": tokens / seconds,
        "times_fewer_tokens": sum(row["tokens"] * (row["times_fewer_tokens"] or 0) for row in rows) / max(1, tokens),
        "memory_gb": max(row["memory_gb"] for row in rows),
        "step_seconds": seconds / len(rows),
    }
