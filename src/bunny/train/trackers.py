"""Where figures are shown besides files: TensorBoard, Weights & Biases, trackio, through transformers' integrations.

In: the names in a stage's `trackers`. Out: `Trackers`, which hands every row of figures to all of them. TensorBoard is
on by default and may be missing; a tracker that was asked for by name and is missing stops the run before it starts.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import StageSection

DEFAULT = StageSection.model_fields["trackers"].default
PROJECT = "bunny"


def check_trackers(section: StageSection) -> None:
    """Raise UserError for a tracker that was asked for and is not installed."""
    for name in section.trackers:
        if not _installed(name) and (name not in DEFAULT or section.trackers != DEFAULT):
            raise UserError(
                f"trackers: the Python package `{name}` is not installed",
                fix=f"pip install 'bunny-vlm[{name}]', or leave {name} out of `trackers`",
            )


class Trackers:
    """The trackers of one run; made on the first rank only.

    run: what the run is called there. A run that goes on appears as the same one.
    """

    def __init__(self, names: Sequence[str], folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        self.names = [name for name in names if _installed(name)]
        for name in {*names} - {*self.names}:
            log.debug("%s is not installed: figures go to files only", name)
        self._callbacks: list[Any] = []

    def begin(self, args: Any, state: Any, control: Any, model: Any) -> None:
        """Open them, at the beginning of training."""
        args = copy.copy(args)
        args.project, args.run_name = PROJECT, self.run
        for name in self.names:
            callback = {"tensorboard": self._tensorboard, "wandb": self._wandb, "trackio": self._trackio}[name](state)
            callback.on_train_begin(args, state, control, model=model)
            self._callbacks.append((name, callback, args))

    def send(self, row: Mapping[str, Any], now: Any) -> None:
        """Hand a row on. now: Trainer's (args, state, control). Names that begin with `eval_` stand apart."""
        figures = {key: value for key, value in row.items() if key != "step" and value is not None}
        _, state, control = now
        for _, callback, args in self._callbacks:
            callback.on_log(args, state, control, logs=dict(figures))

    def close(self) -> None:
        """Finish them, also when training was cut short."""
        for name, callback, _ in self._callbacks:
            if name == "tensorboard":
                callback.tb_writer.close()
            elif name == "wandb":
                callback._wandb.finish()
            else:
                callback._trackio.finish()
        self._callbacks = []

    def _tensorboard(self, state: Any) -> Any:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.global_step + 1)
        return TensorBoardCallback(writer)

    def _wandb(self, state: Any) -> Any:
        import wandb
        from transformers.integrations import WandbCallback

        known = self.folder / "wandb-run"
        id = known.read_text(encoding="utf-8").strip() if known.exists() and state.global_step else None
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        run = wandb.init(project=project, name=self.run, dir=str(self.folder), id=id, resume="allow")
        known.write_text(f"{run.id}\n", encoding="utf-8")
        return WandbCallback()  # it takes the run that is open

    def _trackio(self, state: Any) -> Any:
        from transformers.integrations import TrackioCallback

        return TrackioCallback()


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
