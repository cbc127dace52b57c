"""Who answers, and what the answers are worth: any model on any benchmark, in one process or several.

In: a Bunny folder, another Hugging Face image-text folder, or an endpoint; the benchmarks. Out: the `tasks` part of
results.json; report and answers in a folder. Several processes each answer a share of the questions into a file of
their own; then the first one scores all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bunny.core.protocols import Answerer, Benchmark
from bunny.core.recipe import Block, make
from bunny.core.seeds import stream
from bunny.core.store import fingerprint_files
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.pipeline.placing import is_bunny, place
from bunny.pipeline.thumbnail import thumbnail
from bunny.pipeline.together import Together, rank, ranks

OPEN_QUESTION = "What is in the picture?"
KEY_VARIABLES = ("BUNNY_API_KEY", "OPENAI_API_KEY")
MAX_NEW_TOKENS = 32
"""Of an answer, where neither the caller nor the benchmark says how long it may be."""


OpenPicture = Callable[[ImageRef], Any]
"""ImageRef -> PIL picture."""


class Answering(Protocol):
    """A model that is loaded, or can be reached."""

    def answerer(self, settings: GenerationSettings, open_picture: OpenPicture | None = None) -> Answerer:
        """It, answering in this way. open_picture: where pictures come from; default: the files they name."""
        ...


@dataclass(frozen=True)
class Bunny:
    """A Bunny with its processor. name: identifies the weights."""

    model: Any
    processor: Any
    name: str
    batch_rows: int

    def answerer(self, settings: GenerationSettings, open_picture: OpenPicture | None = None) -> Answerer:
        from bunny.data.images import open_image
        from bunny.infer.answerer import ModelAnswerer
        from bunny.infer.generate import Generator

        return ModelAnswerer(
            Generator(self.model, self.processor), self.name, open_picture or open_image, settings, self.batch_rows
        )

    def untrained(self, seed: int) -> Bunny:
        """The same with a projector that has learnt nothing."""
        from bunny.model.build import with_fresh_projector

        fresh = with_fresh_projector(self.model, seed).to(self.model.device, self.model.dtype)
        return Bunny(fresh, self.processor, f"{self.name}:fresh-projector:{seed}", self.batch_rows)


@dataclass(frozen=True)
class AnyModel:
    """Another image-text model with its processor."""

    model: Any
    processor: Any
    name: str
    batch_rows: int

    def answerer(self, settings: GenerationSettings, open_picture: OpenPicture | None = None) -> Answerer:
        from bunny.data.images import open_image
        from bunny.infer.any_model import AnyAnswerer

        return AnyAnswerer(self.model, self.processor, self.name, open_picture or open_image, settings, self.batch_rows)


@dataclass(frozen=True)
class Endpoint:
    """A model's name at an OpenAI-compatible address; the key comes from the environment."""

    url: str
    model: str

    def answerer(self, settings: GenerationSettings, open_picture: OpenPicture | None = None) -> Answerer:
        from bunny.data.images import open_image
        from bunny.infer.endpoint import EndpointAnswerer

        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        return EndpointAnswerer(self.url, self.model, key, open_picture or open_image, settings)


def open_folder(path: Path, batch_rows: int = 32, mark: str = "") -> Bunny | AnyModel:
    """The model of a folder, on this process's accelerator in the folder's precision, or on processors in float32.

    mark: the weights' fingerprint, if it is known. Raises UserError for a folder without a model.
    """
    import torch

    from bunny.infer.any_model import load_any
    from bunny.model.build import load

    device, dtype = place(path)
    weights = mark or fingerprint_files(sorted([*path.glob("*.safetensors"), *path.glob("*.bin")]))
    name = f"{path.name}:{weights}" + ("" if dtype == "float32" else f":{dtype}")
    if is_bunny(path):
        model, processor = load(path)
        return Bunny(model.to(device, getattr(torch, dtype)), processor, name, batch_rows)
    return AnyModel(*load_any(path, getattr(torch, dtype), device), name, max(1, batch_rows // 4))


def score(
    who: Answering,
    tasks: Sequence[Block],
    folder: Path,
    recipe_folder: Path,
    *,
    max_new_tokens: int | None = None,
    baselines: Sequence[str] = ("majority", "blind"),
    seed: int = 0,
    chats: int = 0,
    together: bool = False,
) -> dict[str, Any]:
    """The `tasks` and `chat` parts of results.json; report, answers and pictures go into `folder`.

    max_new_tokens: default: what each benchmark asks for. together: all processes of the run have come here; only the
    first gets a result, the others an empty one.
    """
    from bunny import evaluate as evaluation
    from bunny.data.images import sha256
    from bunny.evaluate import report
    from bunny.evaluate.runner import ask_share

    benchmarks = [
        make(block, evaluation.BENCHMARKS, f"evaluate.tasks.{number}", seed=seed, folder=recipe_folder)
        for number, block in enumerate(tasks)
    ]
    settings = [
        GenerationSettings(max_new_tokens or int(getattr(benchmark, "max_new_tokens", MAX_NEW_TOKENS)))
        for benchmark in benchmarks
    ]
    answers = folder / "answers.jsonl"
    if together and ranks() > 1:
        cache = evaluation.AnswerCache(answers, rank(), sha256)
        for benchmark, how in zip(benchmarks, settings, strict=True):
            asked = {"model": who.answerer(how), **_beside(benchmark, who, how, baselines, seed)}
            ask_share(benchmark, asked, cache, how, rank(), ranks())
        Together().wait()
        if rank():
            return {}
    cache = evaluation.AnswerCache(answers, digest=sha256)
    outcomes = [
        evaluation.evaluate(
            benchmark,
            who.answerer(how),
            baselines=_beside(benchmark, who, how, baselines, seed),
            cache=cache,
            settings=how,
        )
        for benchmark, how in zip(benchmarks, settings, strict=True)
    ]
    report.write(folder, outcomes, thumbnail)
    shown = chat_about(who.answerer(settings[-1]), benchmarks[-1].questions(), folder, chats, seed) if chats else []
    return {"tasks": report.as_json(outcomes), "chat": shown}


def _beside(
    benchmark: Benchmark, who: Answering, settings: GenerationSettings, baselines: Sequence[str], seed: int
) -> Mapping[str, Answerer]:
    """What is asked beside the model, by name."""
    from bunny import evaluate as evaluation

    beside: dict[str, Answerer] = {}
    if "majority" in baselines:
        beside["majority"] = evaluation.majority(benchmark)
    if "blind" in baselines:
        beside["blind"] = evaluation.Blind(who.answerer(settings))
    if "untrained" in baselines and isinstance(who, Bunny):
        beside["untrained"] = who.untrained(seed).answerer(settings)
    if "shuffled" in baselines:
        beside["shuffled"] = evaluation.shuffled(who.answerer(settings), benchmark.questions(), seed)
    return beside


def chat_about(
    answerer: Answerer, questions: Sequence[Question], folder: Path, count: int, seed: int
) -> list[dict[str, str]]:
    """An open question about a few held-out pictures, drawn by `seed`, not chosen: picture file, question, answer."""
    from bunny.data.images import open_image

    pictures = list(dict.fromkeys(question.images for question in questions if question.images))
    drawn = stream("evaluate.chat", seed).permutation(len(pictures))[:count]
    asked = [Question(f"chat{n}", OPEN_QUESTION, pictures[row], ()) for n, row in enumerate(drawn)]
    answers = {answer.id: answer.text for answer in answerer.answer(asked)}
    (folder / "pictures").mkdir(exist_ok=True)
    for question in asked:
        open_image(question.images[0]).save(folder / "pictures" / f"{question.id}.png")
    return [{"picture": f"pictures/{q.id}.png", "question": q.prompt, "answer": answers[q.id]} for q in asked]
