"""Back to the original's layout: what was imported goes out as it came, and comes in again as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bunny.core.errors import UserError
from bunny.pipeline.convert import export_model, import_model
from tests.model.imported import CLOSE, difference, edited
from tests.original_folders import FAMILIES, make, with_text_half


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def odd(one: Path, other: Path) -> set[str]:
    """Names of tensors that are in one folder only, or differ."""
    mine, its = tensors(one), tensors(other)
    return mine.keys() ^ its.keys() | {n for n in mine.keys() & its.keys() if not torch.equal(mine[n], its[n])}


def settings(folder: Path) -> dict[str, Any]:
    """config.json; a rotary share that is repeated outside `rope_parameters` counts once."""
    fields: dict[str, Any] = json.loads((folder / "config.json").read_text())
    text = fields["text_config"]
    if text.get("partial_rotary_factor") == text["rope_parameters"].get("partial_rotary_factor", 1.0):
        text.pop("partial_rotary_factor", None)
    return fields


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_out_as_it_came_and_comes_in_as_it_was(tmp_path: Path, family: str) -> None:
    twin = make(tmp_path, family)
    twin.train_tower()
    folder = twin.save_whole(tmp_path / "model")
    import_model(folder, tmp_path / "one")
    facts = export_model(tmp_path / "one", tmp_path / "back", "original", vision_tower=str(tmp_path / "tower"))
    assert facts["vision_tower_trained"]
    assert odd(folder, tmp_path / "back") == set()
    fields, wanted = (json.loads((place / "config.json").read_text()) for place in (tmp_path / "back", folder))
    assert fields["model_type"] == family
    changed = ("architectures", "mm_vision_tower", "unfreeze_vision_tower", "torch_dtype", "transformers_version")
    assert {key: fields.get(key) for key in wanted if key not in changed} == {
        key: value for key, value in wanted.items() if key not in changed
    }
    import_model(tmp_path / "back", tmp_path / "two")
    assert odd(tmp_path / "one", tmp_path / "two") == set()
    assert difference(twin, tmp_path / "two") < CLOSE
    for name in ("processor_config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    assert settings(tmp_path / "one") == settings(tmp_path / "two")


def test_scaled_positions_go_out_with_the_two_fields_that_the_original_takes(tmp_path: Path) -> None:
    folder = make(tmp_path, "bunny-llama").save_whole(tmp_path / "model")
    scaling = {"type": "linear", "factor": 2.0}
    edited(folder / "config.json", rope_scaling=scaling)
    import_model(folder, tmp_path / "one")
    export_model(tmp_path / "one", tmp_path / "back", "original", vision_tower=str(tmp_path / "tower"))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["rope_scaling"] == scaling


@pytest.mark.parametrize("kind", ["projector", "lora"])
@pytest.mark.parametrize("tower", ["siglip", "clip", "eva"])
def test_what_came_in_parts_goes_out_whole(tmp_path: Path, kind: str, tower: str) -> None:
    twin = make(tmp_path, tower=tower)
    if tower == "clip":
        with_text_half(tmp_path / "tower")
    if kind == "lora":
        folder = twin.save_lora(tmp_path / "in", twin.add_adapters(lambda _: 2.0))
    else:
        folder = twin.save_projector(tmp_path / "in")
    import_model(folder, tmp_path / "one", dtype="float32")
    place = str(tmp_path / twin.tower_name)
    facts = export_model(tmp_path / "one", tmp_path / "back", "original", vision_tower=place)
    assert not facts["vision_tower_trained"]
    names = tensors(tmp_path / "back").keys()
    start = "model.vision_tower.vision_tower." + ("model." if tower == "eva" else "vision_model.")
    seen = {name for name in names if name.startswith("model.vision_tower.")}
    assert seen
    assert all(name.startswith(start) for name in seen)
    import_model(tmp_path / "back", tmp_path / "two")
    assert odd(tmp_path / "one", tmp_path / "two") == set()
    assert difference(twin, tmp_path / "two") < CLOSE


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-llama", scales=(32, 64))
    import_model(twin.save_whole(tmp_path / "model"), tmp_path / "one")
    for name in ("a", "b"):
        export_model(tmp_path / "one", tmp_path / name, "original", vision_tower=str(tmp_path / "tower"))
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_what_cannot_go_out_is_refused(tmp_path: Path) -> None:
    twin = make(tmp_path)
    folder = twin.save_whole(tmp_path / "model")
    import_model(folder, tmp_path / "one")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "file").touch()
    cases: list[tuple[Path, Path, dict[str, Any], str]] = [
        (tmp_path / "one", tmp_path / "file", {}, "something already"),
        (tmp_path / "one", tmp_path / "one" / "out", {}, "inside .*one, which is read"),
        (tmp_path / "nowhere", tmp_path / "out", {}, "no config.json"),
        (tmp_path / "base_llm", tmp_path / "out", {}, "not a Bunny folder .its model type is `phi`"),
        (folder, tmp_path / "out", {}, "config.json: no model can be made of it"),
        (tmp_path / "one", tmp_path / "full", {}, "something already"),
        (tmp_path / "one", tmp_path / "out", {"vision_tower": "/nowhere"}, "`/nowhere` is not here.*--vision-tower"),
        (tmp_path / "one", tmp_path / "out", {"to": "another"}, "no such layout"),
        (tmp_path / "one", tmp_path / "out", {"dtype": "int8"}, "not a kind of number"),
    ]
    for place, out, options, why in cases:
        with pytest.raises(UserError, match=why) as caught:
            export_model(place, out, **{"to": "original", "vision_tower": str(tmp_path / "tower"), **options})
        assert caught.value.fix
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_model(make(tmp_path).save_whole(tmp_path / "model"), tmp_path / "one")
    before = set(tmp_path.iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*-o"):
        export_model(tmp_path / "one", tmp_path / "out", "original", vision_tower=str(tmp_path / "tower"))
    assert set(tmp_path.iterdir()) == before
