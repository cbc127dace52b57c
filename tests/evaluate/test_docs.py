"""The page for practitioners runs as it is written."""

import re
from pathlib import Path
from typing import Any

import pytest

from bunny.evaluate import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"


@pytest.mark.demo
def test_examples_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("easy_vqa")
    names: dict[str, Any] = {"folder": tmp_path}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, names)
    assert isinstance(names["outcome"], Outcome)
    assert capsys.readouterr().out.startswith("Interval(score=")
