"""A model folder under VLMEvalKit: `python -m bunny.plugins.vlmevalkit runs/demo/model --data MMBench_DEV_EN`.

In: a model folder, then the arguments of the kit's `run.py`. Out: what the kit writes for a model named `bunny`.
Nothing in the kit's folder is changed: its table of models gets one more row, and its `run.py` is run. The kit asks one
question at a time, so nothing is shared between questions; `bunny eval` is several times as fast.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import vlmeval
from vlmeval.vlm.base import BaseModel

from bunny.core.errors import UserError
from bunny.core.types import IMAGE_MARK, GenerationSettings, ImageRef, Question
from bunny.pipeline.answering import open_folder

NAME = "bunny"
MAX_NEW_TOKENS = 128  # as the original asks for short answers; the kit does not say


class BunnyVLM(BaseModel):  # type: ignore[misc]  # VLMEvalKit is not there when types are checked
    """A Bunny, or another image-text folder that `bunny eval` opens, as the kit sees it."""

    INTERLEAVE = True
    allowed_types = ("text", "image")

    def __init__(self, model_path: str, max_new_tokens: int = MAX_NEW_TOKENS, **unused: Any) -> None:
        super().__init__()
        self.answerer = open_folder(Path(model_path)).answerer(GenerationSettings(max_new_tokens))

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer; pictures go before the words. Raises UserError for a picture that cannot be read."""
        words = [part["value"].replace(IMAGE_MARK, "").strip() for part in message if part["type"] == "text"]
        shown = [ImageRef(part["value"]) for part in message if part["type"] == "image"]
        (answer,) = self.answerer.answer([Question("0", "\n".join(filter(None, words)), tuple(shown), ())])
        if answer.error:
            raise UserError(f"{dataset}: {answer.error}", fix="delete the picture; the kit writes it again")
        return answer.text


def main(words: Sequence[str]) -> None:
    """Run the kit's `run.py` on the folder named first, with the further arguments.

    Raises UserError if the kit has no `run.py`: it is beside the package in a checkout, not in a wheel.
    """
    if not words or words[0].startswith("-"):
        raise UserError("no model folder", fix="python -m bunny.plugins.vlmevalkit FOLDER --data MMBench_DEV_EN")
    script = Path(vlmeval.__file__).parents[1] / "run.py"
    if not script.exists():
        raise UserError(f"{script}: no such file", fix="clone VLMEvalKit and install it with `pip install -e`")
    from vlmeval.config import supported_VLM

    supported_VLM[NAME] = partial(BunnyVLM, model_path=words[0])
    sys.argv = [str(script), "--model", NAME, *words[1:]]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
