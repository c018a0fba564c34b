"""Train the members in turns: what is cheap first, and the folds of a member only while it is worth them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from plait.console import Bar
from plait.ensemble.dropping import FirstFold, compare
from plait.ensemble.ensemble import Bag
from plait.ensemble.lessons import CrossFitting
from plait.ensemble.out_of_fold import CrossFit, OutOfFoldPrediction
from plait.ensemble.weights import Weighing, fit_mixture
from plait.errors import count
from plait.members.base import Fit, Member
from plait.members.base import members as member_registry
from plait.recipe.registry import Choice
from plait.runs.deadline import Deadline, OutOfTime

# The share of the members' time that is kept for their weights and scores.
WEIGHING = 0.1

# The share of what is left of the time that each member may take at least. Those that gain most come first.
LEAST_PART = 1 / 3

# What a repeat may take, in units of the first one's seconds: some folds take longer than others.
LONGER = 1.1

# The weight from which on a member is trained on other sets of folds too. The variance of its answers counts
# with the square of its weight, and repeats only lower that.
REPEATED = 0.1


@dataclass(eq=False)
class MemberTraining:
    """One member and what it has been fitted on so far.

    `fits` has its fits of each repeat, in the order of the folds. `seconds` are those of all of them. `first`
    compares its first fold with the other members by target, where that was done.
    """

    name: str
    choice: Choice
    view: str
    shared: CrossFitting
    fits: list[list[Fit]] = field(default_factory=list)
    seconds: float = 0.0
    first: dict[str, FirstFold] = field(default_factory=dict)

    @property
    def kind(self) -> type[Member]:
        """The member's class."""
        return member_registry.find(self.choice.name)

    @property
    def is_dropped(self) -> bool:
        """Whether it is out after its first fold, since no target gets better by it."""
        return bool(self.first) and all(fold.drops for fold in self.first.values())

    @property
    def repeats(self) -> int:
        """The number of repeats that it has been fitted on."""
        return len(self.fits)

    @property
    def seconds_of_repeat(self) -> float:
        """The mean seconds of a repeat."""
        return self.seconds / max(self.repeats, 1)

    def lessons(self, repeat: int) -> int:
        """Return the number of lessons of a repeat."""
        folds = len(self.shared.repeats[repeat])
        return folds + int(self._chooses_by_earlier_rows(folds))

    def learn(
        self, repeat: int, folds: Sequence[int], deadline: Deadline, advance: Callable[[], None]
    ) -> None:
        """Fit it on all examples but each of these folds of a repeat."""
        begun = time.monotonic()
        kind, config = member_registry.choose(self.choice)
        lessons = [self.shared.lesson(self.view, repeat, number, deadline) for number in folds]
        if self._chooses_by_earlier_rows(len(self.shared.repeats[repeat])):
            lessons.append(self.shared.earlier_lesson(self.view, repeat, deadline))

        # An earlier lesson only chooses.
        fits = kind.fit(config, lessons, advance)[: len(folds)]
        if repeat == len(self.fits):
            self.fits.append([])
        self.fits[repeat] += fits
        self.seconds += time.monotonic() - begun

    def cross_fit(self) -> CrossFit:
        """Return its fits with the rows that each of them was not trained on."""
        fits = [fit for of_repeat in self.fits for fit in of_repeat]
        held_out = []
        for repeat, of_repeat in enumerate(self.fits):
            held_out.append(self.shared.repeats[repeat][: len(of_repeat)])
        bag = Bag(self.name, self.choice, self.view, [fit.served for fit in fits])
        return CrossFit(bag, [fit.out_of_fold for fit in fits], held_out)

    def predict(self) -> dict[str, OutOfFoldPrediction]:
        """Predict the rows that its fits held out, by target."""
        fitting = self.shared.fitting
        columns = list(fitting.data.preprocessing.inputs)
        (by_target,) = self.cross_fit().predict(self.shared.examples, [columns], fitting.tasks)
        return by_target

    def _chooses_by_earlier_rows(self, folds: int) -> bool:
        """Return whether it has a lesson more, since the only fold must not choose for itself."""
        return folds == 1 and self.kind.chooses


def train_members(
    shared: CrossFitting, members: Mapping[str, Choice], view_of: Mapping[str, str], network: CrossFit
) -> list[MemberTraining]:
    """Train all members on the first repeat, in their order, then those that weigh enough on the others.

    `view_of` names the view of each member. `network` is the run's own network as a member. With a time limit
    the members that come last may be left out. A line on the screen says so.
    """
    trainings = [MemberTraining(name, choice, view_of[name], shared) for name, choice in members.items()]
    lessons = 0
    for repeat in range(len(shared.repeats)):
        lessons += sum(training.lessons(repeat) for training in trainings)
    with shared.fitting.screen.bar("training members", lessons) as bar:
        turns = Turns(shared, network, bar)
        turns.first_repeat(trainings)
        turns.other_repeats()
    return turns.trained


class Turns:
    """Decides which member is trained next. `trained` has those that have been, dropped ones included."""

    def __init__(self, shared: CrossFitting, network: CrossFit, bar: Bar) -> None:
        self.shared = shared
        self.network = network
        self.bar = bar
        self.screen = shared.fitting.screen
        self.deadline = shared.fitting.deadline.part(1 - WEIGHING)
        self.trained: list[MemberTraining] = []
        self.predictions: dict[str, dict[str, OutOfFoldPrediction]] = {}

    def first_repeat(self, trainings: Sequence[MemberTraining]) -> None:
        """Train each member on the first repeat, unless its first fold is far behind, or no time is left."""
        for number, training in enumerate(trainings):
            # What one leaves, the others share. A member that ends well is worth more than several cut short.
            deadline = self.deadline.part(max(1 / (len(trainings) - number), LEAST_PART))
            if number and deadline.is_over:
                left_out = ", ".join(training.name for training in trainings[number:])
                self.screen.say(f"time limit: no time is left for {left_out}")
                return
            try:
                self._begin(training, deadline)
            except OutOfTime:
                self.screen.say(f"time limit: no time is left for {training.name}")
                continue
            self.trained.append(training)

    def other_repeats(self) -> None:
        """Train those that weigh enough on further repeats: first what weighs most for its seconds.

        A stacked model reads all members, so it needs all of them.
        """
        repeats = range(1, len(self.shared.repeats))
        if not repeats or not self.trained:
            return
        if self.deadline.is_over:
            self.screen.say("time limit: no time is left for other sets of folds")
            return
        weights = self._weights()
        worth = []
        for training in self.trained:
            weight = weights.get(training.name, 0.0)
            is_needed = weight >= REPEATED or self.shared.fitting.plan.ensemble.stack
            if is_needed and not training.is_dropped:
                worth.append((weight / max(training.seconds, 1e-3), training))
        worth.sort(key=lambda pair: -pair[0])

        for repeat in repeats:
            for _, training in worth:
                if LONGER * training.seconds_of_repeat < self.deadline.left and training.repeats == repeat:
                    with suppress(OutOfTime):
                        self._learn(training, repeat, range(len(self.shared.repeats[repeat])), self.deadline)
        self._say_repeats([training for _, training in worth])

    def _say_repeats(self, repeated: Sequence[MemberTraining]) -> None:
        """Say which members were fitted on more than one set of folds, and why the others were not."""
        names = [training.name for training in repeated if training.repeats > 1]
        short = [training.name for training in repeated if training.repeats < len(self.shared.repeats)]
        idle = []
        for training in self.trained:
            if training not in repeated and not training.is_dropped:
                idle.append(training.name)
        more = count(len(self.shared.repeats) - 1, "more set")
        if idle:
            once = f"{', '.join(idle)} had too little weight"
            self.screen.say(f"trained on {more} of folds: {', '.join(names) or 'none'}; {once}")
        if short:
            self.screen.say(f"time limit: no time is left for all sets of folds of {', '.join(short)}")

    def _begin(self, training: MemberTraining, deadline: Deadline) -> None:
        """Train a member on the first repeat. Drop it if its first fold is far behind those before it."""
        folds = range(len(self.shared.repeats[0]))

        # Members that choose something by held-out rows learn all folds at once.
        if training.kind.chooses or len(folds) == 1 or not self.trained:
            self._learn(training, 0, folds, deadline)
            return
        self._learn(training, 0, folds[:1], deadline.part(1 / len(folds)))
        training.first = self._compare(training)
        if not training.is_dropped:
            self._learn(training, 0, folds[1:], deadline)
            return
        self.bar.advance(len(folds) - 1)
        for target, fold in training.first.items():
            reason = fold.reason(self.shared.fitting.tasks[target].score)
            self.screen.say(f"{training.name}: dropped after fold 1: {target} {reason}")

    def _learn(self, training: MemberTraining, repeat: int, folds: Sequence[int], deadline: Deadline) -> None:
        def advance() -> None:
            """Count one fit as done."""
            self.bar.advance()
            self.bar.draw(training.name)

        training.learn(repeat, folds, deadline, advance)

    def _compare(self, training: MemberTraining) -> dict[str, FirstFold]:
        """Compare a member's first fold with those that are trained already, by target.

        Nothing is returned where a target cannot be compared: its member stays.
        """
        fold, *other_folds = self.shared.repeats[0]
        costly = training.seconds * len(other_folds) > sum(before.seconds for before in self.trained)
        compared = {}
        for target, prediction in training.predict().items():
            rivals = self._of_target(target)
            if not rivals:
                return {}
            first = compare(self._weighing(target), fold, prediction, rivals, costly)
            if first is None:
                return {}
            compared[target] = first
        return compared

    def _of_target(self, target: str) -> dict[str, OutOfFoldPrediction]:
        """Return the predictions of a target by the members that have learned it, from the first repeat."""
        by_member = {}
        for training in self.trained:
            if training.is_dropped:
                continue
            # Most often nobody asks, so nothing is predicted before.
            if training.name not in self.predictions:
                self.predictions[training.name] = training.predict()
            by_target = self.predictions[training.name]
            if target in by_target and by_target[target].is_valid:
                by_member[training.name] = by_target[target]
        return by_member

    def _weighing(self, target: str) -> Weighing:
        fitting = self.shared.fitting
        labels, labelled = self.shared.examples.target(target)
        options, seed = fitting.plan.ensemble, fitting.plan.seed
        return Weighing(fitting.tasks[target], labels, labelled, options, seed, self.deadline)

    def _weights(self) -> dict[str, float]:
        """Return the largest weight of each member among all targets, by what it has predicted so far."""
        fitting = self.shared.fitting
        columns = list(fitting.data.preprocessing.inputs)
        (of_network,) = self.network.predict(self.shared.examples, [columns], fitting.tasks)
        largest: dict[str, float] = {}
        for target in fitting.tasks:
            candidates = self._of_target(target)
            if target in of_network:
                candidates[self.network.name] = of_network[target]
            weighing = self._weighing(target)
            if not any(weighing.count(prediction) for prediction in candidates.values()):
                continue
            options = weighing.options.model_copy(update={"stack": False})
            mixture = fit_mixture(replace(weighing, options=options), candidates, [])
            for name, weight in mixture.weights.items():
                largest[name] = max(largest.get(name, 0.0), weight)
        return largest
