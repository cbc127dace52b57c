"""A model folder under lmms-eval: `lmms-eval eval --model bunny --model_args pretrained=runs/demo/model --tasks mme`.

In: the kit's requests. Out: one text per request, in their order. The kit finds `manifest` by the entry point
`lmms_eval.models`. Each picture is encoded once for all questions that come about it in one portion of requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import IMAGE_MARK, GenerationSettings, ImageRef, Question
from bunny.data.images import open_image, to_rgb
from bunny.pipeline.answering import open_folder

PORTION = 256
"""Requests whose pictures are in memory at once."""
USED = {"max_new_tokens", "temperature", "top_p", "num_beams", "until", "do_sample"}


def manifest() -> ModelManifest:
    """What lmms-eval asks the entry point for."""
    return ModelManifest(model_id="bunny", chat_class_path="bunny.plugins.lmms_eval.BunnyChat")


class BunnyChat(lmms):  # type: ignore[misc]  # lmms-eval is not there when types are checked
    """A Bunny, or another image-text folder that `bunny eval` opens.

    pretrained: the folder. batch_size: questions computed together at most; the kit's default of 1 stands for Bunny's.
    """

    is_simple = False

    def __init__(self, pretrained: str, batch_size: int | str = 1, device: str | None = None) -> None:
        super().__init__()
        rows = int(batch_size) if str(batch_size).isdecimal() else 1
        self.who = open_folder(Path(pretrained), rows if rows > 1 else 32)
        self.device = device or "cpu"  # where the kit keeps its own counts; the model chooses for itself

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers, in order; a picture that cannot be read gets an empty one and a warning."""
        texts = [""] * len(requests)
        for kwargs, rows in _alike(requests):
            settings = _settings(kwargs)
            for start in range(0, len(rows), PORTION):
                portion = rows[start : start + PORTION]
                pictures: dict[str, Any] = {}
                questions = [self._question(row, requests[row].args, pictures) for row in portion]
                for answer in self.who.answerer(settings, _from(pictures)).answer(questions):
                    texts[int(answer.id)] = answer.text
                    if answer.error:
                        log.warning("request %s has no answer and counts as wrong: %s", answer.id, answer.error)
        return texts

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise UserError("bunny: no tasks of several rounds under lmms-eval", fix="choose another task")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: a Bunny answers in words."""
        raise UserError("bunny: no tasks by likelihood under lmms-eval", fix="choose the task's generate_until form")

    def _question(self, row: int, arguments: Sequence[Any], pictures: dict[str, Any]) -> Question:
        _, to_messages, _, document, task, split = arguments
        messages = to_messages(self.task_dict[task][split][document])
        if len(messages) != 1:
            raise UserError(f"{task}: {len(messages)} messages in one request", fix="choose a task of single questions")
        words, shown = [], []
        for part in messages[0]["content"]:
            if part["type"] == "text":
                words.append(part["text"].replace(IMAGE_MARK, "").strip())
            elif part["type"] == "image":
                shown.append(_kept(part["url"], pictures))
            else:
                raise UserError(f"{task}: a part of the kind {part['type']}", fix="choose a task of text and pictures")
        return Question(str(row), "\n".join(filter(None, words)), tuple(map(ImageRef, shown)), ())


def _alike(requests: Sequence[Any]) -> Iterator[tuple[Mapping[str, Any], list[int]]]:
    """(settings, rows) of the requests that have the same settings."""
    groups: dict[str, list[int]] = {}
    for row, request in enumerate(requests):
        groups.setdefault(repr(request.args[2]), []).append(row)
    for rows in groups.values():
        yield requests[rows[0]].args[2], rows


def _settings(kwargs: Mapping[str, Any]) -> GenerationSettings:
    """The kit's settings in ours; what has no meaning here is named once."""
    if unused := sorted(name for name in kwargs if name not in USED):
        log.warning("not used: %s", ", ".join(unused))
    stop = kwargs.get("until") or ()
    sampled = kwargs.get("do_sample", True) and kwargs.get("temperature")
    return GenerationSettings(
        max_new_tokens=int(kwargs.get("max_new_tokens") or 128),
        temperature=float(kwargs["temperature"]) if sampled else 0.0,
        top_p=float(kwargs.get("top_p") or 1.0),
        num_beams=int(kwargs.get("num_beams") or 1),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )


def _from(pictures: Mapping[str, Any]) -> Callable[[ImageRef], Any]:
    return lambda ref: pictures[ref.path]


def _kept(picture: Any, pictures: dict[str, Any]) -> str:
    """The name under which a picture (or the picture at a path) is kept: equal ones have one name."""
    image = to_rgb(picture) if isinstance(picture, Image.Image) else open_image(ImageRef(str(picture)))
    name = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    pictures.setdefault(name, image)
    return name
