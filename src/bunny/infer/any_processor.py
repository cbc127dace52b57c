"""The processor of any image-text folder, also where torchvision is not installed.

In: a folder. Out: its processor. Many processors have a part for films, which needs torchvision even where only
pictures are shown; without torchvision they are opened without that part. Pictures are then read by the PIL twins that
transformers has for most families; for the others the error names the package to install.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor
from transformers.utils import is_torchvision_available

FILMS = "video_processor"
PLACES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
)
_MISSING = re.compile(r"requires the (\w+) library|Package `([\w-]+)` is required|No module named '(\w+)'")


def load_processor(path: Path) -> Any:
    """The folder's processor; code that comes with it is never run. Raises what transformers raises."""
    kind = _kind(path)
    if kind is None or is_torchvision_available() or FILMS not in kind.get_attributes():
        return AutoProcessor.from_pretrained(path)
    return pictures_only(kind).from_pretrained(path)


def pictures_only(kind: Any) -> Any:
    """The processor class without its part for films. Raises ImportError for one that cannot do without."""
    parts = kind.get_attributes()
    if parts[-1] != FILMS:  # parts are given by their place
        raise ImportError(f"{kind.__name__} requires the Torchvision library")
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: parts[:-1])})


def package_in(error: ImportError) -> str:
    """The package whose absence an error of transformers tells; empty if it tells none."""
    found = _MISSING.search(str(error))
    return next(filter(None, found.groups()), "").lower() if found else ""


def _kind(path: Path) -> Any:
    """transformers' own class of the folder's processor; None if the folder does not name one."""
    for place in PLACES:
        try:
            name = json.loads((path / place).read_text(encoding="utf-8")).get("processor_class")
        except (OSError, ValueError, AttributeError):
            continue  # the loader explains what is wrong with it
        if name:
            return getattr(transformers, name, None)
    return None
