"""Checks on a model folder: pixels, features, ids and labels, logits, loss, generation, merging, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from bunny.core.types import IGNORE, IMAGE_MARK, GenerationSettings, ImageRef, Sample, Turn
from bunny.data.sources.llava_json import LlavaJson
from bunny.infer.generate import Generator, Request
from bunny.model.build import load
from bunny.model.language_models import load_tokenizer
from bunny.pipeline.convert import export_model, import_model
from bunny.text.template import Template, Writer
from tests.parity.row import Row, guarded, inside, largest

PIXELS, FEATURES, LOGITS, LOSS, MERGE = 1e-6, 2e-5, 5e-5, 1e-5, 1e-5
IMAGE_TAG = -200
"""The original's id of a picture."""


def model_folder(folder: Path, work: Path) -> Iterator[Row]:
    """All checks of one folder of checkpoints. work: where imported models go."""
    with inside(folder):  # configs name the tower relative to the folder
        main = next(kind for kind in ("model", "lora") if Path(kind).exists())
        golden = Golden(folder, "golden", work / main)
        import_model(Path(main), work / main)
        for check in (preprocessing, tokens, numbers, generation):
            yield from guarded(folder, check(golden))
        if Path("golden_lora_merged.json").exists():
            import_model(Path("lora_merged"), work / "lora_merged")
            merged = Golden(folder, "golden_lora_merged", work / "lora_merged")
            for check in (numbers, generation):
                yield from guarded(folder, check(merged))
        if Path("lora").exists():
            yield from guarded(folder, unmerged(folder, work))
        for kind in ("model", "lora_merged"):
            if Path(kind).exists():
                yield from guarded(folder, there_and_back(folder, kind, work))


class Golden:
    """What the original computed (`name`.json, `name`.npz) beside the imported model in `model`."""

    def __init__(self, folder: Path, name: str, model: Path) -> None:
        self.folder, self.name, self.path = folder, name, model
        self.facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self._loaded: tuple[Any, Any] | None = None

    @property
    def label(self) -> str:
        return self.folder.name

    @property
    def loaded(self) -> tuple[Any, Any]:
        """(model, processor), in float32."""
        if self._loaded is None:
            self._loaded = load(self.path)
        return self._loaded

    def row(self, check: str, difference: float, tolerance: float, compared: int, note: str = "") -> Row:
        prefix = "" if self.name == "golden" else "lora_merged: "
        return Row(self.label, prefix + check, difference, tolerance, compared, note)

    def picture(self, name: str) -> Image.Image:
        return opened(ImageRef(str(self.folder / "images" / name)))

    def pixels(self, name: str, aspect: str = "pad") -> torch.Tensor:
        processor = self.loaded[1]
        before, processor.image_aspect = processor.image_aspect, aspect
        out = processor.pixels([self.picture(name)])
        processor.image_aspect = before
        return out  # type: ignore[no-any-return]


def opened(ref: ImageRef) -> Image.Image:
    """A picture as the original opens it: hidden colours of transparent parts show (this Bunny lays them on white)."""
    with Image.open(ref.path) as picture:
        return picture.convert("RGB")


def preprocessing(golden: Golden) -> Iterator[Row]:
    """Pixels of every stored picture, and what tower and projector make of them."""
    differences = []
    for key, wanted in golden.arrays.items():
        if key.startswith("pixels/"):
            _, name, mode = key.split("/")
            mine = golden.pixels(name, "pad" if mode == "pad" else "square")[0].numpy()
            mine = mine.astype(wanted.dtype)  # S2 pixels are stored in half precision
            differences.append(largest(mine, wanted))
    if differences:
        yield golden.row("pixels", max(differences), PIXELS, len(differences))
    if "features/tower" not in golden.arrays:
        return
    facts = golden.facts["features"]
    model = golden.loaded[0].model
    pixels = torch.cat([golden.pixels(name, _aspect(facts["aspect"])) for name in facts["order"]])
    with torch.inference_mode():
        tower = model.tower_features(pixels)
        tokens = model.multi_modal_projector(tower)
    count = len(facts["order"])
    yield golden.row("tower features", largest(tower, golden.arrays["features/tower"]), FEATURES, count)
    yield golden.row("projector features", largest(tokens, golden.arrays["features/projector"]), FEATURES, count)


def _aspect(word: str) -> str:
    return "pad" if word == "pad" else "square"


def tokens(golden: Golden) -> Iterator[Row]:
    """Token ids and labels of data.json and pretrain.json, where the original handled the sample rightly."""
    model, processor = golden.loaded
    template = Template.model_validate(processor.template)
    limit = int(golden.facts["samples_model_max_length"])

    def writer(kind: Template, tokenizer: Any) -> Writer:
        return Writer(kind, tokenizer, model.config.image_token_id, 1)

    own, plain = writer(template, processor.tokenizer), writer(Template.named("plain"), processor.tokenizer)
    samples = read_samples(golden.folder / "data.json", golden.folder)
    yield _ids_and_labels(golden, "ids and labels", own, samples, golden.facts["samples"], limit)
    captions = read_samples(golden.folder / "pretrain.json", golden.folder)
    yield _ids_and_labels(golden, "ids and labels, plain", plain, captions, golden.facts["plain_samples"], limit)
    if (golden.folder / "tokenizer_no_bos").exists():
        facts = json.loads((golden.folder / "golden_no_bos.json").read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(str(golden.folder / "tokenizer_no_bos"), model.config.text_config)
        later = writer(template, tokenizer)
        yield _ids_and_labels(golden, "ids and labels, no BOS", later, samples, facts["samples"], limit)


def _ids_and_labels(
    golden: Golden, check: str, writer: Writer, samples: dict[str, Sample], facts: Sequence[Any], limit: int
) -> Row:
    wrong, compared, skipped = 0, 0, []
    for fact in facts:
        if reason := wrongly_handled(fact, samples):
            skipped.append(f"{fact['id']} ({reason})")
            continue
        row = writer.row(samples[fact["id"]])
        ids = np.where(row.ids == writer.image_token_id, IMAGE_TAG, row.ids)
        compared += 1
        long = not row.images and len(ids) > limit  # the original's tokenizer cuts a text without a picture
        end = limit if long else None
        wrong += ids[:end].tolist() != fact["input_ids"] or row.labels[:end].tolist() != fact["labels"]
    note = f"the original mishandles {', '.join(skipped)}" if skipped else ""
    return golden.row(check, float(wrong), 0, compared, note)


def wrongly_handled(fact: dict[str, Any], samples: dict[str, Sample]) -> str:
    """Why a sample is no oracle: the original masked it whole, or this Bunny rejects it (an empty answer, say)."""
    if fact.get("warning"):
        return "masked whole"
    return "" if fact["id"] in samples else "rejected here"


def read_samples(path: Path, folder: Path) -> dict[str, Sample]:
    """The conversations of a LLaVA JSON file by id; rows that this Bunny rejects are not among them."""
    source = LlavaJson(path=str(path), images=str(folder / "images"))
    return {sample.id: sample for sample in source.read() if isinstance(sample, Sample)}


def numbers(golden: Golden) -> Iterator[Row]:
    """Logits and loss of the padded batch, and the logits of a whole prompt."""
    model, processor = golden.loaded
    arrays, words = golden.arrays, int(golden.facts["loaded_vocab_size"])
    if "batch/logits_tail" in arrays:
        ids, labels, mask, names = _batch(golden)
        pixels = torch.cat([golden.pixels(name) for name in names])
        with torch.inference_mode():
            out = model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=pixels)
        wanted = arrays["batch/expanded_labels"]
        mismatch = int((labels.numpy() != wanted).sum()) if tuple(labels.shape) == wanted.shape else -1
        yield golden.row("expanded labels", float(abs(mismatch)), 0, wanted.size)
        logits = out.logits[..., :words].numpy()
        start = int(golden.facts["batch"]["logits_from_position"])
        seen = mask.numpy().astype(bool)
        tail, its_tail = logits[:, start:][seen[:, start:]], arrays["batch/logits_tail"][seen[:, start:]]
        yield golden.row("logits of the batch", largest(tail, its_tail), LOGITS, len(tail))
        mean, its_mean = np.abs(logits).mean(-1)[seen], arrays["batch/logits_mean_abs"][seen]
        yield golden.row("mean logits of the batch", largest(mean, its_mean), LOGITS, len(mean))
        yield golden.row("loss", abs(float(out.loss) - golden.facts["batch"]["loss"]), LOSS, 1)
    if "generate/0/logits" in arrays:
        asked = golden.facts["generate"][0]
        generator = Generator(model, processor)
        ids = torch.tensor([generator._ids(_request(golden, asked))])
        with torch.inference_mode():
            logits = model(input_ids=ids, pixel_values=golden.pixels(asked["image"], _aspect_of(asked))).logits
        wanted = arrays["generate/0/logits"]
        yield golden.row("logits of a prompt", largest(logits[0, :, :words], wanted), LOGITS, len(wanted))


def _batch(golden: Golden) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    """(ids, labels, mask, pictures) of the original's batch, right-padded, pictures expanded to their tokens."""
    model, processor = golden.loaded
    samples = read_samples(golden.folder / "data.json", golden.folder)
    chosen = [samples[id] for id in golden.facts["batch"]["ids"]]
    template = Template.model_validate(processor.template)
    writer = Writer(template, processor.tokenizer, model.config.image_token_id, model.config.image_seq_length)
    limit = int(golden.facts["samples_model_max_length"]) if "samples_model_max_length" in golden.facts else None
    rows = [writer.row(sample) for sample in chosen]
    rows = [row.first(limit) if limit else row for row in rows]  # the original cuts its batch
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[number, : len(row.ids)] = torch.from_numpy(row.labels)
        mask[number, : len(row.ids)] = 1
    return ids, labels, mask, [Path(ref.path).name for sample in chosen for ref in sample.images]


def _aspect_of(asked: dict[str, Any]) -> str:
    return _aspect(asked.get("image_aspect_ratio", "pad"))


def _request(golden: Golden, asked: dict[str, Any]) -> Request:
    pictures = (golden.picture(asked["image"]),) if asked["image"] else ()
    return Request((Turn("user", f"{IMAGE_MARK}\n" * len(pictures) + asked["question"]),), pictures)


def generation(golden: Golden) -> Iterator[Row]:
    """Answers: greedy, greedy with repetition penalty, beams, one by one and all together."""
    model, processor = golden.loaded
    generator = Generator(model, processor)
    asked = golden.facts["generate"]
    settings = {
        "greedy_rp1.0": {"max_new_tokens": 24},
        "greedy_rp1.3": {"max_new_tokens": 24, "repetition_penalty": 1.3},
        "beam3": {"max_new_tokens": 12, "num_beams": 3},
    }
    for key, more in settings.items():
        wrong = []
        # what beams find depends on how far they may go, also where all end before
        limit = max(int(more.pop("max_new_tokens")), *(len(one[key]) for one in asked))
        for one in asked:
            processor.image_aspect = _aspect_of(one)
            chosen = GenerationSettings(max_new_tokens=limit, **more)  # type: ignore[arg-type]
            (mine,) = generator.answer_ids([_request(golden, one)], chosen)
            if mine != _until_end(one[key], generator):
                wrong.append(str(one["question"]))
        yield golden.row(f"generated ids, {key}", float(len(wrong)), 0, len(asked), ", ".join(wrong))
    together = golden.facts.get("batch_inference")
    if together and "one_by_one_unpadded" in together:
        yield _together(golden, generator, together)


def _until_end(ids: list[int], generator: Generator) -> list[int]:
    ends = set(generator._stop_ids())
    end = next((place + 1 for place, id in enumerate(ids) if id in ends), len(ids))
    return ids[:end]


def _together(golden: Golden, generator: Generator, facts: dict[str, Any]) -> Row:
    """Our batched answers against the original's one-by-one answers (its own batch reads pads).

    Its script writes `<image>` as a token of the tokenizer, so that the ids of sentencepiece-like tokenizers are not
    those that the models are trained with: they are taken as stored.
    """
    image = [generator.model.config.image_token_id] * generator.model.config.image_seq_length
    names = facts.get("images") or golden.facts["features"]["order"]
    requests, prompts = [], {}
    for name, padded in zip(names, facts["input_ids"], strict=True):
        request = _request(golden, {"image": name, "question": name})
        start = next(place for place, id in enumerate(padded) if id != facts["pad"])
        prompts[request.turns] = [new for id in padded[start:] for new in (image if id == IMAGE_TAG else [id])]
        requests.append(request)
    wanted = facts["one_by_one_unpadded"]
    with patch.object(generator, "_ids", lambda request: prompts[request.turns]):
        mine = generator.answer_ids(requests, GenerationSettings(max_new_tokens=max(map(len, wanted))))
    wrong = sum(one != _until_end(other, generator) for one, other in zip(mine, wanted, strict=True))
    return golden.row("generated ids, batched", float(wrong), 0, len(wanted))


def unmerged(folder: Path, work: Path) -> Iterator[Row]:
    """The imported (merged) LoRA against base and adapters apart, run by peft; and the original's un-merged loss.

    Both run in float64, so that what is seen is the merge and not the rounding of two forward passes.
    """
    from peft import PeftModel

    merged_at = work / "lora"
    if not merged_at.exists():
        import_model(Path("lora"), merged_at)
    golden = Golden(folder, "golden", merged_at)
    model, _ = golden.loaded
    ids, labels, mask, names = _batch(golden)
    pixels = torch.cat([golden.pixels(name) for name in names])
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}
    with torch.inference_mode():
        direct_loss = float(model(**inputs).loss)
    inputs["pixel_values"] = pixels.double()
    with torch.inference_mode():
        merged = model.double()(**inputs)
        apart = PeftModel.from_pretrained(_unadapted(folder, work, model), str(_for_peft(folder, work)))
        other = apart.double().eval()(**inputs)
    words = int(golden.facts["loaded_vocab_size"])
    seen = mask.numpy().astype(bool)
    difference = largest(merged.logits[..., :words].numpy()[seen], other.logits[..., :words].numpy()[seen])
    yield golden.row("LoRA merged and apart, logits", difference, MERGE, int(seen.sum()))
    yield golden.row("LoRA merged and apart, loss", abs(float(merged.loss) - float(other.loss)), MERGE, 1)
    report = folder / "report.json"
    direct = json.loads(report.read_text(encoding="utf-8")).get("lora_direct_loss") if report.exists() else None
    if direct is not None:
        yield golden.row("loss of the un-merged LoRA", abs(direct_loss - direct), LOSS, 1)


def _unadapted(folder: Path, work: Path, merged: Any) -> Any:
    """The base with what the LoRA run trained whole (projector, tower): the merged model less its adapters."""
    from bunny.model.tensors import open_tensors

    model, _ = load(merged.config._name_or_path or work / "lora")
    base = open_tensors(folder / "base_llm")
    with torch.no_grad():
        for name, parameter in model.model.language_model.named_parameters():
            stored = base.read(f"model.{name}").float()
            parameter[: len(stored)].copy_(stored)
    return model


def _for_peft(folder: Path, work: Path) -> Path:
    """The original's adapter under this Bunny's module names, for peft."""
    from safetensors.torch import load_file, save_file

    out = work / "adapter"
    out.mkdir()
    prefix = "base_model.model.model."
    state = load_file(folder / "lora" / "adapter_model.safetensors")
    save_file(
        {name.replace(prefix, f"{prefix}language_model.", 1): t for name, t in state.items()},
        out / "adapter_model.safetensors",
    )
    settings = json.loads((folder / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
    names = "|".join(sorted(settings["target_modules"]))
    settings |= {"target_modules": rf"model\.language_model\..*\.({names})", "task_type": None}
    (out / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return out


def there_and_back(folder: Path, kind: str, work: Path) -> Iterator[Row]:
    """Import, export to the original's layout: the same tensors, tokenizer and fields that its loader reads."""
    from safetensors.torch import load_file

    if not (work / kind).exists():
        import_model(Path(kind), work / kind)
    out = work / f"{kind}-original"
    export_model(work / kind, out, "original")
    mine, its = load_file(out / "model.safetensors"), load_file(folder / kind / "model.safetensors")
    odd = mine.keys() ^ its.keys() | {
        name for name in mine.keys() & its.keys() if not torch.equal(mine[name], its[name])
    }
    yield Row(folder.name, f"{kind}: exported tensors", float(len(odd)), 0, len(its), ", ".join(sorted(odd)[:3]))
    fields, its_fields = (json.loads((place / "config.json").read_text()) for place in (out, folder / kind))
    known = [key for key in its_fields if key not in ("_name_or_path", "transformers_version", "mm_projector_lr")]
    different = [key for key in known if fields.get(key) != its_fields[key]]
    yield Row(folder.name, f"{kind}: exported config", float(len(different)), 0, len(known), ", ".join(different))
    ours, its_own = (json.loads((place / "tokenizer.json").read_text()) for place in (out, folder / kind))
    changed = [key for key in its_own.keys() | ours.keys() if ours.get(key) != its_own.get(key)]
    yield Row(folder.name, f"{kind}: exported tokenizer", float(len(changed)), 0, len(its_own), ", ".join(changed))
