"""Ask, join, read, score: one benchmark and one answerer make an `Outcome`.

In: a `Benchmark`, an `Answerer`, baseline answerers, an answer cache. Out: the result with intervals, its baselines,
and every question with its answer and how it was read. Nothing depends on the order in which answers come back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from bunny.core.errors import UserError
from bunny.core.log import log, meter
from bunny.core.protocols import Answerer, Benchmark
from bunny.core.types import Answer, EvalResult, ImageRef, Interval, Parsed, Question
from bunny.evaluate.cache import AnswerCache
from bunny.evaluate.stats import difference

MISSING = "no answer came back"
KINDS = ("category", "kind", "task", "question_type", "structural", "l2")
"""Where benchmarks keep the kind of a question in its `meta`; the first that is there counts."""


@runtime_checkable
class Prepares(Protocol):
    """A benchmark that has to see to its pictures before a model is asked."""

    def prepare(self) -> None: ...


@runtime_checkable
class Guesses(Protocol):
    """A benchmark whose own script draws at random what it cannot read, one draw after the other."""

    def guess(
        self, questions: Sequence[Question], said: Sequence[str], parsed: Sequence[Parsed], order: Sequence[int]
    ) -> list[Parsed]:
        """`parsed` with the draws filled in (status `guessed`). order: the rows with an answer, as they came."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answerer on one benchmark: the result and, row by row in the benchmark's order, how it came about.

    answers, parsed: aligned with `questions`; a question without an answer has one with `error` set.
    baselines: name -> the outcome of that baseline on the same questions. result.baselines holds their headlines.
    """

    answerer: str
    result: EvalResult
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...]
    parsed: tuple[Parsed, ...]
    baselines: Mapping[str, Outcome] = field(default_factory=dict)

    def gains(self) -> dict[str, Interval]:
        """Headline minus each baseline's, with a paired 95 % interval."""
        return {name: difference(self.result, other.result) for name, other in self.baselines.items()}

    def as_json(self) -> dict[str, Any]:
        """What goes into `results.json` under the benchmark's name.

        `baselines` are scores; `baseline_intervals`, `gains` and `scores` are {score, low, high} each.
        """
        result = self.result
        return {
            **_interval(result.headline),
            "n": result.n,
            "clusters": result.clusters,
            "answerer": self.answerer,
            "baselines": {name: value.score for name, value in result.baselines.items()},
            "baseline_intervals": {name: _interval(value) for name, value in result.baselines.items()},
            "gains": {name: _interval(value) for name, value in self.gains().items()},
            "scores": {name: _interval(value) for name, value in result.scores.items()},
            "statuses": dict(result.statuses),
        }

    def lines(self) -> Iterable[str]:
        """One JSON line per question: everything that was asked, said and read."""
        points = self.result.points if self.result.points is not None else [None] * len(self.questions)
        for question, answer, parsed, point in zip(self.questions, self.answers, self.parsed, points, strict=True):
            row = {
                "id": question.id,
                "group": question.group,
                "category": category(question),
                "prompt": question.prompt,
                "images": [_place(image) for image in question.images],
                "gold": list(question.gold),
                "answer": answer.text,
                "error": answer.error,
                "value": parsed.value,
                "status": parsed.status,
                "points": None if point is None else float(point),
            }
            yield json.dumps(row, ensure_ascii=False)


def evaluate(
    benchmark: Benchmark,
    answerer: Answerer,
    *,
    baselines: Mapping[str, Answerer] | None = None,
    cache: AnswerCache | None = None,
    settings: Any = None,
) -> Outcome:
    """Ask `answerer` and the baselines the benchmark's questions, and score all of them alike.

    cache: answers in it are not asked again; new ones are added as they come. settings: whatever else the answers
    depend on (`GenerationSettings`, a dict); part of the cache key. Raises UserError for a benchmark without
    questions or with an id twice, and for answers to questions that were not asked.
    """
    if isinstance(benchmark, Prepares):
        benchmark.prepare()
    questions = tuple(benchmark.questions())
    _check(benchmark, questions)
    others = {}
    outcome = _outcome(benchmark, answerer, questions, cache, settings, benchmark.name)
    for name, other in (baselines or {}).items():
        others[name] = _outcome(benchmark, other, questions, cache, settings, f"{benchmark.name}: {name}")
    headlines = {name: other.result.headline for name, other in others.items()}
    return replace(outcome, result=replace(outcome.result, baselines=headlines), baselines=others)


def ask_share(
    benchmark: Benchmark,
    answerers: Mapping[str, Answerer],
    cache: AnswerCache,
    settings: Any,
    rank: int,
    ranks: int,
) -> None:
    """Ask all `answerers` this process's share of the questions, into its own cache; nothing is scored.

    Questions are dealt out by picture, in equal numbers as far as pictures allow. When all processes are through,
    `evaluate` with a fresh cache finds their answers and asks only what failed.
    """
    if isinstance(benchmark, Prepares):
        benchmark.prepare()
    questions = share(benchmark.questions(), rank, ranks)
    for name, answerer in answerers.items():
        _ask(answerer, questions, cache, settings, f"{benchmark.name}: {name} ({rank + 1} of {ranks})")


def share(questions: Sequence[Question], rank: int, ranks: int) -> list[Question]:
    """The questions of one process of several: all about a picture go to one, most-asked pictures are dealt first."""
    groups: dict[tuple[ImageRef, ...] | str, list[Question]] = {}
    for question in questions:  # text alone is nobody's picture: each question by itself
        groups.setdefault(question.images or question.id, []).append(question)
    loads = [0] * ranks
    mine: list[Question] = []
    for group in sorted(groups.values(), key=len, reverse=True):
        least = loads.index(min(loads))
        loads[least] += len(group)
        if least == rank:
            mine += group
    return mine


def score(benchmark: Benchmark, answers: Iterable[Answer], answerer: str = "answers file") -> Outcome:
    """The outcome of answers that exist already, in any order. Raises UserError for unknown and repeated ids."""
    questions = tuple(benchmark.questions())
    _check(benchmark, questions)
    return _score(benchmark, questions, join(questions, answers, benchmark.name), answerer)


def join(questions: Sequence[Question], answers: Iterable[Answer], where: str) -> tuple[Answer, ...]:
    """One answer per question, in the order of the questions; a missing one gets `error` set.

    Raises UserError if an id is unknown or comes twice: the answers then belong to other questions.
    """
    given: dict[str, Answer] = {}
    known = {question.id for question in questions}
    for answer in answers:
        if answer.id not in known:
            raise UserError(
                f"{where}: an answer to `{answer.id}`, which is no question of this set", fix="check the ids"
            )
        if answer.id in given:
            raise UserError(f"{where}: two answers to `{answer.id}`", fix="keep one answer per question")
        given[answer.id] = answer
    return tuple(given.get(question.id, Answer(question.id, "", error=MISSING)) for question in questions)


def _outcome(
    benchmark: Benchmark,
    answerer: Answerer,
    questions: tuple[Question, ...],
    cache: AnswerCache | None,
    settings: Any,
    label: str,
) -> Outcome:
    answers = join(questions, _ask(answerer, questions, cache, settings, label), label)
    return _score(benchmark, questions, answers, answerer.name)


def _ask(
    answerer: Answerer, questions: Sequence[Question], cache: AnswerCache | None, settings: Any, label: str
) -> list[Answer]:
    """Cached answers, then new ones, kept as they come. Answers with an error are not kept: they are asked again."""
    keys = (
        {question.id: cache.key(answerer.name, question, settings) for question in questions}
        if cache is not None
        else {}
    )
    texts = {id: cache.get(key) for id, key in keys.items()} if cache is not None else {}
    answers = [Answer(id, text) for id, text in texts.items() if text is not None]
    done = {answer.id for answer in answers}
    pending = [question for question in questions if question.id not in done]
    if done:
        log.info("%s: %d of %d answers from the cache", label, len(done), len(questions))
    if not pending:
        return answers
    with meter(label, len(pending)) as bar:
        for answer in answerer.answer(pending):
            if cache is not None and not answer.error and answer.id in keys:
                cache.put(keys[answer.id], answer.id, answer.text)
            answers.append(answer)
            bar.advance()
    return answers


def _score(
    benchmark: Benchmark, questions: tuple[Question, ...], answers: tuple[Answer, ...], answerer: str
) -> Outcome:
    parsed = [
        Parsed("", "empty") if answer.error else benchmark.parse(question, answer)
        for question, answer in zip(questions, answers, strict=True)
    ]
    if isinstance(benchmark, Guesses):
        order = [row for row, answer in enumerate(answers) if not answer.error]
        parsed = benchmark.guess(questions, [answer.text for answer in answers], parsed, order)
    result = benchmark.score(questions, parsed)
    failed = Counter("missing" if answer.error == MISSING else "error" for answer in answers if answer.error)
    if failed:
        first = next(answer for answer in answers if answer.error)
        log.warning(
            "%s, %s: %d of %d questions have no answer and count as wrong; first `%s`: %s",
            *(benchmark.name, answerer, failed.total(), len(questions), first.id, first.error),
        )
    empty = result.statuses.get("empty", 0) - failed.total()
    statuses = {**result.statuses, "empty": empty, **{kind: failed[kind] for kind in ("missing", "error")}}
    return Outcome(answerer, replace(result, statuses=statuses), questions, answers, tuple(parsed))


def _check(benchmark: Benchmark, questions: Sequence[Question]) -> None:
    if not questions:
        raise UserError(f"{benchmark.name}: no questions", fix="check the benchmark's settings and files")
    counts = Counter(question.id for question in questions)
    twice = [id for id, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{benchmark.name}: {len(twice)} question id(s) come twice, first `{twice[0]}`")


def category(question: Question) -> str:
    """What kind of question the benchmark says it is; empty if it has no kinds."""
    return next((str(question.meta[name]) for name in KINDS if question.meta.get(name)), "")


def _place(image: ImageRef) -> str:
    """`str(image)`, and which column of a table it is, where that is not the usual one."""
    return str(image) if image.column == "image" or not image.member else f"{image}@{image.column}"


def _interval(value: Interval) -> dict[str, float]:
    return {"score": value.score, "low": value.low, "high": value.high}
