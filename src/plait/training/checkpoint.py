"""Save the state of a training, so that one that was killed goes on and ends with the same weights.

Files are safetensors and JSON only: reading them runs no code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
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

MIN_SECONDS = 5.0  # between two checkpoints at the ends of short epochs, else writing would cost more


@dataclass
class Progress:
    """How far a training is.

    `epoch` counts complete epochs, `step` the steps of the current one, and `loss_sum` adds up their losses.
    `history` has the scores of every epoch. `measured` is what gradient blending weighs by.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # `states` holds tensors

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_rank: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    measured: list[dict[str, list[float]]] = field(default_factory=list)
    states: dict[str, Tensor] = field(default_factory=dict)

    def begin_epoch(self, generator: torch.Generator, seed: int) -> None:
        """Seed both generators for this epoch.

        Restore their states instead if the checkpoint was written in the middle of the epoch.
        """
        if self.step:
            generator.set_state(self.states["generator"])
            torch.set_rng_state(self.states["global"])
        else:
            self.loss_sum = 0.0
            generator.manual_seed(seed)
            torch.manual_seed(seed)

    def mark(self, step: int, loss_sum: float, generator: torch.Generator) -> None:
        """Remember the steps of this epoch, and the states of the generators after them."""
        self.step, self.loss_sum = step, loss_sum
        self.states = {"generator": generator.get_state(), "global": torch.get_rng_state()}

    def end_epoch(self, loss_sum: float) -> None:
        """Forget the steps of the epoch that has ended."""
        self.step, self.loss_sum, self.states = 0, loss_sum, {}

    def record(self, scores: dict[str, float], rank: tuple[float, ...]) -> bool:
        """Count an epoch, and return whether it is the best so far."""
        self.epoch += 1
        self.history.append(scores)

        # Without validation rows there is no rank, and the latest epoch counts as the best.
        is_best = list(rank) > self.best_rank or not rank
        if is_best:
            self.best_epoch, self.best_rank = self.epoch, list(rank)
        return is_best

    def scores(self, best: bool) -> dict[str, float]:
        """Return the scores of the best epoch, or of the last one; none before the first."""
        if not self.history:
            return {}
        return self.history[self.best_epoch - 1 if best else -1]

    def over(self, patience: int) -> bool:
        """Return whether the last `patience` epochs were no better than the best; never if 0."""
        since_best = self.epoch - self.best_epoch
        return patience > 0 and since_best >= patience


_PROGRESS = TypeAdapter(Progress)


class Checkpoint:
    """The files of a training's state and of the best weights so far, each replaced as a whole.

    Within an epoch `minutes` pass between two checkpoints, at the ends of epochs five seconds. What was
    trained since the last one is trained again, to the same weights.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        state, best = CHECKPOINTS
        self.file = folder / state
        self.best = folder / best
        self.seconds = minutes * 60
        self._last = time.monotonic()

    def is_due(self, between_epochs: bool = False) -> bool:
        """Return whether enough time has passed since the last checkpoint."""
        seconds = min(self.seconds, MIN_SECONDS) if between_epochs else self.seconds
        return time.monotonic() - self._last >= seconds

    def save(
        self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        """Write the state of a training, and remember when."""
        tensors = _prefixed("model/", model.state_dict())
        tensors |= _prefixed("balancing/", balancing.state_dict())
        tensors |= _prefixed("state/", progress.states)
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer/{index}/", state)

        fields = asdict(progress)
        del fields["states"]  # tensors, which are written above
        write_tensors(self.file, tensors, {"progress": json.dumps(fields)})
        self._last = time.monotonic()

    def restore(self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Restore model, balancing and optimizer, and return the progress; a new one without a file.

        Raises `ArtifactError` if the file is damaged or was written by another recipe or table.
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

        _restore_optimizer(optimizer, _under("optimizer/", tensors))
        progress.states = _under("state/", tensors)
        return progress

    def save_best(self, model: nn.Module) -> None:
        """Write the weights of the best epoch so far."""
        write_tensors(self.best, model.state_dict())

    def restore_best(self, model: nn.Module) -> None:
        """Load the weights of the best epoch."""
        model.load_state_dict(load_file(self.best))


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the optimizer's state from tensors that are named `<number of the parameter>/<key>`."""
    parameters = []
    for group in optimizer.param_groups:
        parameters += group["params"]

    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Fused optimizers walk a parameter and its moments side by side in memory. Both must have the
            # same memory format, such as channels-last.
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _prefixed(prefix: str, state: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a state, with a prefix before their names."""
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            tensors[prefix + name] = tensor
    return tensors


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    state = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            state[name.removeprefix(prefix)] = tensor
    return state
