"""`import bunny` is enough for transformers' Auto classes, in any order of imports, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from bunny.model.config import BunnyConfig
from bunny.model.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from bunny.model.modeling import BunnyForConditionalGeneration, BunnyModel
from bunny.model.processor import BunnyProcessor
from transformers import AttentionInterface
assert CONFIG_MAPPING["bunny"] is BunnyConfig
assert CONFIG_MAPPING["efficientnet_lite"] is EfficientNetLiteConfig
assert AutoModel._model_mapping[BunnyConfig] is BunnyModel
assert AutoModel._model_mapping[EfficientNetLiteConfig] is EfficientNetLiteModel
assert AutoModelForImageTextToText._model_mapping[BunnyConfig] is BunnyForConditionalGeneration
assert PROCESSOR_MAPPING[BunnyConfig] is BunnyProcessor
assert "bunny_packed" in AttentionInterface()
"""
FIRST = [
    "import bunny",
    "import bunny; from transformers import AutoConfig",
    "import bunny; from transformers import AutoProcessor",
    "import bunny; from transformers import AutoModelForImageTextToText",
    "import bunny; from transformers import LlavaConfig",
    "import bunny; from transformers import LlavaForConditionalGeneration",
    "import bunny; from transformers import LlavaProcessor",
    "import bunny; from transformers import pipeline",
    "import bunny; from transformers import CLIPConfig, CLIPModel",
    "import bunny, torch; from transformers import CLIPModel, CLIPProcessor",  # modeling_layers is half imported then
    "import transformers; import bunny",
    "from transformers import AutoModel, AutoProcessor, LlavaForConditionalGeneration; import bunny",
    "from transformers import LlavaConfig; import bunny",
    "import bunny.model",
    "from bunny.model.config import BunnyConfig",
    "from bunny.model.efficientnet_lite import EfficientNetLiteConfig",
    "from bunny.model.modeling import BunnyForConditionalGeneration",
    "from bunny.model.processor import BunnyProcessor",
    "from bunny.model import build",
    "import peft; import bunny",
]
QUICK = {code for code in FIRST if code.endswith(("LlavaForConditionalGeneration", "CLIPProcessor", "BunnyConfig"))}


@pytest.mark.parametrize(
    "first", [pytest.param(code, marks=() if code in QUICK else pytest.mark.slow) for code in FIRST]
)
def test_the_auto_classes_know_bunny_whatever_is_imported_first(first: str) -> None:
    ran = subprocess.run([sys.executable, "-c", f"{first}\n{CHECK}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
