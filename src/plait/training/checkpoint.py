"""Where a training is, on disk: enough to go on after a kill as if nothing had happened. Safetensors
and JSON only.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from plait.errors import ArtifactError
from plait.runs.files import write_tensors
from plait.runs.folder import CHECKPOINTS


@dataclass
class Progress:
    """How far a training is. `epoch` counts whole epochs, `step` the steps taken in the current one, of
    which `loss_sum` is the sum of losses; `history` has the scores of every epoch. `measured` is what
    gradient blending weighs by.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # tensors

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_rank: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    measured: list[dict[str, list[float]]] = field(default_factory=list)
    states: dict[str, Tensor] = field(default_factory=dict)

    def begin_epoch(self, generator: torch.Generator, seed: int) -> None:
        """Sets both generators for this epoch, or to where they were when the checkpoint was written in
        its middle.
        """
        if self.step:
            generator.set_state(self.states["generator"])
            torch.set_rng_state(self.states["global"])
        else:
            self.loss_sum = 0.0
            generator.manual_seed(seed)
            torch.manual_seed(seed)

    def mark(self, step: int, loss_sum: float, generator: torch.Generator) -> None:
        self.step, self.loss_sum = step, loss_sum
        self.states = {"generator": generator.get_state(), "global": torch.get_rng_state()}

    def end_epoch(self, loss_sum: float) -> None:
        self.step, self.loss_sum, self.states = 0, loss_sum, {}

    def record(self, scores: dict[str, float], rank: tuple[float, ...]) -> bool:
        """Counts an epoch and says whether it is the best so far."""
        self.epoch += 1
        self.history.append(scores)
        if list(rank) > self.best_rank or not rank:
            self.best_epoch, self.best_rank = self.epoch, list(rank)
            return True
        return False

    def over(self, patience: int) -> bool:
        """Whether so many epochs brought nothing better."""
        return patience > 0 and self.epoch - self.best_epoch >= patience


_PROGRESS = TypeAdapter(Progress)


class Checkpoint:
    """One file, replaced as a whole; another for the best weights so far. `minutes` pass between two
    within an epoch, five seconds between two at the ends of epochs. Epochs since the last one are
    trained again, to the same end.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.file, self.best = (folder / name for name in CHECKPOINTS)
        self.seconds = minutes * 60
        self._last = time.monotonic()

    def is_due(self, between_epochs: bool = False) -> bool:
        return time.monotonic() - self._last >= (min(self.seconds, 5.0) if between_epochs else self.seconds)

    def save(
        self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        tensors = {f"model/{name}": t for name, t in model.state_dict().items()}
        tensors |= {f"balancing/{name}": t for name, t in balancing.state_dict().items()}
        tensors |= {f"state/{name}": t for name, t in progress.states.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": t for name, t in state.items() if isinstance(t, Tensor)}
        about = {k: v for k, v in asdict(progress).items() if k != "states"}
        write_tensors(self.file, tensors, {"progress": json.dumps(about)})
        self._last = time.monotonic()

    def restore(self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Puts model, balancing and optimizer where they were. Raises `ArtifactError` when there is
        nothing to go on from.
        """
        if not self.file.is_file():
            return Progress()
        try:
            with safe_open(self.file, "pt") as opened:
                progress = _PROGRESS.validate_json(opened.metadata()["progress"])
            tensors = load_file(self.file)
            model.load_state_dict(_under("model/", tensors))
            balancing.load_state_dict(_under("balancing/", tensors))
        except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"'{self.file}' does not fit this recipe and table, or is damaged: {error}"
            ) from error
        saved = optimizer.state_dict()
        saved["state"] = {}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for name, t in _under("optimizer/", tensors).items():
            index, key = name.split("/")
            like = parameters[int(index)]
            # the fused optimizers walk parameter and moments side by side in memory: channels-last must
            # stay so
            saved["state"].setdefault(int(index), {})[key] = (
                torch.empty_like(like).copy_(t) if t.shape == like.shape else t
            )
        optimizer.load_state_dict(saved)
        progress.states = _under("state/", tensors)
        return progress

    def save_best(self, model: nn.Module) -> None:
        write_tensors(self.best, model.state_dict())

    def restore_best(self, model: nn.Module) -> None:
        model.load_state_dict(load_file(self.best))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
