"""Seconds to answer a benchmark's questions: ours beside the original's loop, which reads one question at a time.

    taskset -c 0 python bench/evaluation.py --json > bench/results/evaluation.json
    python bench/evaluation.py --shape tiny --dtype bfloat16 --pictures 20 --json           # rows that differ
    python bench/evaluation.py --device cuda --dtype bfloat16 --shape real --json      # written for GPUs, not tried yet

Both ask the same random model about the same made-up pictures in the same run, with the template and the question
suffixes of the original:

- `original`: transformers' `generate` for each question, its picture encoded each time, as the original's scripts do
- `ours`: `bunny.infer.answerer.ModelAnswerer`

Sets have the shape of the published ones: GQA 31 questions a picture, answers of up to 3 tokens with their end; POPE
17.8, answers of 2 tokens. A random model never ends an answer, so the limit stands for the end. Shape `scaled` is
Bunny-v1.0-3B (SigLIP-so400m with 729 tokens a picture, phi-2) with a fortieth of the weights in both parts. Pictures
are decoded before, their resizing is part of the time. The answers have to be the same, token by token, in float32, or
it stops; in other types, `--dtype`, the rows that differ are counted (`flips`), also for ours one question at a time.

On a CPU `seconds` are the processor's, which other programs on the machine do not lengthen; `wall_seconds` beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PhiConfig,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from bunny.core.recipe import ModelSection
from bunny.core.types import IMAGE_MARK, GenerationSettings, ImageRef, Question, Turn
from bunny.infer.answerer import ModelAnswerer
from bunny.infer.generate import Generator
from bunny.model.build import build
from bunny.text.template import Template

WORDS = re.findall(
    r"\w+",
    """
    red green blue brown white black small large wooden round old young left right top bottom man woman child dog cat
    horse car truck bus train table chair plate cup bottle window door tree flower street field water sky house bench
""",
)
FORMS = ("Is there a {0} {1} in the image?", "What is on the {0} side of the {1} {2}?", "Which kind of {1} is {0}?")
SUFFIX = "\nAnswer the question using a single word or phrase."
SHAPES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "tiny": ((48, 96, 3, 2, 56, 14), (64, 128, 2, 4, 1000)),
    "scaled": ((384, 1434, 6, 6, 384, 14), (768, 3072, 9, 12, 4096)),
    "real": ((1152, 4304, 27, 16, 384, 14), (2560, 10240, 32, 32, 51200)),
}  # type: ignore[assignment]
VISION = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
TEXT = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True)
class Set:
    """A benchmark's shape. counts: questions about each picture, in turn."""

    counts: tuple[int, ...]
    forms: tuple[str, ...]
    max_new_tokens: int
    target: float

    def questions(self, pictures: int) -> list[Question]:
        rng = random.Random(0)
        counts = [self.counts[n % len(self.counts)] for n in range(pictures)]
        return [
            Question(f"{p}-{n}", rng.choice(self.forms).format(*rng.sample(WORDS, 3)) + SUFFIX, (ImageRef(str(p)),), ())
            for p, count in enumerate(counts)
            for n in range(count)
        ]


SETS = {
    "gqa": Set((31,), FORMS, 3, 8.0),
    "pope": Set((18, 18, 18, 18, 17), FORMS[:1], 2, 5.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="scaled")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        generator = Generator(*random_bunny(Path(folder), args.shape))
    generator.model.to(args.device, getattr(torch, args.dtype))
    cases = {name: measure(generator, SETS[name], args) for name in args.sets}
    facts = {"shape": args.shape, "dtype": args.dtype, "batch_rows": args.batch_rows, **where(args.device)}
    if args.json:
        print(json.dumps({**facts, "sets": cases}, indent=1))
        return
    for name, case in cases.items():
        print(name, json.dumps(case))


def random_bunny(folder: Path, shape: str) -> tuple[Any, Any]:
    """(model, processor) with random weights, large enough that answers differ."""
    vision, text = (
        dict(zip(names, sizes, strict=True)) for names, sizes in zip((VISION, TEXT), SHAPES[shape], strict=True)
    )
    torch.manual_seed(0)
    tokenizer = word_tokenizer(text["vocab_size"])
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    config = PhiConfig(**text, **ends, partial_rotary_factor=0.5, max_position_embeddings=2048)
    language = AutoModelForCausalLM.from_config(config)
    tower = SiglipVisionModel(SiglipVisionConfig(**vision))
    for model, std in ((language, 0.15), (tower, 0.06)):
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.data.normal_(std=std)
    language.save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    tower.save_pretrained(folder / "tower")
    side = {"height": vision["image_size"], "width": vision["image_size"]}
    SiglipImageProcessorPil(size=side).save_pretrained(folder / "tower")
    section = ModelSection(language_model=str(folder / "language"), vision_tower=str(folder / "tower"))
    template = Template.named("bunny")
    return build(section, template.model_dump(), template.jinja(), seed=0)


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the questions' words whole, as a real one does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    template = Template.named("bunny")
    spoken = [" ".join(WORDS), *FORMS, SUFFIX, template.system]
    tokenizer.train_from_iterator(spoken * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def measure(generator: Generator, kind: Set, args: argparse.Namespace) -> dict[str, Any]:
    """Both ways on the same questions, and whether they agree."""
    questions = kind.questions(args.pictures)
    rng = np.random.default_rng(0)
    pictures = {
        str(n): Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for n in range(args.pictures)
    }
    settings = GenerationSettings(max_new_tokens=kind.max_new_tokens)
    ours = Recorder(generator)

    def answer(some: Sequence[Question]) -> list[list[int]]:
        answerer = ModelAnswerer(ours, "ours", lambda ref: pictures[ref.path], settings, args.batch_rows)  # type: ignore[arg-type]
        order = {answer.id: row for row, answer in enumerate(answerer.answer(some))}
        ids, ours.ids = ours.ids, []
        return [ids[order[question.id]] for question in some]

    def original(some: Sequence[Question]) -> list[list[int]]:
        return [one_by_one(generator, question, pictures, settings) for question in some]

    answer(questions[:2])
    original(questions[:2])  # warm
    (new, new_time), (old, old_time) = timed(lambda: answer(questions)), timed(lambda: original(questions))
    flips = sum(a != b for a, b in zip(new, old, strict=True))
    if args.dtype == "float32" and flips:
        raise SystemExit(f"{flips} of {len(questions)} answers differ")
    alone = [answer([question])[0] for question in questions] if args.dtype != "float32" else new
    return {
        "questions": len(questions),
        "pictures": args.pictures,
        "max_new_tokens": kind.max_new_tokens,
        "different_answers": len(set(map(tuple, new))),
        "original": old_time,
        "ours": new_time,
        "flips": flips,
        "flips_from_ours_one_by_one": sum(a != b for a, b in zip(new, alone, strict=True)),
        "speedup": round(old_time["seconds"] / new_time["seconds"], 2),
        "target": kind.target,
    }


class Recorder:
    """The generator, with the ids of its answers kept."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.ids = generator, list[list[int]]()

    def answer(self, requests: Any, settings: GenerationSettings) -> list[str]:
        ids = self.generator.answer_ids(requests, settings)
        self.ids += ids
        return self.generator.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)  # type: ignore[no-any-return]


def one_by_one(generator: Generator, question: Question, pictures: Any, settings: GenerationSettings) -> list[int]:
    """The original's loop body: prompt, pixels, generate."""
    turns = (Turn("user", f"{IMAGE_MARK}\n{question.prompt}"),)
    ids = torch.tensor([generator.writer.prompt(turns, question.images)], device=generator.model.device)
    pixels = generator.processor.pixels([pictures[ref.path] for ref in question.images])
    with torch.inference_mode():
        out = generator.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels.to(generator.model.device, generator.model.dtype),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=generator._stop_ids(),
            pad_token_id=0,
            suppress_tokens=[generator.model.config.image_token_id],
        )
    return out[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    def now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return time.perf_counter(), time.perf_counter()
        return time.process_time(), time.perf_counter()

    start = now()
    made = work()
    spent, wall = (b - a for a, b in zip(start, now(), strict=True))
    return made, {"seconds": round(spent, 2), "wall_seconds": round(wall, 2)}


def where(device: str) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    chip = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    return {"machine": f"{chip}, torch {torch.__version__}", "threads": 1, "commit": commit.strip()}


if __name__ == "__main__":
    main()
