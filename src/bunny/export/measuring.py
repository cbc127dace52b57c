"""What a model in transformers computes from a few talks: run once on a Bunny here, once on its export elsewhere.

This file imports nothing of the package, so that `python -I measuring.py` (see `verifying.py`) measures an exported
folder in a process to which Bunny is unknown. In: a folder with `probes.json` and pictures. Out: `NUMBER.npz` for each
probe: text, ids, pixels (also as bytes), the pictures' embeddings, greedy ids, logits at the last places of the prompt
and of the answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

PLACES = 24  # last positions of a prompt whose logits are kept: all of them would be gigabytes
NEW_TOKENS = 24


def measure(model: Any, processor: Any, probes: Path, out: Path) -> None:
    """Write what `model` computes from every probe in the folder `probes` to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for number, probe in enumerate(json.loads((probes / "probes.json").read_text(encoding="utf-8"))):
        pictures = []
        for name in probe["pictures"]:
            with Image.open(probes / name) as opened:
                pictures.append(opened.copy())
        text = processor.apply_chat_template(probe["talk"], add_generation_prompt=True, tokenize=False)
        inputs = processor(images=pictures or None, text=text, return_tensors="pt")
        with torch.inference_mode():
            length = inputs["input_ids"].shape[1]
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
            again = {**inputs, "input_ids": ids[:, :-1], "attention_mask": torch.ones_like(ids[:, :-1])}
            logits = model(**again).logits[0, max(0, length - PLACES) :].float()
            seen = model.get_image_features(inputs["pixel_values"]).pooler_output if pictures else []
        pixels = inputs["pixel_values"].numpy() if pictures else np.zeros((0, 3, 1, 1), np.float32)
        np.savez(
            out / f"{number}.npz",
            text=np.array(text),
            ids=inputs["input_ids"][0].numpy(),
            pixels=pixels,
            prepared=_prepared(pixels, processor.image_processor),
            pictures=torch.stack(list(seen)).numpy() if pictures else np.zeros(0, np.float32),
            logits=logits.numpy(),
            answer=ids[0, length:].numpy(),
        )


def _prepared(pixels: npt.NDArray[np.float32], processor: Any) -> npt.NDArray[np.uint8]:
    """Pictures as they were before the mean was taken off: (B, side, side, 3) bytes."""
    mean, deviation = (np.reshape(value, (1, 3, 1, 1)) for value in (processor.image_mean, processor.image_std))
    whole = np.rint((pixels * deviation + mean) * 255).clip(0, 255)
    pictures: npt.NDArray[np.uint8] = np.asarray(whole, dtype=np.uint8).transpose(0, 2, 3, 1)
    return pictures


def main(folder: str, probes: str, out: str) -> None:
    """Measure a stock LLaVA folder, in float32. Raises ValueError if it does not load whole."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    unread = [key for key in info["unexpected_keys"] if not key.endswith("lm_head.bias")]  # zeros, for other engines
    if info["missing_keys"] or unread or info["mismatched_keys"]:
        raise ValueError(f"not loaded whole: {info}")
    if type(model).__name__ != "LlavaForConditionalGeneration":
        raise ValueError(f"loaded as {type(model).__name__}")
    measure(model.eval(), AutoProcessor.from_pretrained(folder), Path(probes), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
