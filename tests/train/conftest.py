"""The parts that every training test puts together: a tiny tower and a tiny language model on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import save_language_model, save_tower


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_tower(folder / "tower")
    save_language_model(folder / "llm")
    return folder
