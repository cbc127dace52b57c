"""Recipes: one validated YAML tree that holds every setting of a run; nothing is set in code paths.

In: a YAML file and dotted overrides (`tune.lora.r=64`). Out: a frozen `Recipe`. Unknown keys are errors that name
the nearest known one. Curation steps, embedders, data makers and benchmarks are `{use: name, …}` blocks:
`name` is a file name of their package (or `my_lab.steps:Sharpness`), the other keys are that class's validated fields.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from bunny.core.errors import UserError, nearest


class Section(BaseModel):
    """A block of settings: frozen, unknown keys refused with the nearest known name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key `{key}`, {nearest(str(key), cls.model_fields)}")
        return data


Block = dict[str, Any]
"""A `{use: name, …}` block; checked by `make(block, package)` against the class that `name` stands for."""


class PoolSection(Section):
    """The raw pairs."""

    source: Block  # {use: table | folder | webdataset | llava_json | embeddings, path: …}


class CurateSection(Section):
    """From raw pairs to a coreset."""

    embedder: Block | None = None  # {use: lite0_minilm | clip, …}; a source with vectors needs none
    steps: list[Block] = Field(default_factory=list)  # in order; see curate/steps
    preset: str | None = None  # a file of curate/presets whose steps are taken where `steps` is empty
    part_rows: int | None = Field(None, gt=0, description="samples of a part; 512 to embed, 262,144 with vectors")
    threads: int = Field(0, ge=0, description="threads that decode pictures, of each task; 0 = all cores")
    engine: Block | None = None  # {use: local | ray | ranks, …} runs the heavy work; default: this process
    write: list[Block] = Field(default_factory=list)  # further formats: {use: webdataset | parquet | llava_json, …}

    @model_validator(mode="after")
    def _has_steps(self) -> CurateSection:
        if self.preset is None and "steps" not in self.model_fields_set:
            raise ValueError("no steps: give `steps` (`[]` makes the pool alone), or the name of a `preset`")
        return self


class ModelSection(Section):
    """What is put together; or, with `checkpoint`, the saved model that learns on (all other fields are its own)."""

    checkpoint: str | None = None  # a Bunny folder to go on from, in place of the parts
    language_model: str = ""  # hub name, folder, or `bundled:smollm2-135m-instruct`
    vision_tower: str = ""  # hub name, folder, or `bundled:efficientnet-lite0`
    projector: str = "mlp2x_gelu"  # linear, mlpNx_gelu, spp_v1, spp_v2, spp_v3, ldp, minigpt, vanilla, identity
    template: str = "bunny"  # a file of text/templates, or `native`: the language model's own chat template
    image_aspect: Literal["pad", "square"] = "pad"  # pad to a square with the mean colour, or squash
    image_size: int | None = Field(None, gt=0, description="pixels; default: the tower's own")
    s2_scales: tuple[int, ...] = ()  # S2 multi-scale: side lengths in pixels, e.g. [384, 768, 1152]; empty: one scale
    vision_feature_layer: int = -1  # after the tower has been trimmed to the layers it needs

    @model_validator(mode="after")
    def _is_something(self) -> ModelSection:
        given = self.model_fields_set - {"checkpoint"}
        if self.checkpoint is None and not (self.language_model and self.vision_tower):
            raise ValueError("give `language_model` and `vision_tower`, or the `checkpoint` to go on from")
        if self.checkpoint is not None and given:
            raise ValueError(f"`checkpoint` brings its own {', '.join(sorted(given))}: leave those out")
        return self


class LoraSection(Section):
    """Low-rank adapters on every linear layer of the language model."""

    r: int = Field(128, gt=0)
    alpha: int = Field(256, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    variant: Literal["lora", "rslora", "dora"] = "lora"
    quantise: Literal["nf4", "int8"] | None = None  # frozen weights in 4 or 8 bits (QLoRA); needs the extra `gpu`


class StageSection(Section):
    """One training stage (align or tune)."""

    data: list[Block]  # {use: captions | object_questions | easy_vqa | llava_json, weight: …}
    by_picture: bool = True  # rows about one picture stay together, so that a step encodes it once and shares it
    group_by_modality_length: bool = False  # a step's rows are all with or all without pictures, of similar length
    language_model: Literal["frozen", "lora", "full"]
    projector: Literal["frozen", "train"] = "train"
    vision_tower: Literal["frozen", "train"] = "frozen"
    start_projector: str | None = None  # safetensors file of an aligned projector to begin with
    lora: LoraSection = LoraSection()
    template: str | None = None  # default: the model's
    image_aspect: Literal["pad", "square"] | None = None  # default: the model's
    learning_rate: float = Field(gt=0)
    projector_learning_rate: float | None = Field(None, gt=0)  # default: learning_rate
    vision_learning_rate: float | None = Field(None, gt=0)  # default: the projector's
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, gt=0)  # stops earlier than `epochs`
    rows_per_step: int = Field(128, gt=0, description="global batch in rows (conversations)")
    tokens_per_pass: int = Field(4096, gt=0, description="packed tokens per forward pass; more passes are accumulated")
    max_length: int = Field(2048, gt=0, description="tokens of one row, image tokens included; longer ones are cut")
    normalise: Literal["tokens", "rows", "micro_batches"] = "tokens"  # what weighs the same in a step's loss
    micro_batch_rows: int = Field(8, gt=0, description="rows of a micro batch, for `normalise: micro_batches` only")
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool | Literal["auto", "selective"] = "auto"  # auto: only where memory is too small
    feature_cache: bool | str = False  # true: the frozen tower sees each picture once; a folder: once for all its runs
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"  # with several processes; auto: fsdp if the language model learns
    deepspeed: str | None = None  # a DeepSpeed configuration file, in place of `parallel`
    workers: int = Field(0, ge=0, description="processes that decode pictures; 0 = the training process itself")
    save_every_steps: int = Field(500, gt=0)
    keep_checkpoints: int = Field(1, gt=0)
    evaluate: list[Block] = Field(default_factory=list)  # benchmarks that are scored while it learns
    evaluate_every_steps: int | None = Field(None, gt=0)
    preview_every_steps: int | None = Field(None, gt=0, description="answers to a few rows are written down so often")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)


class EvaluateSection(Section):
    """Held-out benchmarks."""

    tasks: list[Block]  # {use: easy_vqa | picture_yes_no | …}
    baselines: tuple[Literal["majority", "blind", "untrained", "shuffled"], ...] = ("majority", "blind", "untrained")
    max_new_tokens: int = Field(128, gt=0)
    batch_rows: int = Field(32, gt=0, description="questions answered together")
    chats: int = Field(0, ge=0, description="pictures of the last task that are also asked an open question")


class MergeSection(Section):
    """The tuned models become one: every tensor is the weighted sum of theirs."""

    weights: tuple[float, float]  # of `tune` and of `second`
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class CardSection(Section):
    """What `bunny zoo` says of the recipe's model."""

    title: str
    scores: dict[str, float] = Field(default_factory=dict)  # published figures, by benchmark
    source: str = ""  # where they are published
    note: str = ""


class Recipe(Section):
    """A whole run. Without `pool` and `curate` its data stand in files; without `evaluate` nothing is scored."""

    name: str
    card: CardSection | None = None
    seed: int = 0
    pool: PoolSection | None = None
    curate: CurateSection | None = None
    model: ModelSection
    align: StageSection | None = None  # without it, tuning begins with the checkpoint's or a fresh projector
    tune: StageSection
    second: StageSection | None = None  # another tuning from the same aligned projector
    merge: MergeSection | None = None  # of `tune` and `second`
    evaluate: EvaluateSection | None = None
    fast: dict[str, Any] = Field(default_factory=dict)  # dotted overrides that `--fast` applies

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _fit_together(self) -> Recipe:
        if (self.pool is None) != (self.curate is None):
            raise ValueError("`pool` and `curate` go together: give both or neither")
        if self.align is not None and self.model.checkpoint is not None:
            raise ValueError("a `checkpoint` is aligned already: leave `align` out")
        if (self.second is None) != (self.merge is None):
            raise ValueError("`second` and `merge` go together: give both or neither")
        return self

    @staticmethod
    def load(path: Path, overrides: Sequence[str] = (), fast: bool = False) -> Recipe:
        """The validated recipe. Raises UserError that names file, key and nearest known key."""
        tree = _read(path)
        quick = tree.get("fast") or {}
        if fast and isinstance(quick, dict):  # anything else is refused below
            for key, value in quick.items():
                _put(tree, str(key), value)
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise UserError(f"override `{override}` has no `=`", fix="write it as tune.lora.r=64")
            _put(tree, key.strip(), _parse(text, f"override `{override}`"))
        recipe = check(Recipe, tree, where=str(path))
        recipe._folder = path.resolve().parent
        return recipe

    def locate(self, path: str) -> Path:
        """A path written in the recipe, seen from the recipe's own folder."""
        return (self._folder / path).resolve()


def _read(path: Path) -> dict[str, Any]:
    """The file's sections. Raises UserError if it cannot be read or is no mapping."""
    try:
        tree = _parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe", fix="see the files in `recipes/`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections", fix="start from a file in `recipes/`")
    return tree


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: plain YAML would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key `{key.value}` twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


SectionType = TypeVar("SectionType", bound=BaseModel)


def check(kind: type[SectionType], tree: Mapping[str, Any], where: str) -> SectionType:
    """`tree` validated as `kind`. Raises UserError with the first error's dotted place in one line."""
    try:
        return kind.model_validate(copy.deepcopy(dict(tree)))
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error.errors())}") from None


def _first(errors: Sequence[ErrorDetails]) -> str:
    """The first of pydantic's errors, with its dotted place, in one line."""
    place = ".".join(str(part) for part in errors[0]["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = errors[0]["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message}{more}"


def make(block: Block, package: str, where: str = "recipe", **context: Any) -> Any:
    """The object a `{use: name, …}` block stands for.

    `name` is a module of `package` whose class is the module's `USE`, or `module:Class` for code from outside.
    context: fields the program supplies (folder, seed …); only those the class has are passed.
    """
    name, settings = _split(block, where)
    kind = find(name, package, where)
    known = {key: value for key, value in context.items() if key in kind.model_fields and key not in settings}
    return check(kind, {**settings, **known}, f"{where}: {name}")


def check_blocks(recipe: Recipe, where: str) -> None:
    """Raise UserError if a `{use: …}` block of the recipe names nothing, or has an unknown or bad setting.

    Fields that the program supplies (folder, seed …) may be missing.
    """
    groups: list[tuple[str, list[Block], str]] = []
    stages = {"align": recipe.align, "tune": recipe.tune, "second": recipe.second}
    for name, section in stages.items():
        if section:
            groups.append((f"{name}.data", section.data, "bunny.data.makers"))
            groups.append((f"{name}.evaluate", section.evaluate, "bunny.evaluate.benchmarks"))
    if recipe.pool and recipe.curate:
        groups += [
            ("pool.source", [recipe.pool.source], "bunny.data.sources"),
            ("curate.embedder", _given(recipe.curate.embedder), "bunny.infer.embedders"),
            ("curate.steps", recipe.curate.steps, "bunny.curate.steps"),
            ("curate.engine", _given(recipe.curate.engine), "bunny.curate.engines"),
            ("curate.write", recipe.curate.write, "bunny.data.writers"),
        ]
    if recipe.evaluate:
        groups.append(("evaluate.tasks", recipe.evaluate.tasks, "bunny.evaluate.benchmarks"))
    for place, blocks, package in groups:
        for block in blocks:
            _check_block(block, package, f"{where}: {place}")


def _given(block: Block | None) -> list[Block]:
    return [] if block is None else [block]


def _check_block(block: Block, package: str, where: str) -> None:
    name, settings = _split(block, where)
    try:
        find(name, package, where).model_validate(copy.deepcopy(settings))
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "missing"]
        if wrong:
            raise UserError(f"{where}: {name}: {_first(wrong)}") from None


def _split(block: Block, where: str) -> tuple[str, dict[str, Any]]:
    """(name, settings) of a block."""
    settings = dict(block)
    name = settings.pop("use", None)
    if not isinstance(name, str):
        raise UserError(f"{where}: {dict(block)}: no `use`", fix="name what to use, e.g. {use: dedup}")
    return name, settings


def find(name: str, package: str, where: str) -> type[BaseModel]:
    """The class that `use: name` stands for: `USE` of `package.name`, or `module:Class`."""
    module_name, colon, class_name = name.partition(":")
    unknown = UserError(f"{where}: nothing is called `{name}`, {nearest(name, names(package))}")
    wanted = module_name if colon else f"{package}.{name}"
    try:
        module = importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing == wanted or wanted.startswith(f"{missing}."):
            raise unknown from None
        raise UserError(f"{where}: {name} needs the Python package `{missing}`", fix=f"pip install {missing}") from None
    kind = getattr(module, class_name if colon else "USE", None)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise unknown
    return kind


def names(package: str) -> list[str]:
    """All names `use:` knows in a package: its files."""
    folder = Path(str(importlib.import_module(package).__file__)).parent
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `tree["a"]["b"]` for `a.b`; list items by number."""
    *parents, last = dotted.split(".")
    node: Any = tree
    for part in parents:
        place = _place(node, part, dotted)
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[place]
    node[_place(node, last, dotted)] = value


def _place(node: Any, part: str, dotted: str) -> Any:
    """`part` as a key of the mapping or a number of the list that `node` is."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise UserError(f"override `{dotted}`: there are no settings above `{part}`")
    if not part.isdecimal() or int(part) >= len(node):
        raise UserError(
            f"override `{dotted}`: `{part}` is not in the list", fix=f"use a number from 0 to {len(node) - 1}"
        )
    return int(part)
