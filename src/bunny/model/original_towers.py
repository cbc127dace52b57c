"""Published vision towers of the original by their exact hub names: configuration and preprocessing without a folder.

In: a name. Out: (configuration, image processor), as transformers reads them from the hub's own files; None for a name
that is not in `original_towers.yaml`. It holds no weights: it serves checkpoints that hold the tower's.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, AutoImageProcessor

TABLE = Path(__file__).with_suffix(".yaml")


def published_tower(name: str) -> tuple[Any, Any] | None:
    """(configuration of the whole tower, image processor) of a published tower.

    >>> config, _ = published_tower("google/siglip-so400m-patch14-384")
    >>> config.num_hidden_layers, (config.image_size // config.patch_size) ** 2
    (27, 729)
    """
    about = yaml.safe_load(TABLE.read_text(encoding="utf-8")).get(name)
    if about is None:
        return None
    fields = dict(about["config"])
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    with TemporaryDirectory() as folder:  # which class serves is transformers' choice; it reads folders only
        Path(folder, "preprocessor_config.json").write_text(json.dumps(about["image_processor"]), encoding="utf-8")
        return config, AutoImageProcessor.from_pretrained(folder)
