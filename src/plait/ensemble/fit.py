"""Train an ensemble: fit members fold by fold, and weigh them by their out-of-fold predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from plait.console import Screen
from plait.ensemble.ensemble import Bag, Ensemble, OwnNetwork
from plait.ensemble.lessons import CrossFitting, Fitting, validation_places
from plait.ensemble.member_scores import MemberScore, member_scores
from plait.ensemble.out_of_fold import CrossFit, OutOfFoldEnsemble
from plait.ensemble.training import MemberTraining, train_members
from plait.ensemble.views import member_views
from plait.ensemble.weights import Weighing, cross_fit_mixture
from plait.prediction.view import View
from plait.recipe.registry import Choice
from plait.recipe.sections import OWN_NETWORK
from plait.table.json import JSON


@dataclass
class Trained:
    """An ensemble, its out-of-fold predictions, and what its members score, by target and member."""

    ensemble: Ensemble
    out_of_fold: OutOfFoldEnsemble
    scores: dict[str, dict[str, MemberScore]]

    def record(self) -> JSON:
        """Return the scores as JSON."""
        record: JSON = {}
        for target, scores in self.scores.items():
            by_member: JSON = {}
            for name, score in scores.items():
                by_member[name] = asdict(score)
            record[target] = by_member
        return record

    def show(self, screen: Screen) -> None:
        """Print a table of the members for each target."""
        for target, scores in self.scores.items():
            metric = self.out_of_fold.tasks[target].score
            rows = [_row(name, score) for name, score in scores.items()]
            title = f"{target}: {metric} of each member's out-of-fold predictions"
            screen.table(title, ["member", f"{metric} ", "rows ", "weight ", "gain ", "seconds "], rows)
        if self.scores:
            screen.say("gain: what the score of all members together loses without this one")
        if any(len({score.rows for score in scores.values()}) > 1 for scores in self.scores.values()):
            screen.say("rows: the network answers validation rows only, so its score is not comparable")


def _row(name: str, score: MemberScore) -> list[str]:
    """Return the cells of a member's row in the table."""
    weight = "dropped" if score.note else f"{score.weight:.0%}"
    gain = "-" if score.gain is None else f"{score.gain:+.3f}"
    seconds = f"{score.seconds:.1f}" if score.seconds else "-"
    return [name, f"{score.value:.3f}", f"{score.rows:,}", weight, gain, seconds]


def fit(fitting: Fitting) -> Trained | None:
    """Train the members of the recipe's ensemble beside the network that is trained already.

    Return None when there are none. A fit that is resumed trains the members anew, but not the network.
    """
    members = fitting.plan.ensemble.members
    if not members:
        return None
    names = ", ".join(members)
    if fitting.deadline.is_over:
        fitting.screen.say(f"time limit: no time is left for members ({names})")
        return None
    if fitting.plan.recipe.split.time and not len(fitting.plan.split.valid):
        fitting.screen.say(
            f"without validation rows, a split by time leaves none to weigh members by ({names})"
        )
        return None
    return _fit(fitting, members)


def _fit(fitting: Fitting, members: dict[str, Choice]) -> Trained | None:
    """Cross-fit every member, weigh them for each target, and keep those that have a weight.

    Return None if no member could be trained before the deadline.
    """
    run_view = View(OWN_NETWORK, fitting.plan, fitting.data.preprocessing, fitting.network.settings)
    views, view_of = member_views(run_view, members, fitting.table)
    shared = CrossFitting.prepare(fitting, views)
    members = _of_views(shared, members, view_of)
    network = _cross_fit_of_network(shared)
    trainings = train_members(shared, members, view_of, network)
    if not trainings:
        return None
    cross_fits = [network, *[training.cross_fit() for training in trainings if not training.is_dropped]]

    columns = list(fitting.data.preprocessing.inputs)
    out_of_fold = OutOfFoldEnsemble(cross_fits, shared.examples, fitting.tasks, columns)
    scores = _weigh(out_of_fold, shared, trainings)

    bags = [cross_fit.bag for cross_fit in cross_fits]
    mixtures = {target: mixture.served for target, mixture in out_of_fold.mixtures.items()}
    features = shared.examples.features
    ensemble = Ensemble(fitting.network, shared.views, features, bags, mixtures, columns, fitting.tasks)
    return Trained(ensemble.pruned(), out_of_fold, scores)


def _of_views(shared: CrossFitting, members: dict[str, Choice], view_of: dict[str, str]) -> dict[str, Choice]:
    """Return the members whose view was prepared in time, and say which others there are."""
    in_time = {}
    for name, choice in members.items():
        if not view_of[name] or view_of[name] in shared.views:
            in_time[name] = choice
    left_out = [name for name in members if name not in in_time]
    if left_out:
        shared.fitting.screen.say(f"time limit: no time is left to prepare cells for {', '.join(left_out)}")
    return in_time


def _weigh(
    out_of_fold: OutOfFoldEnsemble, shared: CrossFitting, trainings: list[MemberTraining]
) -> dict[str, dict[str, MemberScore]]:
    """Fit how the members are mixed for each target, and return their scores, all out of fold."""
    plan = shared.fitting.plan
    by_name = {training.name: training for training in trainings}
    scores = {}
    for target, task in shared.fitting.tasks.items():
        labels, labelled = shared.examples.target(target)
        deadline = shared.fitting.deadline
        weighing = Weighing(task, labels, labelled, plan.ensemble, plan.seed, deadline)
        candidates = out_of_fold.of_target(target)
        for name in out_of_fold.invalid(target):
            shared.fitting.screen.say(
                f"{name}: left out of '{target}', since some of its answers are no numbers"
            )
        folds = shared.stacking_folds
        out_of_fold.mixtures[target] = cross_fit_mixture(weighing, candidates, folds)
        of_members = member_scores(out_of_fold, target, weighing, folds, by_name)
        if of_members:
            scores[target] = of_members
    return scores


def _cross_fit_of_network(shared: CrossFitting) -> CrossFit:
    """Return the run's network as a member: it is trained once, so it predicts only the validation rows."""
    member = OwnNetwork(shared.fitting.network)
    bag = Bag(OWN_NETWORK, None, OWN_NETWORK, [member])
    pool = shared.examples.rows.numpy()
    return CrossFit(bag, [member], [[validation_places(shared.fitting, pool)]])
