"""Several pictures in a row, between its words: from LLaVA's JSON to labels, a training step, a saved model, an answer.

In the original a second picture shifts the pictures of every later row of its batch, and a row without pictures is
given an empty one. Here each row keeps its own, and where there are none the tower does not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bunny.core.types import IGNORE, GenerationSettings, ImageRef, Sample, Turn
from bunny.data.images import open_image
from bunny.data.sources.llava_json import LlavaJson
from bunny.infer.generate import Generator, Request
from bunny.model import attention
from bunny.model.build import load
from bunny.text.pack import pack
from bunny.text.template import Writer
from bunny.train import stage
from tests.tiny import save_language_model, save_tower
from tests.train.job import TEMPLATE, model_of, section

GREEDY = GenerationSettings(max_new_tokens=8)
WORDS = "Left is <image> and right is <image>.\nWhich is red?"
NAMES = ("one.png", "two.png", "three.png", "four.png")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_tower(folder / "tower")
    save_language_model(folder / "llm")
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def read(parts: Path, *rows: dict[str, Any]) -> list[Sample]:
    """The rows as LLaVA's JSON, read again."""
    path = parts / "rows.json"
    path.write_text(json.dumps([{"id": f"r{n}", **row} for n, row in enumerate(rows)]))
    out = list(LlavaJson(path=str(path)).read())
    assert all(isinstance(row, Sample) for row in out)
    return out  # type: ignore[return-value]


def row(words: str, answer: str, *images: str) -> dict[str, Any]:
    talk = [{"from": "human", "value": words}, {"from": "gpt", "value": answer}]
    return {"conversations": talk, **({"image": images[0] if len(images) == 1 else list(images)} if images else {})}


def trained(parts: Path, folder: Path, rows: Sequence[Sample], **changes: Any) -> tuple[Any, Any, float]:
    """(model, processor, loss of the first step) after one step, dropout off."""
    model, processor = model_of(parts)
    folder.mkdir()
    how = section(**{"max_steps": 1, "warmup_ratio": 0, "lora": {"r": 4, "alpha": 8, "dropout": 0.0}, **changes})
    done = stage.train_stage(how, model, processor, list(rows), open_image, folder, 0, "tune")
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return done.model, processor, float(first["loss"])


def test_two_pictures_between_words_from_json_to_an_answer(parts: Path, tmp_path: Path) -> None:
    (sample,) = read(parts, row(WORDS, "The left one.", "one.png", "two.png"))
    assert [Path(ref.path).name for ref in sample.images] == ["one.png", "two.png"]
    assert sample.turns[0].text == WORDS  # the marks stay between the words
    model, processor = model_of(parts)
    image, length = model.config.image_token_id, model.config.image_seq_length
    writer = Writer(TEMPLATE, processor.tokenizer, image, length)
    ids = writer.row(sample)
    learnt = [int(label) for label in ids.labels if label != IGNORE]
    assert processor.tokenizer.decode(learnt) == "The left one.<|im_end|>"
    places = np.flatnonzero(ids.ids == image)
    assert len(places) == 2 * length
    assert set(np.diff(places)) == {1, 1 + len(processor.tokenizer(" and right is ").input_ids)}

    model, processor, loss = trained(parts, tmp_path / "a", [sample])
    (other,) = read(parts, row(WORDS, "The left one.", "two.png", "one.png"))
    assert trained(parts, tmp_path / "b", [other])[2] != pytest.approx(loss, rel=1e-4)

    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    maker = Generator(*load(tmp_path / "model"))
    left, right = (open_image(ref) for ref in sample.images)
    requests = [Request(sample.turns[:1], pictures) for pictures in ((left, right), (right, left), (left, left))]
    answers = [maker.answer_ids([request], GREEDY)[0] for request in requests]
    assert len({tuple(ids) for ids in answers}) == 3
    assert maker.answer_ids(requests, GREEDY) == answers


MIXED = [
    row("<image>\nWhat?", "red", "one.png"),
    row(WORDS, "left", "two.png", "three.png"),
    row("No picture?", "yes"),
    row("<image>\nWhat?", "blue", "four.png"),
]


@pytest.mark.parametrize("tokens", [16_384, 80])
def test_a_row_of_two_pictures_leaves_the_pictures_of_its_neighbours_alone(
    parts: Path, tmp_path: Path, tokens: int
) -> None:
    samples = read(parts, *MIXED)
    model, processor = model_of(parts)
    model.model.language_model.set_attn_implementation(attention.NAME)
    image, length = model.config.image_token_id, model.config.image_seq_length
    rows = [Writer(TEMPLATE, processor.tokenizer, image, length).row(sample) for sample in samples]
    for batch in pack(rows, image, length, tokens):
        used = [batch.images[place // length] for place in batch.features_at[batch.features_at >= 0]]
        wanted = [ref for sample in samples if sample.id in batch.rows for ref in sample.images for _ in range(length)]
        assert used == wanted
    alone = [trained(parts, tmp_path / sample.id, [sample])[2] for sample in samples]
    together = trained(parts, tmp_path / "all", samples, tokens_per_pass=tokens, normalise="rows")[2]
    assert together == pytest.approx(sum(alone) / len(alone), rel=1e-5)


def test_questions_about_two_pictures_leave_their_neighbours_answers_alone(parts: Path) -> None:
    samples = read(parts, *MIXED)
    maker = Generator(*model_of(parts))
    requests = [Request(s.turns[:1], tuple(open_image(ref) for ref in s.images)) for s in samples]
    alone = [maker.answer_ids([request], GREEDY)[0] for request in requests]
    assert maker.answer_ids(requests, GREEDY) == alone
    assert len({tuple(ids) for ids in alone}) == len(alone)


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("the vision tower ran")


STAGES = {"tune": {}, "full": {"language_model": "full"}, "unfrozen": {"vision_tower": "train"}}


@pytest.mark.parametrize("how", STAGES)
def test_rows_without_pictures_never_run_the_tower(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    samples = read(parts, row("No picture?", "yes"), row("Really?", "no"))
    kind = type(model_of(parts)[0].model)
    encode: Callable[..., Any] = kind.tower_features
    monkeypatch.setattr(kind, "tower_features", never)
    model, processor, _ = trained(parts, tmp_path / "a", samples, **STAGES[how])
    assert Generator(model, processor).answer_ids([Request((Turn("user", "Well?"),))], GREEDY)
    monkeypatch.setattr(kind, "tower_features", encode)
    assert Generator(model, processor).answer_ids(
        [Request((Turn("user", "<image>"),), (open_image(ImageRef(str(parts / "one.png"))),))], GREEDY
    )


@pytest.mark.parametrize("tokens", [16_384, 40])
def test_an_alignment_with_rows_that_have_no_picture_learns_from_the_others(
    parts: Path, tmp_path: Path, tokens: int
) -> None:
    """A pass of words alone moves no projector; it counts in the loss, as in the original."""
    samples = read(parts, row("<image>\nWhat?", "red", "one.png"), row("No picture at all, is there?", "yes"))
    frozen = {"language_model": "frozen", "normalise": "rows"}
    model, _, loss = trained(parts, tmp_path / "a", samples, tokens_per_pass=tokens, **frozen)
    before = model_of(parts)[0].model.multi_modal_projector.state_dict()
    moved = [not torch.equal(t, before[name]) for name, t in model.model.multi_modal_projector.state_dict().items()]
    assert all(moved)
    alone = [trained(parts, tmp_path / f"b{n}", [s], normalise="rows")[2] for n, s in enumerate(samples)]
    assert loss == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_a_step_of_words_alone_gives_an_aligned_projector_no_gradient(parts: Path, tmp_path: Path) -> None:
    """AdamW moves it on by its momentum, as in the original, whose empty picture brings gradients of zero."""
    samples = read(parts, row("<image>\nWhat?", "red", "one.png"), row("No picture?", "yes"))
    how = {"language_model": "frozen", "rows_per_step": 1}
    trained(parts, tmp_path / "a", samples, max_steps=2, **how)
    figures = [json.loads(line) for line in next((tmp_path / "a").rglob("metrics.jsonl")).read_text().splitlines()]
    norms = [row["grad_norm"] for row in figures]
    assert norms[0] > 0
    assert norms[1] == 0
    assert figures[1]["loss"] > 0
