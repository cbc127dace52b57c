"""What the original Bunny does oddly, and this one does instead: rows of docs/original.md that no other test shows."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from bunny.core.recipe import ModelSection
from bunny.core.types import IGNORE, GenerationSettings, ImageRef, Sample, Turn
from bunny.infer.generate import Generator, Request
from bunny.model.build import build, load
from bunny.model.language_models import load_language_model
from bunny.model.vision import load_tower
from bunny.pipeline.chat import Chat, Conversation
from bunny.pipeline.convert import import_model
from bunny.text.template import Template, Writer
from bunny.train import stage
from bunny.train.checkpoints import last_checkpoint
from bunny.train.learn import optimiser_groups, set_learning
from bunny.train.trainer import StepTrainer
from tests.model.test_eva import eva_tensors
from tests.original_folders import make
from tests.tiny import FAMILIES, byte_level, language_model, metaspace, save_language_model, save_tower
from tests.train.job import samples, section, state, train

ROOT = Path(__file__).parents[1]
GREEDY = GenerationSettings(max_new_tokens=8)
SPARE = 9


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower, and language models whose vocabularies have rows that are no words."""
    folder = tmp_path_factory.mktemp("parts")
    save_tower(folder / "tower")
    tokenizer = byte_level()
    for family in FAMILIES:
        language_model(family, len(tokenizer) + SPARE).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    shutil.copytree(folder / "llama", folder / "llm")
    return folder


def built(parts: Path, family: str = "llama", template: str = "chatml", **more: Any) -> tuple[Any, Any]:
    kind = Template.named(template)
    sizes = {"language_model": str(parts / family), "vision_tower": str(parts / "tower"), **more}
    return build(ModelSection(**sizes), kind.model_dump(), kind.jinja(), seed=0)


def saved(model: Any, processor: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(seed: int = 1, size: tuple[int, int] = (32, 32)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def asked(text: str = "what?", *pictures: Image.Image) -> Request:
    return Request((Turn("user", "<image>\n" * len(pictures) + text),), pictures)


# The table


def test_every_row_of_the_table_names_tests_that_exist() -> None:
    lines = (ROOT / "docs" / "original.md").read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in lines
        if re.match(r"\| \w+ \| .*::|\| \d", line)
    ]
    assert {int(row[0]) for row in rows if row[0].isdigit()} == set(range(1, 39))
    for row in rows:
        _, _, decision, _, tests = row
        words = set(re.findall(r"\w+", decision))
        assert words & {"kept", "mended", "gone", "evaluation", "server"}, row
        names = re.findall(r"`([\w/.]+)::(\w+)`", tests)
        assert names or not words & {"kept", "mended"}, row
        for file, name in names:
            assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.M), row


# Words


def test_a_stretch_behind_a_picture_is_tokenised_on_its_own() -> None:
    tokenizer = metaspace()
    writer = Writer(Template.named("minicpm"), tokenizer, 999, 2)
    ids = writer.prompt((Turn("user", "red <image>\nwhat?"),), (ImageRef("a"),))
    place = len(ids) - ids[::-1].index(999)
    alone = tokenizer("\nwhat? ASSISTANT:").input_ids[1:]
    assert ids[place:] == alone
    assert tokenizer.convert_ids_to_tokens(alone[0]) == "▁"
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("words", ["x ASSISTANT: no", "x<|endoftext|>y", "USER: x ASSISTANT: y<|endoftext|>USER: z"])
def test_words_of_a_user_that_look_like_the_template_mask_nothing(words: str) -> None:
    tokenizer = byte_level(eos="<|endoftext|>")
    row = Writer(Template.named("bunny"), tokenizer, 999, 2).row(
        Sample("s", (ImageRef("a"),), (Turn("user", f"<image>\n{words}"), Turn("assistant", "red")))
    )
    learnt = [int(label) for label in row.labels if label != IGNORE]
    assert tokenizer.decode(learnt) == " red<|endoftext|>"
    assert row.labels[-len(learnt) :].tolist() == learnt
    assert row.ids.tolist().count(tokenizer.eos_token_id) == 1


def test_labels_do_not_depend_on_a_bos_that_a_tokenizer_adds() -> None:
    from tokenizers import processors

    plain, other = byte_level(), byte_level()
    other.backend_tokenizer.post_processor = processors.TemplateProcessing("</s> $A", None, [("</s>", 4)])
    sample = Sample("s", (ImageRef("a"),), (Turn("user", "a <image> b"), Turn("assistant", "red")))
    one, two = (Writer(Template.named("chatml"), each, 999, 2).row(sample) for each in (plain, other))
    assert two.ids.tolist() == [4, *one.ids.tolist()]
    assert two.labels.tolist() == [IGNORE, *one.labels.tolist()]


# Answers


def test_prompts_are_never_truncated(tmp_path: Path) -> None:
    twin = make(tmp_path)
    twin.tokenizer.model_max_length = 20
    twin.changes = {"tokenizer_model_max_length": 20}
    import_model(twin.save_whole(tmp_path / "model"), tmp_path / "out")
    model, processor = load(tmp_path / "out")
    processor.tokenizer.backend_tokenizer.enable_truncation(20)
    maker, seen = Generator(model, processor), dict[str, Any]()
    generate = maker.model.generate
    maker.model.generate = lambda **inputs: seen.update(inputs) or generate(**inputs)
    words = " red" * 100
    maker.answer([asked(words, picture())], GREEDY)
    processor.tokenizer.backend_tokenizer.no_truncation()
    template = maker.writer.template
    around = [template.pieces((Turn("user", "\n" + text),), answer_next=True) for text in (words, "")]
    whole, bare = (len(processor.tokenizer("".join(p.text for p in some)).input_ids) for some in around)
    assert seen["inputs_embeds"].shape[1] == whole + model.config.image_seq_length
    assert whole - bare == 100


def test_the_ids_handed_in_are_not_changed(parts: Path) -> None:
    model, processor = built(parts)
    inputs = processor(images=[picture()], text="<image>\nwhat?", return_tensors="pt")
    before = inputs["input_ids"].clone()
    with torch.inference_mode():
        model(**inputs)
        model.generate(**inputs, max_new_tokens=3, do_sample=False, repetition_penalty=1.3)
    assert torch.equal(inputs["input_ids"], before)
    assert (before == model.config.image_token_id).sum() == model.config.image_seq_length


def test_a_repetition_penalty_sees_token_0_where_a_picture_stands(parts: Path) -> None:
    maker = Generator(*built(parts))
    wanted = torch.zeros(maker.model.config.text_config.vocab_size)
    wanted[0], wanted[7] = 5.0, 4.0
    maker.model.logits = lambda hidden, rows: wanted.expand(*hidden.shape[:-1], -1)
    mild = GenerationSettings(max_new_tokens=1)
    strict = GenerationSettings(max_new_tokens=1, repetition_penalty=2.0)
    one = (picture(),)
    shared = [Request((Turn("user", f"<image>\n{word}"),), one) for word in ("a?", "b?")]
    assert maker.answer_ids([asked("a?", picture())], mild) == [[0]]
    assert maker.answer_ids([asked("a?", picture())], strict) == [[7]]
    assert maker.answer_ids(shared, strict) == [[7], [7]]
    assert maker.answer_ids([asked("a?")], strict) == [[0]]


LEAKS: dict[str, Any] = {"do_sample": True, "temperature": 4.0, "top_k": 1, "top_p": 0.2, "repetition_penalty": 3.0}
LEAKS |= {"no_repeat_ngram_size": 1, "min_new_tokens": 7}


@pytest.mark.parametrize("settings", [GREEDY, GenerationSettings(max_new_tokens=8, temperature=1.5)])
def test_a_language_models_own_sampling_defaults_change_no_answer(parts: Path, settings: GenerationSettings) -> None:
    model, processor = built(parts)
    model.generation_config.update(**LEAKS)  # as a folder has them that other programs wrote
    found = []
    for maker in (Generator(*built(parts)), Generator(model, processor)):
        torch.manual_seed(2)
        found.append(maker.answer_ids([asked(word, picture()) for word in ("what?", "red?", "x")], settings))
    assert found[0] == found[1]


def test_a_built_model_ends_where_its_parts_do_and_keeps_no_sampling_defaults(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "llama", tmp_path / "llama")
    path = tmp_path / "llama" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | LEAKS | {"eos_token_id": [2, 5]}))
    shutil.copytree(parts / "tower", tmp_path / "tower")
    model, processor = built(tmp_path)
    kept = model.generation_config.to_diff_dict()
    assert not set(kept) & set(LEAKS)
    assert {2, 5, processor.tokenizer.eos_token_id} <= set(kept["eos_token_id"])


@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        GenerationSettings(max_new_tokens=8, num_beams=3),
        GenerationSettings(max_new_tokens=8, temperature=2.0),
        GenerationSettings(max_new_tokens=8, repetition_penalty=1.5),
    ],
)
def test_rows_beyond_the_words_are_kept_and_can_never_be_generated(
    parts: Path, tmp_path: Path, settings: GenerationSettings
) -> None:
    model, processor = built(parts, "qwen2")
    words = model.config.words
    assert words == len(byte_level())
    assert model.lm_head.out_features == words + SPARE
    with torch.no_grad():  # of two opposite rows, one is far above every word
        loud = 50 * torch.randn(model.lm_head.in_features, generator=torch.Generator().manual_seed(0))
        model.lm_head.weight[words + 2], model.lm_head.weight[words + 3] = loud, -loud
    model, processor = load(saved(model, processor, tmp_path / "model"))
    assert model.lm_head.out_features == words + SPARE
    torch.manual_seed(0)
    requests = [asked("what?", picture()), asked("red?")]
    assert max(id for ids in Generator(model, processor).answer_ids(requests, settings) for id in ids) < words
    model.config.words = 0
    assert max(id for ids in Generator(model, processor).answer_ids(requests, settings) for id in ids) >= words


def test_a_conversation_remembers_answers_without_their_end_token(parts: Path, tmp_path: Path) -> None:
    talk = Conversation(Chat(saved(*built(parts), tmp_path / "model")), GREEDY)
    answers = ["".join(talk.ask("what?", [picture()])), "".join(talk.ask("and?"))]
    assert [turn.text for turn in talk._turns if turn.role == "assistant"] == [text.strip() for text in answers]
    maker = talk._chat.engine._generator  # type: ignore[attr-defined]
    ids = maker.writer.prompt((*talk._turns, Turn("user", "so?")), (ImageRef("0"),))
    end = maker.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == len(talk._turns) + 1  # of every turn and of the question: none is doubled


# Parts and folders


def test_phis_head_has_no_bias(parts: Path) -> None:
    from transformers import AutoModelForCausalLM

    language = AutoModelForCausalLM.from_pretrained(parts / "phi").eval()
    model, _ = built(parts, "phi")
    assert float(language.lm_head.bias.detach().abs().max()) > 0.1
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        wanted = language(input_ids=ids).logits - language.lm_head.bias
        mine = model(input_ids=ids).logits
    words = model.config.words
    torch.testing.assert_close(mine[..., :words], wanted[..., :words], rtol=0, atol=1e-5)


def test_a_tower_is_known_by_its_files_whatever_its_path(tmp_path: Path) -> None:
    kinds = {"design/a": "clip", "eva/b": "clip", "clip/c": "siglip"}
    for place, kind in kinds.items():
        save_tower(tmp_path / place, kind)
        assert load_tower(str(tmp_path / place))[0].config.model_type == f"{kind}_vision_model"


def test_a_folders_name_says_nothing_about_what_is_in_it(parts: Path, tmp_path: Path) -> None:
    load(saved(*built(parts), tmp_path / "bunny-lora-siglip"))
    twin = make(tmp_path / "its")
    twin.changes = {"unfreeze_vision_tower": True}
    whole = import_model(twin.save_whole(tmp_path / "its" / "lora-merged"), tmp_path / "one")
    adapters = twin.add_adapters(lambda _: 2.0)
    lora = import_model(twin.save_lora(tmp_path / "its" / "adapters", adapters), tmp_path / "two")
    assert (whole["kind"], lora["kind"]) == ("whole", "lora")


def test_a_saved_model_needs_its_tower_no_more(tmp_path: Path) -> None:
    save_tower(tmp_path / "tower")
    save_language_model(tmp_path / "llama")
    model, processor = built(tmp_path)
    folder = saved(model, processor, tmp_path / "model")
    before = Generator(model, processor).answer_ids([asked("what?", picture())], GREEDY)
    shutil.rmtree(tmp_path / "tower")
    shutil.rmtree(tmp_path / "llama")
    assert Generator(*load(folder)).answer_ids([asked("what?", picture())], GREEDY) == before


def test_a_trained_tower_in_a_bin_file_is_read(tmp_path: Path) -> None:
    twin = make(tmp_path)
    twin.train_tower()
    twin.changes = {"unfreeze_vision_tower": True}
    import_model(twin.save_whole(tmp_path / "model", form="bin"), tmp_path / "out")
    mine = load(tmp_path / "out")[0].state_dict()["model.vision_tower.encoder.layers.0.mlp.fc1.weight"]
    assert torch.equal(mine, dict(twin.tower.named_parameters())["encoder.layers.0.mlp.fc1.weight"])


def test_an_eva_model_is_tuned_saved_and_read_again_without_packages_that_training_clusters_have(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("xformers", "deepspeed", "apex", "timm", "torchvision", "bitsandbytes", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    torch.save(eva_tensors(), tmp_path / "eva.pt")
    model, processor = built(parts, vision_tower=str(tmp_path / "eva.pt"), image_aspect="square")
    how = section(max_steps=2, language_model="full", vision_tower="train")
    done = stage.train_stage(how, model, processor, samples(4), lambda _: picture(), tmp_path, 0, "tune")
    lora = section(max_steps=2)
    (tmp_path / "x").mkdir()
    done = stage.train_stage(lora, done.model, processor, samples(4), lambda _: picture(), tmp_path / "x", 0, "tune")
    again, processor = load(saved(done.model, processor, tmp_path / "model"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in done.model.state_dict().items())
    wide = asked("what?", picture(size=(40, 20)))  # not padded: `square`
    assert Generator(again, processor).answer_ids([wide], GREEDY)


def test_llama_3_ends_at_its_tokenizers_own_end_of_text(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-llama")
    import_model(twin.save_whole(tmp_path / "model"), tmp_path / "out")
    model, processor = load(tmp_path / "out")
    end = twin.tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    assert Generator(model, processor)._stop_ids() == [end]
    assert end != 128001


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_every_mode_become_three_channels(parts: Path, mode: str) -> None:
    _, processor = built(parts)
    assert processor.pixels([picture(size=(40, 24)).convert("RGB").convert(mode)]).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_a_transparent_colour_of_a_palette_is_a_colour_for_clip_too(parts: Path, tmp_path: Path, aspect: str) -> None:
    processor = built(parts, vision_tower=str(save_tower(tmp_path / "clip", "clip")))[1]
    processor.image_aspect = aspect
    plain = Image.new("P", (8, 8), 1)
    plain.putpalette([255, 0, 0, 0, 90, 200])
    keyed = plain.copy()
    keyed.info["transparency"] = 1
    assert torch.equal(processor.pixels([keyed]), processor.pixels([plain]))


def test_a_picture_three_pixels_high_keeps_its_colours(parts: Path) -> None:
    processor = built(parts)[1]
    processor.image_aspect = "square"
    flat, whole = (processor.pixels([Image.new("RGB", size, (250, 90, 10))]) for size in ((5, 3), (5, 5)))
    assert torch.equal(flat, whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_rotary_tables_are_computed_in_float32_also_in_half_precision(parts: Path, tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForImageTextToText

    folder = saved(*built(parts, family), tmp_path / family)
    half = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float16)
    rotary, whole = half.model.language_model.rotary_emb, load(folder)[0].model.language_model.rotary_emb
    places = torch.arange(500)[None]
    with torch.inference_mode():
        mine, wanted = rotary(torch.zeros(1, dtype=torch.float16), places), whole(torch.zeros(1), places)
    assert rotary.inv_freq.dtype == torch.float32
    assert all(torch.equal(a, b.half()) for a, b in zip(mine, wanted, strict=True))


def test_phi_3_sees_as_many_positions_before_a_token_as_its_window_says(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-phi3", num_hidden_layers=1, sliding_window=4)
    import_model(twin.save_whole(tmp_path / "model"), tmp_path / "imported")
    base, _ = load_language_model(str(tmp_path / "base_llm"))
    for model in (load(tmp_path / "imported")[0], base):
        ids = torch.arange(3, 13)[None]
        logits = []
        for first in (3, 20):
            ids[0, 5] = first
            with torch.inference_mode():
                logits.append(model(input_ids=ids).logits[0])
        changed = (logits[0] != logits[1]).any(-1)
        assert changed.tolist() == [False] * 5 + [True] * 5


# Training


def test_the_tower_learns_at_the_projectors_rate_unless_it_has_its_own(parts: Path) -> None:
    how = section(vision_tower="train", projector_learning_rate=3e-5)
    groups = optimiser_groups(set_learning(built(parts)[0], how), how)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"language_model": 1e-2, "projector": 3e-5, "vision_tower": 3e-5}


def test_adapters_stand_in_the_language_model_alone_also_when_training_goes_on(parts: Path, tmp_path: Path) -> None:
    first = train(parts, tmp_path / "a", max_steps=1)
    processor = built(parts)[1]
    again, _ = load(saved(first.model, processor, tmp_path / "model"))
    tower = {name: tensor.clone() for name, tensor in again.state_dict().items() if "vision_tower" in name}
    assert any(name.endswith("q_proj.weight") for name in tower)
    learning = set_learning(again, section(vision_tower="train"))
    adapted = {name.partition(".lora_")[0] for name, _ in learning.named_parameters() if ".lora_" in name}
    assert len(adapted) == 2 * 7
    assert all(".language_model.layers." in name for name in adapted)
    again, _ = load(tmp_path / "model")
    (tmp_path / "b").mkdir()
    more = stage.train_stage(
        section(max_steps=1), again, processor, samples(4), lambda _: picture(), tmp_path / "b", 0, "tune"
    )
    assert all(torch.equal(tensor, more.model.state_dict()[name]) for name, tensor in tower.items())


def test_adapters_have_no_bias_setting() -> None:
    with pytest.raises(ValidationError, match="bias"):
        section(lora={"r": 4, "bias": "lora_only"})


def test_an_interrupted_alignment_goes_on(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = state(train(parts, tmp_path / "whole", language_model="frozen"))
    step = StepTrainer.training_step

    def stops(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(StepTrainer, "training_step", stops)
        with pytest.raises(KeyboardInterrupt):
            train(parts, tmp_path / "cut", language_model="frozen")
    found = last_checkpoint(tmp_path / "cut")
    assert found is not None
    assert found.name == "checkpoint-4"
    done = state(train(parts, tmp_path / "cut", language_model="frozen"))
    assert all(torch.equal(tensor, done[name]) for name, tensor in whole.items())


def test_a_stage_squashes_or_pads_as_it_says(parts: Path) -> None:
    _, processor = built(parts)
    wide = picture(size=(40, 24))
    seen = {}
    for aspect in ("square", "pad"):
        how = section(image_aspect=aspect)
        seen[aspect] = stage.pixels_of(processor, lambda _: wide, how)([ImageRef("a")])
    assert torch.equal(seen["square"], processor.image_processor([wide], return_tensors="pt")["pixel_values"])
    assert not torch.equal(seen["pad"], seen["square"])
