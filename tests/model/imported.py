"""What the tests of importing have in common: folders changed, imports compared with their twin, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bunny.core.errors import UserError
from bunny.model.build import load
from bunny.pipeline.convert import import_model
from tests.original_folders import Twin

CLOSE = 2e-5
BEFORE, AFTER = (5, 6, 7), (8, 9, 10, 11)


def difference(twin: Twin, folder: Path) -> float:
    """The largest difference between the twin's logits and those of the imported folder, on words and a picture."""
    model, _ = load(folder)
    assert model.config.image_token_id == twin.image_id
    pixels = torch.randn(1, 3, twin.side, twin.side, generator=torch.Generator().manual_seed(3))
    ids = [*BEFORE, *[twin.image_id] * model.config.image_seq_length, *AFTER]
    with torch.no_grad():
        mine = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits
    mine, wanted = (logits[..., : twin.words] for logits in (mine, twin.logits(BEFORE, pixels, AFTER)))
    assert wanted.std() > 0.1
    return float((mine - wanted).abs().max())


def refusal(folder: Path, out: Path, **options: Any) -> str:
    """The one line with which a folder is refused; nothing may be left behind."""
    before = set(out.parent.iterdir())
    with pytest.raises(UserError) as caught:
        import_model(folder, out, **options)
    assert set(out.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return str(caught.value)


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(path: Path, *names: str) -> None:
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in names}))


def arcade(folder: Path) -> None:
    """As the first StableLM-2: the tokenizer is a class in the folder, which must not run."""
    code = {"AutoTokenizer": ["tokenization_arcade100k.Arcade100kTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Arcade100kTokenizer", "auto_map": code})
    )
    (folder / "tokenization_arcade100k.py").write_text("raise SystemExit('code of the folder was run')\n")
    (folder / "arcade100k.tiktoken").write_text("IQ== 0\n")
