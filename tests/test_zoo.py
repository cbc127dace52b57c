"""The model zoo: published settings are the published ones, every recipe runs from end to end on tiny twins."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import bunny
from bunny.cli import app, recipes
from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection, Recipe
from bunny.core.types import IGNORE, GenerationSettings
from bunny.model import attention
from bunny.model.build import build
from bunny.model.language_models import load_language_model
from bunny.pipeline import flow, zoo
from bunny.pipeline.check import check_recipe
from bunny.pipeline.stages import makers_of
from bunny.text.template import Template
from tests.zoo_backbones import save_language_model, save_vision_tower

ROOT = Path(__file__).parents[1]
SIGLIP, EVA = "google/siglip-so400m-patch14-384", "EVA02_CLIP_L_336_psz14_s6B.pt"
PHI3, LLAMA3 = "microsoft/Phi-3-mini-4k-instruct", "meta-llama/Meta-Llama-3-8B-Instruct"
S2 = (384, 768, 1152)

# name: tower, language model, template, align rate, then per tuning
# (data, tower, rate, projector's rate, LoRA r, alpha, rows x accumulated x GPUs, max_length); merge weights; S2 scales
A = ("bunny-695k", "frozen", 2e-4, 2e-5, 128, 256, (8, 2, 8), 2048)
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "bunny-phi-1.5-eva-lora": (EVA, "microsoft/phi-1_5", "bunny", 1e-3, [A], None, ()),
    "bunny-stablelm-2-eva-lora": (EVA, "stabilityai/stablelm-2-1_6b", "bunny", 1e-3, [A], None, ()),
    "bunny-phi-2-eva-lora": (EVA, "microsoft/phi-2", "bunny", 5e-5, [A], None, ()),
    "bunny-phi-1.5-siglip-lora": (SIGLIP, "microsoft/phi-1_5", "bunny", 5e-4, [A], None, ()),
    "bunny-stablelm-2-siglip-lora": (SIGLIP, "stabilityai/stablelm-2-1_6b", "bunny", 5e-4, [A], None, ()),
    "bunny-v1.0-2b-zh": (SIGLIP, "Qwen/Qwen1.5-1.8B", "bunny", 5e-4, [A], None, ()),
    "bunny-v1.0-3b-zh": (SIGLIP, "openbmb/MiniCPM-2B-history", "minicpm", 5e-4, [A], None, ()),
    "bunny-v1.0-3b": (SIGLIP, "microsoft/phi-2", "bunny", 5e-4, [A], None, ()),
    "bunny-v1.0-4b": (
        *(SIGLIP, PHI3, "bunny", 1e-3),
        [
            ("bunny-695k", "frozen", 2e-4, 2e-5, 128, 256, (4, 4, 8), 4096),
            ("bunny-llava-1.4m", "train", 2e-4, 2e-5, 128, 256, (4, 4, 8), 4096),
        ],
        *((0.3, 0.7), ()),
    ),
    "bunny-v1.1-4b": (
        *(SIGLIP, PHI3, "bunny", 1e-3),
        [
            ("bunny-allava-1.3m", "frozen", 2e-4, 2e-5, 128, 256, (4, 4, 8), 4096),
            ("bunny-llava-allava-2m", "train", 2e-4, 2e-5, 128, 256, (4, 4, 8), 4096),
        ],
        *((0.3, 0.7), S2),
    ),
    "bunny-llama-3-8b-v": (
        *(SIGLIP, LLAMA3, "llama", 1e-3),
        [
            ("bunny-695k", "frozen", 2e-4, 2e-5, 128, 256, (8, 2, 8), 2048),
            ("bunny-llava-1.4m", "train", 1e-4, 1e-5, 128, 256, (8, 2, 8), 2048),
        ],
        *((0.5, 0.5), ()),
    ),
    "bunny-v1.1-llama-3-8b-v": (
        *(SIGLIP, LLAMA3, "llama", 1e-3),
        [
            ("bunny-allava-1.3m", "frozen", 1e-4, 1e-5, 256, 256, (4, 4, 8), 4096),
            ("bunny-llava-allava-2m", "train", 1e-4, 1e-5, 256, 256, (4, 4, 8), 4096),
        ],
        *((0.42, 0.58), S2),
    ),
}
SCORES = {  # mme_p mme_c | MMBench test dev | MMBench-CN test dev | SEED, image | MMMU val test | VQAv2 GQA SQA-I POPE
    "bunny-phi-1.5-eva-lora": "1213.7 278.9 60.9 56.8 - - 56.4 64.1 30.0 28.4 76.5 60.4 58.2 86.1",
    "bunny-stablelm-2-eva-lora": "1301.0 235.0 58.4 56.4 - - 55.3 62.8 29.8 29.4 74.6 56.7 60.0 84.8",
    "bunny-phi-2-eva-lora": "1421.0 285.4 68.6 67.4 - - 62.2 70.2 35.9 32.6 78.9 62.3 69.1 87.1",
    "bunny-phi-1.5-siglip-lora": "1230.0 237.5 61.2 59.7 - - 57.7 65.3 30.0 29.1 78.0 61.1 61.3 85.8",
    "bunny-stablelm-2-siglip-lora": "1366.8 236.1 65.1 62.8 - - 58.8 67.5 29.9 29.8 78.9 60.9 61.1 85.9",
    "bunny-v1.0-2b-zh": "1300.8 254.3 59.8 59.1 59.5 58.5 55.4 62.3 34.4 30.4 76.6 59.6 64.6 85.8",
    "bunny-v1.0-3b-zh": "1410.4 281.4 66.1 65.5 64.9 63.6 59.6 67.3 35.4 32.4 78.6 60.8 68.7 86.5",
    "bunny-v1.0-3b": "1488.8 289.3 69.2 68.6 - - 62.5 70.7 38.2 33.0 79.8 62.5 70.9 86.8",
    "bunny-v1.0-4b": "1495.2 338.9 74.0 73.5 - - 64.5 72.1 40.1 39.1 81.5 63.5 75.2 86.7",
    "bunny-v1.1-4b": "1581.5 361.1 75.7 74.2 66.5 64.5 64.9 72.5 41.4 38.4 82.1 63.2 78.3 87.2",
    "bunny-llama-3-8b-v": "1588.9 321.1 77.2 76.7 73.8 72.3 65.9 73.3 42.8 39.0 82.6 64.8 80.4 86.9",
    "bunny-v1.1-llama-3-8b-v": "1644.1 367.5 78.1 77.2 74.3 74.8 66.2 73.5 43.3 39.0 82.9 64.0 79.9 87.2",
}
KEYS = (
    *("mme_p", "mme_c", "mmbench_test", "mmbench_dev", "mmbench_cn_test", "mmbench_cn_dev", "seed", "seed_img"),
    *("mmmu_val", "mmmu_test", "vqav2", "gqa", "sqa_img", "pope"),
)
COMMON = {"weight_decay": 0.0, "warmup_ratio": 0.03, "max_grad_norm": 1.0, "epochs": 1.0, "max_steps": None}
COMMON |= {"precision": "bf16", "gradient_checkpointing": True, "by_picture": False, "projector": "train", "workers": 4}


LANGUAGE_MODELS = list(zoo.backbones().language_models)


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name: str) -> None:
    tower, language_model, template, align_rate, tunings, weights, scales = PUBLISHED[name]
    recipe, text = zoo.load(name), zoo.path_of(name).read_text(encoding="utf-8")
    model, align = recipe.model, recipe.align
    assert (model.vision_tower, model.language_model, model.template) == (tower, language_model, template)
    assert (model.projector, model.image_aspect, model.s2_scales) == ("mlp2x_gelu", "pad", scales)
    assert (align.language_model, align.vision_tower, align.template) == ("frozen", "frozen", "plain")
    assert (align.image_aspect, align.max_length, align.rows_per_step) == ("square", 2048, 8 * 4 * 8)
    assert (align.learning_rate, align.projector_learning_rate, align.save_every_steps) == (align_rate, None, 24000)
    assert align.data == [{"use": "published", "name": "bunny-pretrain-laion-2m"}]
    sections = [section for section in (recipe.tune, recipe.second) if section]
    for section, tuning in zip(sections, tunings, strict=True):
        data, learns, rate, projector_rate, r, alpha, (rows, accumulated, gpus), length = tuning
        assert section.data == [{"use": "published", "name": data}]
        assert (section.language_model, section.vision_tower) == ("lora", learns)
        assert (section.learning_rate, section.projector_learning_rate) == (rate, projector_rate)
        assert section.vision_learning_rate is None  # the projector's
        assert (section.lora.r, section.lora.alpha, section.lora.dropout) == (r, alpha, 0.05)
        assert section.lora.variant == "lora"
        assert (section.rows_per_step, section.max_length) == (rows * accumulated * gpus, length)
        assert (section.save_every_steps, section.keep_checkpoints) == (500, 1)
        assert (section.template, section.image_aspect) == (None, None)  # the model's
    for section in (align, *sections):
        assert {key: getattr(section, key) for key in COMMON} == COMMON
    wanted = [(8, 4, 8), *(tuning[6] for tuning in tunings)]
    told = re.findall(r"rows_per_step: (\d+) # (\d+) rows x (\d+) accumulated x (\d+) GPUs", text)
    assert [tuple(map(int, found[1:])) for found in told] == wanted
    assert (recipe.merge.weights if recipe.merge else None) == weights


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_published_ones(name: str) -> None:
    card = zoo.load(name).card
    wanted = {key: float(word) for key, word in zip(KEYS, SCORES[name].split(), strict=True) if word != "-"}
    assert card
    assert card.scores == wanted
    assert card.source == "https://github.com/BAAI-DCAI/Bunny#model-zoo"


def test_what_nobody_published_has_no_scores_and_says_so() -> None:
    for name in set(zoo.names()) - PUBLISHED.keys():
        card = zoo.load(name).card
        assert card
        assert not card.scores
        assert "no scores are published" in card.note


def test_full_tuning_is_the_scripts_default() -> None:
    tune = zoo.load("bunny-v1.0-3b-full").tune
    assert (tune.language_model, tune.learning_rate, tune.projector_learning_rate) == ("full", 2e-5, None)
    assert (tune.rows_per_step, tune.max_length) == (8 * 2 * 8, 2048)


@pytest.mark.parametrize("name", zoo.names())
def test_every_recipe_is_good_and_its_batches_add_up(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = zoo.load(name)
    monkeypatch.setenv("BUNNY_DATA", str(tmp_path))
    missing = r"Bunny-pretrain-LAION-2M: no .*; download .*; `bunny data check|\.pt: no such file"
    with pytest.raises(UserError, match=missing):
        check_recipe(recipe)  # before anything is loaded
    for section in (recipe.align, recipe.tune, recipe.second):
        for maker in makers_of(section, recipe, "data") if section else ():
            for path in maker.inputs():
                path.parent.mkdir(exist_ok=True)
                path.touch()
    monkeypatch.chdir(tmp_path)
    if recipe.model.vision_tower.endswith(".pt"):
        with pytest.raises(UserError, match=r"\.pt: no such file; download it"):
            check_recipe(recipe)
        Path(recipe.model.vision_tower).touch()
    check_recipe(recipe)
    assert recipe.name == name
    zoo.entry(name)  # its backbones are known
    text = zoo.path_of(name).read_text(encoding="utf-8")
    told = re.findall(r"rows_per_step: (\d+) # (\d+) rows x (\d+) accumulated x (\d+) GPUs", text)
    assert len(told) == text.count("rows_per_step")
    for total, *factors in told:
        assert int(total) == np.prod([int(factor) for factor in factors])


def test_downloads_are_as_large_as_the_counted_weights() -> None:
    for name, backbone in zoo.backbones().language_models.items():
        stored = backbone.download_gb * 1e9 / (2 * backbone.parameters)  # all are stored in 16 bits
        assert 0.99 < stored < 1.01 or name == "Qwen/Qwen3-1.7B"  # which stores its tied head a second time


@pytest.mark.slow
def test_what_is_counted_is_up_to_date() -> None:
    scripts = import_module("scripts.zoo_docs")
    assert scripts.BACKBONES.read_text(encoding="utf-8") == scripts.counted(), "run `python scripts/zoo_docs.py`"


def test_the_table_of_the_documentation_is_up_to_date() -> None:
    scripts = import_module("scripts.zoo_docs")
    text = scripts.PAGE.read_text(encoding="utf-8")
    assert text == scripts.page(text), "run `python scripts/zoo_docs.py`"
    assert text.count("| bunny-") == len(zoo.names())


def test_memory_grows_with_what_learns() -> None:
    item = zoo.entry("bunny-v1.0-3b")
    shape, row = item.shape, zoo.summary(item)
    assert shape.projector_parameters == 1152 * 2560 + 2560 + 2560 * 2560 + 2560
    assert 2e-9 * shape.parameters < row["run_gb"] < row["align_gb"] < row["lora_gb"] < row["full_gb"]
    assert row["full_gb"] > 16e-9 * shape.language_model_parameters
    many = zoo.entry("bunny-v1.1-4b")
    assert sum(many.shape.squares) == 14
    assert zoo.summary(many)["run_gb"] > zoo.summary(zoo.entry("bunny-v1.0-4b"))["run_gb"]


def test_the_list_and_a_recipe_are_shown() -> None:
    shown = CliRunner().invoke(app, ["zoo"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in zoo.names())
    one = CliRunner().invoke(app, ["zoo", "bunny-v1.1-4b"]).stdout
    for words in ("mmbench_cn_dev: 64.5", "[384, 768, 1152]", "finetune/bunny_llava_allava_2m.json", "7.64 GB, MIT"):
        assert words in one
    commands = [line.split() for line in one.partition("commands:")[2].splitlines() if line]
    assert ["bunny", "train", "bunny-v1.1-4b"] in commands
    for words in commands:
        verbs = words[1 : 3 if words[1] == "data" else 2]
        assert CliRunner().invoke(app, [*verbs, "--help"]).exit_code == 0
    rows = json.loads(CliRunner().invoke(app, ["zoo", "--json"]).stdout)
    assert {row["name"] for row in rows} == set(zoo.names())
    facts = json.loads(CliRunner().invoke(app, ["zoo", "bunny-v1.0-3b", "--json"]).stdout)
    assert [item["name"] for item in facts["download"]] == ["microsoft/phi-2", SIGLIP]


def test_a_name_goes_where_a_recipe_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["recipe", "check", "bunny-v1.0-3b"]).exit_code == 0
    shown = CliRunner().invoke(app, ["recipe", "show", "bunny-v1.0-3b", "--set", "tune.lora.r=8", "--json"])
    assert json.loads(shown.stdout)["tune"]["lora"]["r"] == 8
    assert recipes.is_recipe("bunny-v1.0-3b")
    (tmp_path / "bunny-v1.0-3b").mkdir()  # a run folder of that name is no recipe, and hides none
    assert not recipes.is_recipe("bunny-v1.0-3b")
    assert CliRunner().invoke(app, ["recipe", "check", "bunny-v1.0-3b"]).exit_code == 0
    missed = CliRunner().invoke(app, ["train", "bunny-v1.0-3", "--dry-run"])
    assert missed.exit_code == 2
    assert "did you mean `bunny-v1.0-3b`?" in missed.stderr
    assert zoo.load("bunny-v1.0-3b").locate("data") == tmp_path / "data"  # not in the installed package
    with pytest.raises(UserError, match="no recipe of the zoo"):
        zoo.path_of("../tiny-cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_the_packed_loss_is_the_language_models_own(name: str, tmp_path: Path) -> None:
    known = zoo.backbones()
    llm = save_language_model(tmp_path / "llm", name, known.language_models[name], "")
    tower = save_vision_tower(tmp_path / "tower", known.vision_towers[SIGLIP])
    template = Template.named("chatml")
    section = ModelSection(language_model=str(llm), vision_tower=str(tower))
    model, _ = build(section, template.model_dump(), template.jinja(), seed=0)
    ids = torch.randint(10, 380, (24,), generator=torch.Generator().manual_seed(0))  # (T,), three sliding windows
    targets = torch.cat([ids[1:], torch.tensor([IGNORE])])
    bare, _ = load_language_model(str(llm))
    bare.set_attn_implementation("eager")
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(bare(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum")
        model.model.language_model.set_attn_implementation(attention.NAME)
        packed = model.packed_loss(
            ids=ids,
            targets=targets,
            weights=torch.ones(24),
            positions=torch.arange(24),
            features_at=torch.full((24,), -1),
            segments=torch.tensor([[0, 24, 0, 0]]),
            pixel_values=None,
        )
    torch.testing.assert_close(packed, own, rtol=1e-5, atol=1e-4)


def instruction_set(folder: Path) -> dict[str, Any]:
    """Eight rows of LLaVA JSON, one of them about no picture, as a block of a recipe."""
    rows: list[dict[str, Any]] = []
    (folder / "pictures").mkdir()
    for number, colour in enumerate(["red", "green", "blue", "yellow"] * 2):
        Image.new("RGB", (40, 24), colour).save(folder / "pictures" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": f"a {colour} field"}]
        if number > 3:
            turns += [
                {"from": "human", "value": "Is it red?"},
                {"from": "gpt", "value": "yes" if colour == "red" else "no"},
            ]
        rows.append({"id": f"r{number}", "image": f"{number}.png", "conversations": turns})
    rows[6]["conversations"][0]["value"] = "Say something."
    del rows[6]["image"]
    (folder / "rows.json").write_text(json.dumps(rows))
    return {"use": "llava_json", "path": str(folder / "rows.json"), "images": str(folder / "pictures")}


def tiny_run(name: str, folder: Path) -> Recipe:
    """The recipe itself, with only paths, sizes and lengths changed."""
    item = zoo.entry(name)
    template = item.recipe.model.template
    pattern = ROOT / "src" / "bunny" / "text" / "templates" / f"{template}.yaml"
    words = pattern.read_text(encoding="utf-8") if pattern.exists() else ""
    llm = save_language_model(folder / "llm", item.recipe.model.language_model, item.language_model, words)
    tower = save_vision_tower(folder / "tower", item.vision_tower)
    changed = [f"model.language_model={llm}", f"model.vision_tower={tower}"]
    if scales := item.recipe.model.s2_scales:
        changed.append(f"model.s2_scales={[32 * scale // scales[0] for scale in scales]}")
    data = instruction_set(folder)
    pairs = json.loads((folder / "rows.json").read_text())
    captions = [row | {"conversations": row["conversations"][:2]} for row in pairs if "image" in row]
    (folder / "captions.json").write_text(json.dumps(captions))
    for stage in item.stages:
        rows = data | ({"path": str(folder / "captions.json")} if stage == "align" else {})
        changed += [f"{stage}.data=[{json.dumps(rows)}]", f"{stage}.rows_per_step=3", f"{stage}.max_steps=2"]
        changed += [f"{stage}.precision=fp32", f"{stage}.workers=0", f"{stage}.save_every_steps=10"]
    return zoo.load(name, changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_recipe_runs_on_tiny_twins_and_its_model_answers(name: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    stages = flow.stages_of(recipe)
    results = flow.run(recipe, tmp_path / "run")
    assert set(results["seconds"]) == set(stages)
    for stage in set(stages) - {"merge"}:
        folder = tmp_path / "run" / flow.folder_of(stage, recipe)
        steps = [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]
        assert len(steps) == 2
        assert all(np.isfinite(step["loss"]) for step in steps)
    chat = bunny.load(results["model"])
    settings = GenerationSettings(max_new_tokens=4)
    answer = chat.chat([tmp_path / "pictures" / "0.png"], "What is this?", settings)
    assert isinstance(answer, str)
    assert chat.chat([tmp_path / "pictures" / "0.png"], "What is this?", settings) == answer
    assert isinstance(chat.chat([], "Hello?", settings), str)
