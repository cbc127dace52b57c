"""Yes/no scores from counts: precision, recall, F1, and F1 averaged over kinds with intervals over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bunny.core.types import BoolArray, EvalResult, FloatArray, Parsed, Question
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters, ratio


def counts(pairs: Sequence[tuple[str, str]], said_both: bool = False) -> dict[str, float]:
    """Confusion counts of (said, label) pairs and the rates from them; 0 where a script would divide by zero.

    An answer that is neither yes nor no is wrong, finds nothing and claims nothing. said_both: lmms-eval's habit of
    leaving such answers out of recall, and of counting labels where the rate of "yes" is meant.
    """
    n = len(pairs)
    tp, fp, tn = (sum(pair == wanted for pair in pairs) for wanted in (("yes", "yes"), ("yes", "no"), ("no", "no")))
    there = sum(gold == "yes" and (not said_both or said in ("yes", "no")) for said, gold in pairs)
    precision, recall = tp / max(tp + fp, 1), tp / max(there, 1)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    yes = sum((gold if said_both else said) == "yes" for said, gold in pairs)
    rates = {"accuracy": (tp + tn) / max(n, 1), "precision": precision, "recall": recall, "f1_score": f1}
    return {"n": n, "TP": tp, "FP": fp, "TN": tn, "FN": there - tp, **rates, "yes_ratio": yes / max(n, 1)}


def mean_f1(task: str, questions: Sequence[Question], parsed: Sequence[Parsed], said_both: bool = False) -> EvalResult:
    """F1 of each kind (`meta["kind"]`) averaged; each kind's F1, accuracy and rate of "yes" beside it."""
    gold = np.array([question.gold[0] == "yes" for question in questions])
    if said_both:
        gold &= np.array([item.value in ("yes", "no") for item in parsed])
    said = np.array([item.value == "yes" for item in parsed])
    right = [item.value == question.gold[0] for question, item in zip(questions, parsed, strict=True)]
    clusters = Clusters([question.group for question in questions])
    kinds = sorted({str(question.meta["kind"]) for question in questions})
    columns = {kind: _columns(gold, said, np.array([q.meta["kind"] == kind for q in questions])) for kind in kinds}
    every = np.concatenate(list(columns.values()), axis=1)  # (N, 3 × kinds)
    scores = {f"f1_{kind}": clusters.bootstrap(values, _mean_f1) for kind, values in columns.items()}
    scores |= {"accuracy": clusters.rate(right), "yes_rate": clusters.rate(said)}
    result = mean_score(task, questions, parsed, right, scores=scores)
    return replace(result, headline=clusters.bootstrap(every, _mean_f1), draws=clusters.draws(every, _mean_f1))


def _columns(gold: BoolArray, said: BoolArray, rows: BoolArray) -> BoolArray:
    return np.stack([gold & said & rows, gold & rows, said & rows], axis=1)  # (N, 3): found, there, claimed


def _mean_f1(sums: FloatArray) -> FloatArray:
    """(…, 3 × kinds) -> (…)."""
    parts = [sums[..., at : at + 3] for at in range(0, sums.shape[-1], 3)]
    each = [ratio(2 * part[..., 0], part[..., 1] + part[..., 2]) for part in parts]
    return np.asarray(np.mean(each, axis=0))
