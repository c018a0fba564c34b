"""Save the state of a training, so that one that was killed goes on and ends with the same weights.

Files are safetensors and JSON only: reading them runs no code. What is read is checked, down to the last
tensor: a stranger may have written it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from torch import Tensor, nn
from xxhash import xxh3_128

from plait.data.plan import Plan
from plait.errors import ArtifactError
from plait.nn.randomness import seed_all
from plait.runs import files
from plait.runs.folder import CHECKPOINT

MIN_SECONDS = 5.0  # between two checkpoints at the ends of short epochs, else writing would cost more
WORST = -sys.float_info.max  # the rank of a score that is not a number

Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass
class Progress:
    """How far a training is.

    `epoch` counts complete epochs, `step` the steps of the current one, and `loss_sum` adds up their losses.
    `history` has the scores of every epoch. `measured` is what gradient blending weighs by. `micro_batch` is
    how many rows fit into memory at once, as far as this is known. `states` are those of the generators of
    random numbers after the last step.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, strict=True, extra="forbid")

    epoch: Count = 0
    step: Count = 0
    loss_sum: float = 0.0
    best_epoch: Count = 0
    best_rank: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    measured: list[dict[str, list[float]]] = field(default_factory=list)
    micro_batch: Count = 0
    states: dict[str, Tensor] = field(default_factory=dict)

    def begin_epoch(self, generator: torch.Generator, seed: int) -> None:
        """Seed all generators for this epoch.

        Restore their states instead if the checkpoint was written in the middle of the epoch.
        """
        if self.step:
            _restore_generators(generator, self.states)
        else:
            self.loss_sum = 0.0
            generator.manual_seed(seed)
            seed_all(seed)

    def mark(self, step: int, loss_sum: float, generator: torch.Generator) -> None:
        """Remember the steps of this epoch, and the states of the generators after them."""
        self.step, self.loss_sum = step, loss_sum
        self.states = _generator_states(generator)

    def end_epoch(self, loss_sum: float) -> None:
        """Forget the steps of the epoch that has ended."""
        self.step, self.loss_sum, self.states = 0, loss_sum, {}

    def record(self, scores: dict[str, float], rank: tuple[float, ...]) -> bool:
        """Count an epoch, and return whether it is the best so far."""
        self.epoch += 1
        self.history.append(scores)

        # Nothing is larger than NaN: as a rank it would keep the first epoch for good.
        ranks = [score if math.isfinite(score) else WORST for score in rank]

        # Without validation rows there is no rank, and the latest epoch counts as the best.
        is_best = ranks > self.best_rank or not ranks
        if is_best:
            self.best_epoch, self.best_rank = self.epoch, ranks
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

    def check(self, epochs: int, steps: int) -> None:
        """Raise `ValueError` unless this can be the progress of so many epochs of so many steps."""
        if self.epoch > epochs or self.step >= max(steps, 1) or (self.epoch == epochs and self.step):
            raise ValueError(f"epoch {self.epoch}, step {self.step} of {epochs} epochs of {steps} steps")
        if self.best_epoch > self.epoch or (self.epoch and not self.best_epoch):
            raise ValueError(f"epoch {self.best_epoch} of {self.epoch} is said to be the best")
        if not all(map(math.isfinite, (self.loss_sum, *self.best_rank))):
            raise ValueError("its losses or ranks are not finite")
        self._check_history()

    def _check_history(self) -> None:
        """Raise `ValueError` unless every complete epoch has scores, of the same names."""
        if len(self.history) != self.epoch:
            raise ValueError(f"scores of {len(self.history)} epochs, expected {self.epoch}")
        for scores in self.history:
            if scores.keys() != self.history[0].keys():
                raise ValueError("its epochs have different scores")


_PROGRESS = TypeAdapter(Progress)


class Checkpoint:
    """The file of a training's state and of the best weights so far, replaced as a whole.

    Within an epoch `minutes` pass between two checkpoints, at the ends of epochs five seconds. What was
    trained since the last one is trained again, to the same weights. The best weights are kept in memory
    until then, so that both are always of the same time.
    """

    def __init__(self, folder: Path, minutes: float, plan: Plan) -> None:
        self.file = folder / CHECKPOINT
        self.seconds = minutes * 60
        self._plan = _digest(plan)
        self._last = time.monotonic()
        self._best: dict[str, Tensor] = {}

    def is_due(self, between_epochs: bool = False) -> bool:
        """Return whether enough time has passed since the last checkpoint."""
        seconds = min(self.seconds, MIN_SECONDS) if between_epochs else self.seconds
        return time.monotonic() - self._last >= seconds

    def save(
        self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        """Write the state of a training, and remember when."""
        tensors = files.prefixed("model/", model.state_dict())
        tensors |= files.prefixed("best/", self._best)
        tensors |= files.prefixed("balancing/", balancing.state_dict())
        tensors |= files.prefixed("state/", progress.states)
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= files.prefixed(f"optimizer/{index}/", state)

        fields = asdict(progress)
        del fields["states"]  # tensors, which are written above
        metadata = {
            "plan": self._plan,
            "epoch": str(progress.epoch),
            "step": str(progress.step),
            "progress": json.dumps(fields),
        }
        files.write_tensors(self.file, tensors, metadata)
        self._last = time.monotonic()

    def restore(self, model: nn.Module, balancing: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Restore model, balancing and optimizer, and return the progress; a new one without a file.

        Raises `ArtifactError` if the file is damaged or was written by another recipe or table.
        """
        if not self.file.exists():
            return Progress()

        tensors, metadata = files.read_tensors(self.file)
        if metadata.get("plan") != self._plan:
            raise ArtifactError(
                f"'{self.file}' was written by the training of another recipe or table; train again into "
                f"another folder"
            )
        progress = files.load_part(
            f"'{self.file}': progress", lambda: _PROGRESS.validate_json(metadata["progress"])
        )
        progress.states = files.under_prefix("state/", tensors)
        files.load_part(f"'{self.file}': states", lambda: _check_states(progress))

        _load(self.file, model, files.under_prefix("model/", tensors))
        _load(self.file, balancing, files.under_prefix("balancing/", tensors))
        files.load_part(
            f"'{self.file}': optimizer",
            lambda: _restore_optimizer(optimizer, files.under_prefix("optimizer/", tensors), progress),
        )
        self._best = files.under_prefix("best/", tensors)
        if self._best:
            _check(self.file, self._best, model)
        return progress

    def keep_best(self, model: nn.Module) -> None:
        """Keep the weights of the best epoch so far."""
        self._best = {}
        for name, tensor in model.state_dict().items():
            self._best[name] = tensor.detach().to("cpu", copy=True)

    def restore_best(self, model: nn.Module) -> None:
        """Load the weights of the best epoch. Raises `ArtifactError` if the checkpoint lacks them."""
        if not self._best:
            raise ArtifactError(f"'{self.file}' lacks the weights of the best epoch; train again")
        model.load_state_dict(self._best)


def _digest(plan: Plan) -> str:
    """Return a hash of what decides how a network is trained. Members come after it."""
    fields = plan.to_dict()
    for name in ("ensemble", "reasons"):
        fields.pop(name)
    return str(xxh3_128(json.dumps(fields, sort_keys=True).encode()).hexdigest())


def _load(file: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load tensors into a module. Raises `ArtifactError` if they are not those of the module."""
    _check(file, tensors, module)
    module.load_state_dict(tensors)


def _check(file: Path, tensors: dict[str, Tensor], module: nn.Module) -> None:
    """Raise `ArtifactError` unless tensors are those of a module, and finite."""
    files.check_shapes(file, tensors, module.state_dict())
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                f"'{file}': '{name}' holds numbers that are not finite: the training had diverged; train "
                f"again into another folder, with a smaller learning rate"
            )


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], progress: Progress
) -> None:
    """Load the optimizer's state from tensors that are named `<number of the parameter>/<key>`.

    Raises `ValueError` for tensors that cannot be those of the optimizer.
    """
    parameters: list[nn.Parameter] = []
    for group in optimizer.param_groups:
        parameters += group["params"]
    if not tensors and parameters and (progress.epoch or progress.step):
        raise ValueError("its tensors are missing")

    state = _optimizer_state(tensors, parameters)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _optimizer_state(
    tensors: Mapping[str, Tensor], parameters: list[nn.Parameter]
) -> dict[int, dict[str, Tensor]]:
    """Return the state of each parameter by its number. Raises what `_restore_optimizer` raises."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        if not index.isdecimal() or int(index) >= len(parameters) or not key:
            raise ValueError(f"it has no parameter for '{name}'")
        state.setdefault(int(index), {})[key] = _of_parameter(parameters[int(index)], name, tensor)

    # `load_state_dict` would take a parameter that lacks a moment, and the next step would fail.
    keys = {frozenset(of_parameter) for of_parameter in state.values()}
    if len(keys) > 1:
        raise ValueError("some of its parameters lack tensors that others have")
    return state


def _of_parameter(parameter: nn.Parameter, name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of the optimizer's state as the parameter needs it.

    Raises `ValueError` unless it is a finite number, or finite numbers of the parameter's shape.
    """
    if tensor.shape not in (parameter.shape, torch.Size([])) or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"'{name}' has the shape {tuple(tensor.shape)}, or is not finite")
    if tensor.shape != parameter.shape:
        return tensor

    # Fused optimizers walk a parameter and its moments side by side in memory. Both must have the same memory
    # format, such as channels-last.
    return torch.empty_like(parameter).copy_(tensor)


def _generator_states(generator: torch.Generator) -> dict[str, Tensor]:
    """Return the states of a generator, and of torch's own on the processor and on each GPU."""
    states = {"generator": generator.get_state(), "global": torch.get_rng_state()}
    if torch.cuda.is_available():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"gpu{number}"] = state
    return states


def _restore_generators(generator: torch.Generator, states: Mapping[str, Tensor]) -> None:
    """Invert `_generator_states`. GPUs that this machine lacks are left out."""
    generator.set_state(states["generator"])
    torch.set_rng_state(states["global"])
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(gpus):
        if f"gpu{number}" in states:
            torch.cuda.set_rng_state(states[f"gpu{number}"], number)


def _check_states(progress: Progress) -> None:
    """Raise `ValueError` unless the generators can take these states."""
    if not progress.step:
        if progress.states:
            raise ValueError("there are some, but no step was taken")
        return
    generator, state_before = torch.Generator(), torch.get_rng_state()
    set_state: dict[str, Callable[[Tensor], object]] = {
        "generator": generator.set_state,
        "global": torch.set_rng_state,
    }
    try:
        for name, take in set_state.items():
            take(progress.states[name])
    finally:
        torch.set_rng_state(state_before)
