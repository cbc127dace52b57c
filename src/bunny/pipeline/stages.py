"""Each stage's work: read its inputs, call one package, write its folder.

A stage is (input artifacts, its part of the recipe) -> folder. Heavy imports happen inside, so that planning is light.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from bunny.core.log import log
from bunny.core.protocols import Engine
from bunny.core.recipe import Recipe, StageSection, make
from bunny.core.store import Artifact, fingerprint, fingerprint_files, write_atomic
from bunny.core.types import Sample
from bunny.pipeline.model_cards import keep_data, write_model_card
from bunny.pipeline.watching import lent

SAMPLES = "samples.parquet"
PROJECTOR = "projector.safetensors"
TRAINING = "training"
NATIVE = "native"


def curate(recipe: Recipe, folder: Path, engine: Engine | None = None) -> Mapping[str, Any]:
    """Raw pairs to a coreset: `samples.parquet`, `decisions.parquet`, `report.html`, and the formats of `write`.

    engine: what runs the heavy work; default: as the recipe says.
    """
    from bunny.curate.card import write_card
    from bunny.pipeline.curating import POOL, curate_source, engine_of, write_more

    assert recipe.pool and recipe.curate  # else the flow has no such stage
    run = folder.parent  # the pool stands beside the artifact: other steps on the same pictures embed nothing again
    selection, made = curate_source(
        recipe.pool.source,
        recipe.locate("."),
        recipe.curate,
        seed=recipe.seed,
        folder=folder,
        run=run,
        engine=engine or engine_of(recipe.curate, run),
    )
    write_more(recipe.pool.source, recipe.curate, seed=recipe.seed, folder=folder, name=recipe.name)
    told = recipe.model_dump(mode="json", include={"seed", "pool", "curate"}, exclude={"curate": {"engine", "threads"}})
    write_card(folder, name=recipe.name, settings=told)
    counts = {"pairs": len(made), "rejected": len(selection.rejected), "kept": int(selection.kept().sum())}
    return {**counts, "pool_folder": f"../{POOL}"}


@contextmanager
def leading(recipe: Recipe, output: Path) -> Iterator[Engine | None]:
    """What runs the heavy work of a run; None for a process that has only helped another, and is through with it."""
    from bunny.curate.engines import LocalEngine
    from bunny.curate.engines import leading as leads
    from bunny.pipeline.curating import engine_of

    engine = LocalEngine() if recipe.curate is None else engine_of(recipe.curate, output)
    with leads(engine) as first:
        yield engine if first else None


def align(recipe: Recipe, folder: Path, curated: Artifact | None) -> Mapping[str, Any]:
    """Teach the projector to speak to the frozen language model: `projector.safetensors`."""
    from safetensors.torch import save_file

    from bunny.train.stage import projector_state

    assert recipe.align
    trained, _ = _train(recipe, recipe.align, folder, curated, None, "align")
    if trained.model is None:
        return {}
    save_file(projector_state(trained.model), folder / PROJECTOR)
    return _finished(recipe, "align", folder, trained, curated)


def tune(
    recipe: Recipe, section: StageSection | None, folder: Path, curated: Artifact | None, aligned: Artifact | None
) -> Mapping[str, Any]:
    """Visual instruction tuning by the section `tune` or `second`: a whole Hugging Face folder."""
    assert section
    trained, processor = _train(recipe, section, folder, curated, aligned.path / PROJECTOR if aligned else None, "tune")
    if trained.model is None:
        return {}
    if section.precision == "bf16":
        trained.model.bfloat16()  # as it was computed
    trained.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return _finished(recipe, "second" if section is recipe.second else "tune", folder, trained, curated)


def merge(recipe: Recipe, folder: Path, tuned: Artifact, second: Artifact) -> Mapping[str, Any]:
    """The weighted sum of both tuned models, as a whole folder."""
    from bunny.model.merge import average

    assert recipe.merge
    average((tuned.path, second.path), recipe.merge.weights, folder, recipe.merge.dtype)
    write_model_card(recipe, "merge", folder, {})
    return {"weights": recipe.merge.weights}


def evaluate(recipe: Recipe, folder: Path, tuned: Artifact) -> Mapping[str, Any]:
    """Held-out scores beside the baselines: `scores.json`, `report.html`."""
    from bunny.pipeline.answering import open_folder, score
    from bunny.train.model_card import add_scores

    section = recipe.evaluate
    assert section
    scored = score(
        open_folder(tuned.path, section.batch_rows, tuned.fingerprint),
        section.tasks,
        folder,
        recipe.locate("."),
        max_new_tokens=section.max_new_tokens,
        baselines=section.baselines,
        seed=recipe.seed,
        chats=section.chats,
    )
    write_atomic(folder / "scores.json", json.dumps(scored, indent=1))
    add_scores(tuned.path, scored["tasks"])
    return {"tasks": list(scored["tasks"])}


def makers_of(section: StageSection, recipe: Recipe, name: str) -> list[Any]:
    """The section's data makers; those from outside the package are left to themselves."""
    known = [(number, block) for number, block in enumerate(section.data) if ":" not in str(block.get("use"))]
    folder = recipe.locate(".")
    return [make(block, "bunny.data.makers", f"{name}.data.{number}", folder=folder) for number, block in known]


def step_inputs(recipe: Recipe) -> list[Path]:
    """What the curation's steps read besides the pool: benchmarks to keep out."""
    from bunny.curate.plan import plan
    from bunny.pipeline.curating import steps_of

    assert recipe.curate
    steps = [one.step for one in plan(steps_of(recipe.curate), recipe.locate("."))]
    return [path for step in steps if hasattr(step, "inputs") for path in step.inputs()]


def fingerprint_named(blocks: Sequence[Mapping[str, Any]], recipe: Recipe, files: Sequence[Path] = ()) -> str:
    """Fingerprint of every file or folder that the blocks' values name, and of `files` that are there.

    `root`, the folder of all published sets with their millions of pictures, is not walked: `files` are its contents.
    """
    found = [file for file in files if file.is_file()]
    for block in blocks:
        for key, value in block.items():
            path = recipe.locate(value) if isinstance(value, str) and value else None
            if path is not None and path.is_dir() and key != "root":
                found += [file for file in path.rglob("*") if file.is_file()]
            elif path is not None and path.is_file():
                found.append(path)
    return fingerprint("files", fingerprint_files(found), {})


def assembled(
    recipe: Recipe, projector: Path | str | None, quantise: Literal["nf4", "int8"] | None = None
) -> tuple[Any, Any]:
    """(model, processor) that a stage begins with: the recipe's checkpoint, or a fresh Bunny of its parts; with an
    aligned projector if a file is given."""
    from bunny.model.build import build, load, load_projector

    if recipe.model.checkpoint is not None:
        model, processor = load(recipe.locate(recipe.model.checkpoint))
    else:
        template = _template(recipe)
        model, processor = build(recipe.model, template.model_dump(), template.jinja(), recipe.seed, quantise)
    if projector:
        load_projector(model, Path(projector))
    return model, processor


def _template(recipe: Recipe) -> Any:
    """The model's conversation template: a file's, or the language model's own."""
    from bunny.model.language_models import tokenizer_of
    from bunny.text.native import native_template
    from bunny.text.template import Template

    if recipe.model.template != NATIVE:
        return Template.named(recipe.model.template)
    return native_template(tokenizer_of(recipe.model.language_model))


def _train(
    recipe: Recipe, section: StageSection, folder: Path, curated: Artifact | None, projector: Path | None, name: str
) -> tuple[Any, Any]:
    """(what training made, the processor) of a stage that begins with an aligned projector, its own, or a fresh one."""
    from bunny.data.images import open_image
    from bunny.train.stage import train_stage

    if isinstance(section.feature_cache, str):
        section = section.model_copy(update={"feature_cache": str(recipe.locate(section.feature_cache))})
    start = projector or (recipe.locate(section.start_projector) if section.start_projector else None)
    model, processor = assembled(recipe, start, section.lora.quantise)
    aspect = processor.image_aspect
    work = folder / TRAINING
    work.mkdir(exist_ok=True)
    trained = train_stage(
        section,
        model,
        processor,
        _supply(recipe, section, folder, curated, name),
        open_image,
        work,
        recipe.seed,
        name,
        fresh=lambda: assembled(recipe, start)[0],
        lent=lent(recipe, section, name),
    )
    processor.image_aspect = aspect  # a stage may prepare pictures in its own way; the model keeps its own
    return trained, processor


def _supply(recipe: Recipe, section: StageSection, folder: Path, curated: Artifact | None, name: str) -> Any:
    """The stage's rows, read if its folder, whose name is the fingerprint of all they come from, has no index yet."""
    from bunny.core.sample_table import read_samples
    from bunny.data.mixture import make_mixture
    from bunny.train.index import Supply
    from bunny.train.index_making import Stock

    def read() -> Stock:
        pairs: list[Sample] = read_samples(curated.path / SAMPLES) if curated else []
        mixture, rejected = make_mixture(
            section.data, pairs, seed=recipe.seed, folder=recipe.locate("."), by_picture=section.by_picture
        )
        for source, count in mixture.used.items():
            log.info("%s: %d of %d rows of %s", name, count, mixture.available[source], source)
        keep_data(folder / TRAINING, mixture.available, mixture.used)
        opened = {ref for pair in pairs for ref in pair.images}  # when they were embedded
        return Stock(mixture.samples, opened, rejected)

    return Supply(folder.name, read)


def _finished(recipe: Recipe, stage: str, folder: Path, trained: Any, curated: Artifact | None) -> Mapping[str, Any]:
    """The stage's facts; its card is written, and its checkpoints go, now that its outcome is there."""
    write_model_card(recipe, stage, folder, trained.facts, curated.path if curated else None)
    for checkpoint in (folder / TRAINING).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return dict(trained.facts)
