"""The launcher adds one row to the kit's table of models and runs the kit's own script."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.pipeline.answering import open_folder
from tests.pipeline.test_answering import save_bunny

RUN = """
import json, sys
from pathlib import Path
from vlmeval.config import supported_VLM
name = sys.argv[sys.argv.index("--model") + 1]
message = [{"type": "image", "value": sys.argv[-1]}, {"type": "text", "value": "what is this?"}]
said = supported_VLM[name](use_vllm=False).generate_inner(message, "SHAPES")
Path(sys.argv[0]).with_name("said.json").write_text(json.dumps([sys.argv[1:], said, sorted(supported_VLM)]))
"""


def launcher() -> Any:
    return importlib.import_module("bunny.plugins.vlmevalkit")


def test_the_kits_script_meets_a_model_called_bunny_that_says_what_bunny_says(kit: Path, tmp_path: Path) -> None:
    (kit / "run.py").write_text(RUN)
    model, picture = save_bunny(tmp_path), tmp_path / "red.png"
    Image.new("RGB", (24, 24), "red").save(picture)
    launcher().main([str(model), "--data", "SHAPES", str(picture)])
    words, said, known = json.loads((kit / "said.json").read_text())
    assert words == ["--model", "bunny", "--data", "SHAPES", str(picture)] and known == ["bunny", "other"]
    asked = Question("q", "what is this?", (ImageRef(str(picture)),), ())
    (answer,) = open_folder(model).answerer(GenerationSettings(launcher().MAX_NEW_TOKENS)).answer([asked])
    assert said == answer.text != ""


def test_a_picture_that_cannot_be_read_stops_the_question(kit: Path, tmp_path: Path) -> None:
    model = launcher().BunnyVLM(str(save_bunny(tmp_path)))
    with pytest.raises(UserError, match=r"SHAPES: .*none\.png"):
        model.generate_inner([{"type": "image", "value": "none.png"}, {"type": "text", "value": "?"}], "SHAPES")


@pytest.mark.usefixtures("kit")
def test_without_the_kits_script_the_checkout_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"run\.py: no such file; clone VLMEvalKit"):
        launcher().main(["model", "--data", "SHAPES"])


@pytest.mark.usefixtures("kit")
@pytest.mark.parametrize("words", [[], ["--data", "SHAPES"]])
def test_without_a_model_its_use_is_shown(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"no model folder; python -m bunny\.plugins\.vlmevalkit"):
        launcher().main(words)
