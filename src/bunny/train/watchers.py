"""Everything that looks at a run while it trains: figures, trackers, curves, previews, evaluations.

In: a trainer, its stage's section, and what the layers above lend: how to answer, how to score. Out: files in the
stage's folder. Nothing here changes what is learnt: a watched run ends with the same weights, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from bunny.core.errors import UserError
from bunny.core.log import Metrics, log
from bunny.core.recipe import StageSection
from bunny.core.types import EvalResult, Interval, Question, Sample
from bunny.train.checkpoints import is_sharded
from bunny.train.curves import draw_curves
from bunny.train.meter import StepMeter
from bunny.train.pausing import at_rest
from bunny.train.preview import Answer, Preview, Thumbnail, questions_of
from bunny.train.trackers import Trackers, check_trackers

CURVES = "curves.png"
DRAW_SECONDS = 60.0

Score = Callable[[Any, Any, int], Mapping[str, EvalResult]]
"""(Bunny, processor, step) -> task name -> its result."""


@dataclass(frozen=True)
class Lent:
    """What training is lent by the layers above; without `answer` or `score` there are no previews or evaluations.

    held_out: questions about pictures that are not learnt from, for the previews.
    """

    answer: Answer | None = None
    score: Score | None = None
    thumbnail: Thumbnail = field(default=lambda ref: "")
    held_out: Sequence[Question] = ()


def check_watching(section: StageSection) -> None:
    """Raise UserError, before anything heavy, for what cannot be shown."""
    check_trackers(section)
    if section.evaluate_every_steps and not section.evaluate:
        raise UserError(
            "`evaluate_every_steps` is set, but `evaluate` names no benchmark", fix="name one, or leave both out"
        )


@contextmanager
def watched(
    trainer: Any,
    section: StageSection,
    folder: Path,
    name: str,
    *,
    processor: Any,
    attention: str,
    samples: Sequence[Sample] = (),
    lent: Lent | None = None,
    work: Callable[[int], float] | None = None,
    peak: float | None = None,
) -> Iterator[None]:
    """Watch what `trainer` does inside; at the end the curves are drawn, also of a run that failed.

    processor: as the stage asks (its own template). attention: what the model answers with. samples: the stage's rows,
    of which the first with pictures are shown. work, peak: see `StepMeter`.
    """
    check_watching(section)
    lent, first = lent or Lent(), trainer.args.should_save
    metrics, evaluations = Metrics(folder), Metrics(folder, "evaluations.jsonl")
    trackers = Trackers(section.trackers if first else (), folder, run_name(folder, name))
    steps = len(trainer.train_dataset)
    meter = StepMeter(metrics, name, steps, trainer, trackers.send, work, peak)
    preview = None
    if lent.answer and section.preview_every_steps:
        preview = Preview(folder, name, lent.answer, lent.thumbnail, questions_of(samples), lent.held_out)
    asking = Asking(
        trainer, section, name, processor, attention, preview, lent.score if section.evaluate else None, evaluations
    )
    asking.meter, asking.trackers = meter, trackers

    def draw() -> None:
        draw_curves(metrics.read(), folder / CURVES, name, evaluations.read())

    trainer.remove_callback(PrinterCallback)  # the meter tells the same, in one line
    for callback in (Opening(trackers), meter, asking, Drawing(draw)):
        trainer.add_callback(callback)
    with ExitStack() as closing:
        closing.callback(trackers.close)
        closing.callback(meter.close)
        try:
            yield
        except BaseException:
            if first and metrics.path.exists():
                _drawn_if_possible(draw)
            raise
    if first:
        draw()


def run_name(folder: Path, name: str) -> str:
    """What the run is called in trackers: its run folder, the stage, and the first digits of its fingerprint, so that
    a run that goes on is the same one and another is not.

    >>> run_name(Path("/runs/demo/.model.9f86d081884c7d65/training"), "tune")
    'demo/tune 9f86d081'
    """
    artifact = folder.resolve().parent
    mark = artifact.name.rpartition(".")[2][:8] if artifact.name.startswith(".") else ""
    return f"{artifact.parent.name}/{name} {mark}".rstrip()


class Opening(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Opens the trackers before the first figure comes."""

    def __init__(self, trackers: Trackers) -> None:
        self.trackers = trackers

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.trackers.begin(args, state, control, model)


class Asking(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Previews and evaluations, between two steps. The first rank asks, the others wait, or where the weights are
    sharded ask along and forget the answers."""

    meter: StepMeter
    trackers: Trackers

    def __init__(
        self,
        trainer: Any,
        section: StageSection,
        name: str,
        processor: Any,
        attention: str,
        preview: Preview | None,
        score: Score | None,
        evaluations: Metrics,
    ) -> None:
        self.trainer, self.section, self.name = trainer, section, name
        self.processor, self.attention = processor, attention
        self.preview, self.score, self.evaluations = preview, score, evaluations

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            self.evaluations.forget_after(state.global_step)
            if self.preview:
                self.preview.forget_after(state.global_step)
        if state.global_step == 0 and self.preview:
            self._ask((args, state, control), preview=True, evaluate=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        last = state.global_step == state.max_steps
        preview = self.preview is not None and _due(state.global_step, self.section.preview_every_steps, last)
        evaluate = self.score is not None and _due(state.global_step, self.section.evaluate_every_steps, last)
        if preview or evaluate:
            self._ask((args, state, control), preview, evaluate)

    def _ask(self, now: Any, preview: bool, evaluate: bool) -> None:
        args, state, _ = now
        with at_rest(self.trainer.model, self.attention) as model:
            if args.should_save:
                try:
                    if preview and self.preview:
                        self.preview.write(model, self.processor, state.global_step)
                    if evaluate and self.score:
                        self._evaluate(model, now)
                except torch.OutOfMemoryError as error:
                    log.warning("%s: no memory to ask after step %d: %s", self.name, state.global_step, error)
            elif is_sharded(self.trainer.model):
                self._ask_along(model, state.global_step, preview, evaluate)
            if args.world_size > 1:
                torch.distributed.barrier()
        self.meter.resume()

    def _ask_along(self, model: Any, step: int, preview: bool, evaluate: bool) -> None:
        if preview and self.preview:
            self.preview.answer(model, self.processor, [question for question, _ in self.preview.questions])
        if evaluate and self.score:
            self.score(model, self.processor, step)

    def _evaluate(self, model: Any, now: Any) -> None:
        assert self.score
        step, started = now[1].global_step, time.monotonic()
        results = self.score(model, self.processor, step)
        tasks = {name: _row(result) for name, result in results.items()}
        self.evaluations.write(step=step, seconds=round(time.monotonic() - started, 2), tasks=tasks)
        self.trackers.send({f"eval_{name}": row["score"] for name, row in tasks.items()}, now)
        told = ", ".join(f"{name} {_interval(result.headline)}" for name, result in results.items())
        log.info("%s: after step %d: %s", self.name, step, told)


class Drawing(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Draws the curves while it runs: with a checkpoint, at most once a minute."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self.draw, self.last = draw, time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save and time.monotonic() - self.last > DRAW_SECONDS:
            _drawn_if_possible(self.draw)
            self.last = time.monotonic()


def _due(step: int, every: int | None, last: bool) -> bool:
    return last or (every is not None and step % every == 0)


def _drawn_if_possible(draw: Callable[[], None]) -> None:
    try:
        draw()
    except OSError as error:
        log.warning("the curves could not be drawn: %s", error)


def _row(result: EvalResult) -> dict[str, Any]:
    head = result.headline
    return {
        "score": head.score,
        "low": head.low,
        "high": head.high,
        "n": result.n,
        "statuses": {status: count for status, count in result.statuses.items() if count},
    }


def _interval(value: Interval) -> str:
    return f"{value.score:.1f} [{value.low:.1f}, {value.high:.1f}]"
