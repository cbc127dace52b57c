"""Stand-ins for the kits' base classes: the plug-ins are tested without the kits."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def module(patch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """A module of that name in `sys.modules`, and its parents."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        parent = ".".join(parts[:end])
        if parent not in sys.modules:
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
    made = types.ModuleType(name)
    vars(made).update(content)
    patch.setitem(sys.modules, name, made)


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


class lmms:  # the kit's own name
    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


class BaseModel:
    def __init__(self) -> None:
        self.dump_image_func = None


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plug-in needs of lmms-eval."""
    module(monkeypatch, "lmms_eval.api.model", lmms=lmms)
    module(monkeypatch, "lmms_eval.models.registry_v2", ModelManifest=ModelManifest)
    monkeypatch.delitem(sys.modules, "bunny.plugins.lmms_eval", raising=False)


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the launcher needs of VLMEvalKit: a checkout, whose `run.py` asks each model one question."""
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    module(monkeypatch, "vlmeval.vlm.base", BaseModel=BaseModel)
    module(monkeypatch, "vlmeval.config", supported_VLM={"other": None})
    sys.modules["vlmeval"].__file__ = str(tmp_path / "kit" / "vlmeval" / "__init__.py")
    monkeypatch.delitem(sys.modules, "bunny.plugins.vlmevalkit", raising=False)
    (tmp_path / "kit").mkdir()
    return tmp_path / "kit"
