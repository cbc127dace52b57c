"""The frozen answer files and what the official scripts say of them: which file, which profile, which numbers.

A case's numbers are pairs of places: where they stand in `expected.json`, where in our JSON. The tests add two
copies of our JSON to it, `in_percent` and `as_share`, with numbers 100 times as large and as small: kits print either.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bunny.evaluate.official.mme_tables import KINDS

HERE = Path(__file__).parents[1] / "golden" / "evals"
ELSEWHERE = os.environ.get("BUNNY_GOLDEN", "")
"""A folder with more sets (`evals/TASK/SET/…`); tests of sets that are in neither folder are skipped."""


@dataclass(frozen=True)
class Case:
    """answers: below `preds`. data: the folder of official files, or none where the answers carry the gold.

    digits: after the point, where the expected numbers are cut off there.
    """

    task: str
    set: str
    answers: str
    profile: str
    numbers: dict[str, str] = field(default_factory=dict)
    data: str = "data"
    digits: int | None = None

    def __str__(self) -> str:
        return f"{self.set}/{self.answers}:{self.profile}"

    def folder(self) -> Path | None:
        places = [HERE / self.set, Path(ELSEWHERE) / "evals" / self.set] if ELSEWHERE else [HERE / self.set]
        return next((place for place in places if place.is_dir()), None)

    def expected(self) -> Any:
        folder = self.folder()
        assert folder is not None
        return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


HEAD = {"headline": "headline"}
MAIN = {**HEAD, "reference.numbers": "numbers"}
MMMU_PARSE = {
    f"official_parse_and_eval.{name}": f"parse_and_eval.{name}"
    for name in (
        *("per_subject", "overall", "n_random_fallback", "fallback_ids", "acc_if_fallback_counted_wrong"),
        *("acc_if_fallback_counted_right", "parsed", "judge_correct"),
    )
}
CMMMU = (
    *("per_type", "n_random_fallback", "fallback_ids", "acc_if_fallback_counted_wrong"),
    *("acc_if_fallback_counted_right", "correct_ids"),
)
MMBENCH = {**MAIN, **{name: name for name in ("vanilla_first_pass_only.numbers", "extracted", "hit_ids")}}
MMBENCH["vanilla_first_pass_only.numbers"] = "vanilla_first_pass_only"
LMMS, KIT = "others.lmms-eval@75571cf", "others.VLMEvalKit@e8e78f0 exact_matching"
MMMU_KINDS = {"mc_acc": "multiple-choice", "open_as_mcq_acc": "short-answer"}
UNREAD, UNMATCHED = ({f"{KIT}.n_{word}": "reading.counts.unparsed"} for word in ("unknown", "unmatched"))


def cases() -> Iterator[Case]:
    """Every number of every set, under the profile whose script printed it."""
    yield Case("pope", "pope/a", "answers.jsonl", "bunny", MAIN)
    yield Case("pope", "pope/a", "answers.jsonl", "official", {**HEAD, "official.numbers": "numbers"})
    yield Case("pope", "pope/a", "answers_shuffled.jsonl", "official", MAIN)
    yield Case(
        "pope", "pope/a", "answers_shuffled.jsonl", "bunny", {"same_predictions_shuffled__bunny_script": "numbers"}
    )
    yield from _pope_in_kits()
    for answers in ("answers.jsonl", "official_txt"):
        yield Case("mme", "mme/a", answers, "bunny", MAIN)
        yield Case("mme", "mme/a", answers, "official", {**HEAD, "official.numbers": "numbers"})
    lmms = {f"{LMMS}.mme_{kind}_score": f"headline.mme_{kind[0]}" for kind in ("perception", "cognition")}
    yield Case("mme", "mme/a", "answers.jsonl", "lmms_eval", lmms)
    kit = {f"{KIT}.perception": "headline.mme_p", f"{KIT}.reasoning": "headline.mme_c", **UNREAD}
    kit |= {f"{KIT}.{task}": f"numbers.{kind}.tasks.{task}" for kind, tasks in KINDS.items() for task in tasks}
    yield Case("mme", "mme/a", "answers.jsonl", "vlmevalkit", kit)
    for profile in ("bunny", "official"):
        yield Case("mme", "mme/real_lavin", "official_txt", profile, MAIN)
    for task in ("mmbench_en", "mmbench_cn"):
        for answers in ("answers.jsonl", "submission.xlsx"):
            for profile in ("bunny", "official", "vlmevalkit"):
                yield Case(task, f"{task}/a", answers, profile, MMBENCH)
        shift = {f"{LMMS}.overall_static": f"as_share.headline.{task}_circular"}
        yield Case(task, f"{task}/a", "answers.jsonl", "lmms_eval", shift)
    seed = {**MAIN, "exact_total": "exact.seed_all", "correct_ids": "correct_ids"}
    yield Case("seedbench", "seedbench/a", "answers.jsonl", "bunny", seed)
    yield Case("seedbench", "seedbench/a", "submission.jsonl", "bunny", seed)
    yield Case("seedbench", "seedbench/a", "answers.jsonl", "lmms_eval", {LMMS: "exact"})
    kit = {f"{KIT}.{part}": f"exact.seed_{part}" for part in ("all", "image")}
    yield Case("seedbench", "seedbench/a", "answers.jsonl", "vlmevalkit", {**kit, **UNMATCHED})
    real = {**HEAD, **{f"reference.numbers.{part}": f"exact.seed_{part}" for part in ("all", "image", "video")}}
    real |= {f"n_{part}": f"n_by_part.{part}" for part in ("image", "video")}
    yield Case("seedbench", "seedbench/real_gpt4v", "GPT-4V.tsv", "official", real, data="")
    yield from _mmmu()
    everything = {name: name for name in CMMMU}
    for profile in ("bunny", "official"):
        yield Case("cmmmu", "cmmmu_val/a", "response.jsonl", profile, {**MAIN, **everything})
        yield Case("cmmmu", "cmmmu_val/a", "answer_mode.jsonl", profile, {"answer_mode": "numbers"})
    yield Case("cmmmu", "cmmmu_val/a", "response.jsonl", "lmms_eval", {f"{LMMS}.overall": "numbers.Overall.acc"})
    yield from _short_answers()
    sqa = {**MAIN, "parsed_idx": "parsed_idx", "correct_ids": "correct_ids", "official.numbers": "official"}
    yield Case("scienceqa", "scienceqa_img/a", "answers.jsonl", "bunny", sqa)
    yield Case("scienceqa", "scienceqa_img/a", "answers.jsonl", "official", sqa)
    lmms = {f"{LMMS}.scienceqa": "headline.sqa_all", f"{LMMS}.scienceqa_img": "headline.sqa_img"}
    lmms |= {f"{LMMS}.n_img": "n_by_part.image"}
    yield Case("scienceqa", "scienceqa_img/a", "answers.jsonl", "lmms_eval", lmms)
    kit = {f"{KIT}.all": "headline.sqa_all", f"{KIT}.img": "headline.sqa_img", **UNMATCHED}
    yield Case("scienceqa", "scienceqa_img/a", "answers.jsonl", "vlmevalkit", kit)
    grades = {**HEAD, "num_run": "num_run", "reference.numbers": "numbers"}
    yield Case("mmvet", "mmvet/a", "model_gpt-4-0613-grade-1runs.json", "official", grades)


def _mmmu() -> Iterator[Case]:
    only = {"reference.numbers": "numbers", "official_eval_only.numbers": "numbers", **HEAD}
    for profile in ("bunny", "official"):
        yield Case("mmmu", "mmmu_val/a", "bunny_output.json", profile, only)
        yield Case("mmmu", "mmmu_val/a", "raw_outputs", profile, {**only, **MMMU_PARSE})
        for model in ("llava1_5_13b", "qwen_vl"):
            real = f"mmmu_val/real_{model}"
            parsed = {
                "reference.per_subject": "parse_and_eval.per_subject",
                "reference.overall": "parse_and_eval.overall",
            }
            parsed["headline.mmmu_val_exact"] = "headline.mmmu_val_exact"
            yield Case("mmmu", real, "raw_outputs", profile, parsed, data="")
            told = {"eval_only": "numbers", "headline.eval_only": "headline.eval_only"}
            yield Case("mmmu", real, "total_val_output.json", profile, told, data="../a/data")
    by_kind = "parse_and_eval.per_kind"
    lmms = {f"{LMMS}.overall": "headline.exact"}
    for theirs, mine in (("mc", "multiple-choice"), ("open", "short-answer")):
        lmms[f"{LMMS}.n_{theirs}"] = f"{by_kind}.{mine}.n"
        lmms[f"{LMMS}.{'multiple_choice' if theirs == 'mc' else theirs}_acc"] = f"{by_kind}.{mine}.acc"
    yield Case("mmmu", "mmmu_val/a", "raw_outputs", "lmms_eval", lmms)
    kit = {f"{KIT}.overall": "in_percent.headline.exact", **UNMATCHED}
    kit |= {f"{KIT}.{name}": f"in_percent.{by_kind}.{kind}.acc" for name, kind in MMMU_KINDS.items()}
    yield Case("mmmu", "mmmu_val/a", "raw_outputs", "vlmevalkit", kit)


def _pope_in_kits() -> Iterator[Case]:
    """lmms-eval gives shares; VLMEvalKit gives percents with ten digits, all together first."""
    names = {"acc": "accuracy", "f1": "f1_score", **{name: name for name in ("precision", "recall", "yes_ratio")}}
    lmms = {f"{LMMS}.average_f1": "numbers.average_f1"}
    for part in ("adversarial", "popular", "random", "all"):
        place = part if part == "all" else f"numbers.{part}"
        few = ("acc", "f1", "yes_ratio") if part == "all" else names
        lmms |= {f"{LMMS}.{part}.{name}": f"{place}.{names[name]}" for name in few}
    yield Case("pope", "pope/a", "answers.jsonl", "lmms_eval", lmms)
    kit = {}
    for row, part in enumerate(("all", "numbers.popular", "numbers.random", "numbers.adversarial")):
        rates = {"Overall": "f1_score", "acc": "accuracy", "precision": "precision", "recall": "recall"}
        kit |= {f"{KIT}.rating.{row}.{name}": f"in_percent.{part}.{mine}" for name, mine in rates.items()}
    yield Case("pope", "pope/a", "answers.jsonl", "vlmevalkit", {**kit, **UNREAD}, digits=10)


def _short_answers() -> Iterator[Case]:
    gqa = {**MAIN, "exact_accuracy": "exact.gqa_acc", "correct_ids": "correct_ids"}
    yield Case("gqa", "gqa/a", "answers.jsonl", "bunny", gqa)
    yield Case("gqa", "gqa/a", "testdev_balanced_predictions.json", "official", gqa)
    yield Case("gqa", "gqa/a", "answers.jsonl", "lmms_eval", {f"{LMMS}.exact_match": "exact.gqa_acc"})
    yield Case("gqa", "gqa/a", "answers.jsonl", "vlmevalkit", {f"{KIT}.Overall": "exact.gqa_acc"})
    vqa = {**MAIN, "after_bunny_processor.numbers": "after_bunny_processor"}
    for answers in ("answers.jsonl", "results_raw.json"):
        for profile in ("bunny", "official"):
            yield Case("vqav2", "vqav2_val/a", answers, profile, vqa)
    yield Case("vqav2", "vqav2_val/a", "answers.jsonl", "lmms_eval", {f"{LMMS}.exact_match": "headline.vqav2"})
    yield Case("vqav2", "vqav2_val/a", "answers.jsonl", "vlmevalkit", {f"{KIT}.Overall_if_vqa_score": "headline.vqav2"})
    for profile in ("bunny", "official"):
        text = {**MAIN, "exact": "exact.textvqa", **({"per_sample": "per_sample"} if profile == "bunny" else {})}
        yield Case("textvqa", "textvqa_val/a", "answers.jsonl", profile, text)
        yield Case("vizwiz", "vizwiz/a", "answers.jsonl", profile, {**MAIN, "per_sample": "per_sample"})
    for task, set, place in (
        ("textvqa", "textvqa_val/a", "exact.textvqa"),
        ("vizwiz", "vizwiz/a", "headline.vizwiz_softacc"),
    ):
        yield Case(task, set, "answers.jsonl", "lmms_eval", {f"{LMMS}.exact_match": place})
        yield Case(task, set, "answers.jsonl", "vlmevalkit", {f"{KIT}.Overall": place})


def at(tree: Any, place: str) -> Any:
    """The part of a tree at a dotted place; names may hold dots, lists have numbers."""
    if not place:
        return tree
    if isinstance(tree, list):
        number, _, rest = place.partition(".")
        return at(tree[int(number)], rest)
    for end in range(len(place), 0, -1):
        if place[:end] in tree and (end == len(place) or place[end] == "."):
            return at(tree[place[:end]], place[end + 1 :])
    raise KeyError(place)


def numbers_of(tree: Any, place: str = "") -> Iterator[str]:
    """Where a tree has numbers, lists taken as one."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from numbers_of(value, f"{place}.{name}" if place else name)
    elif isinstance(tree, int | float | list):
        yield place


def times(tree: Any, factor: float) -> Any:
    """The tree with all its numbers that many times as large."""
    if isinstance(tree, dict):
        return {name: times(value, factor) for name, value in tree.items()}
    return tree * factor if isinstance(tree, int | float) else tree


def cut(tree: Any, digits: int | None) -> Any:
    """A number with so many digits after the point; anything else as it is."""
    return round(tree, digits) if digits is not None and isinstance(tree, float) else tree


def differences(expected: Any, ours: Any, place: str = "") -> Iterator[str]:
    """Where `ours` lacks a number of `expected`, or has another. What we have besides is no difference."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            if not isinstance(ours, dict) or key not in ours:
                yield f"{place}.{key}: missing"
            else:
                yield from differences(value, ours[key], f"{place}.{key}")
    elif isinstance(expected, list):
        if place.endswith(("_ids", "judge_correct")) or ".parsed." in place:
            expected, ours = sorted(map(str, expected)), sorted(map(str, ours))
        if len(expected) != len(ours):
            yield f"{place}: {len(ours)} values, {len(expected)} expected"
        for number, (one, other) in enumerate(zip(expected, ours, strict=False)):
            yield from differences(one, other, f"{place}.{number}")
    elif not _same(expected, ours):
        yield f"{place}: {ours!r}, {expected!r} expected"


def _same(expected: Any, ours: Any) -> bool:
    """Equal; numbers may differ by the order of summation, and a printed number is one with so many digits."""
    if isinstance(expected, str) and isinstance(ours, float | list):
        plain = expected.replace("np.float64", "").replace("(", "").replace(")", "")
        return json.loads(plain) == ours
    if isinstance(expected, float | int) and isinstance(ours, float | int):
        return math.isclose(expected, ours, rel_tol=1e-12, abs_tol=1e-12)
    return bool(expected == ours)
