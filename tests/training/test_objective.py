"""What training minimises, against the equations that it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

import plait
from plait.errors import Interrupted
from plait.model.fused import TABLE
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Encoded, Tokens
from plait.tasks.base import MAIN
from plait.training import unlabelled
from plait.training.blending import blended
from plait.training.mixing import Mixing
from plait.training.objective import loss_weights, losses, weighed
from plait.training.unlabelled import SURE, consistency, count_unlabelled
from support.models import build
from support.tables import FAST, make_rows, write_csv
from support.training import RecordWeights, StopAtStep


def fused_output(model: MultimodalModel, batch: Batch) -> Tensor:
    """The answer of the fused vector, whatever blocks a row has."""
    encoded = model.encode(batch)
    return model.task("label")(model.fuser("label").fusion(encoded.tokens, batch.present))


def test_the_main_loss_is_that_of_the_fused_answer() -> None:
    model, batch = build()
    expected = F.cross_entropy(fused_output(model, batch), batch.targets["label"])
    torch.testing.assert_close(losses(model, batch)["label"][MAIN], expected)


def test_each_block_adds_its_loss_on_the_rows_that_have_it() -> None:
    model, batch = build()
    vectors, labels = model.fuse(model.encode(batch))["label"].blocks, batch.targets["label"]
    by_name = losses(model, batch)["label"]
    assert set(by_name) == {MAIN, *model.columns}
    for block, vector in vectors.items():
        present = batch.present[block]
        expected = F.cross_entropy(model.task("label")(vector)[present], labels[present])
        torch.testing.assert_close(by_name[block], expected)


def test_unimodal_losses_are_weighed_and_those_of_numbers_fade() -> None:
    model, batch = build()
    by_name = losses(model, batch)["label"]
    for remaining in (1.0, 0.5, 0.0):
        weights = loss_weights(model, 0.7, remaining)
        expected = by_name[MAIN] + 0.7 * (by_name["one"] + by_name["two"])
        torch.testing.assert_close(weighed({"label": by_name}, weights)["label"], expected)
    model.task("label").squared = True  # as that of a number
    assert loss_weights(model, 0.7, 0.5) == {"label": {MAIN: 1.0, "one": 0.7 * 0.5 / 2, "two": 0.7 * 0.5 / 2}}


def test_mixed_rows_are_mixed_inputs_and_mixed_losses() -> None:
    """x = s x_i + (1 - s) x_j, and the loss s L(y_i) + (1 - s) L(y_j) (Zhang et al. 2018, eq. 1)."""
    model, batch = build()
    batch = replace(batch, present={column: torch.ones(8, dtype=torch.bool) for column in model.columns})
    partner = torch.tensor([3, 0, 1, 2, 7, 6, 5, 4])
    tokens = {}
    for column, row in model.encode(batch).tokens.items():
        tokens[column] = Tokens(0.3 * row.x_BLD + 0.7 * row.x_BLD[partner], row.mask_BL)
    output = model.task("label")(model.fuser("label").fusion(tokens, batch.present))
    labels = batch.targets["label"]
    expected = 0.3 * F.cross_entropy(output, labels) + 0.7 * F.cross_entropy(output, labels[partner])
    torch.testing.assert_close(losses(model, batch, mixing=Mixing(0.3, partner))["label"][MAIN], expected)


def test_a_mixed_row_without_a_cell_takes_its_partners() -> None:
    x = torch.arange(4.0).reshape(4, 1, 1)
    present = torch.tensor([True, False, True, False])
    encoded = Encoded({"a": Tokens(x, present[:, None])}, {"a": present}, {"a": present})
    mixed = Mixing(0.25, torch.tensor([1, 2, 0, 3])).mixed(encoded)
    assert mixed.present["a"].tolist() == [True, True, True, False]
    assert mixed.tokens["a"].mask_BL[:, 0].tolist() == mixed.present["a"].tolist()
    assert mixed.tokens["a"].x_BLD.flatten().tolist() == [0.0, 2.0, 0.25 * 2 + 0.75 * 0, 3.0]


def test_blended_weights_are_the_best_of_all_on_the_papers_toy() -> None:
    """Of estimates with gains G_k and independent errors of deviation O_k, the sum that errs least for
    what it gains, E[(sum w e)^2] / (sum w G)^2, has w_k ~ G_k / O_k^2 (Wang et al. 2020, proposition
    1).
    """
    gain, overfit = np.array([0.5, 0.3, 0.05]), np.array([0.4, 0.2, 0.3])
    before = {str(k): [1.0, 1.0] for k in range(3)}
    after = {str(k): [1.0 - g - o, 1.0 - g] for k, (g, o) in enumerate(zip(gain, overfit, strict=True))}
    weights = np.array(list(blended([before, after]).values()))
    assert weights.sum() == pytest.approx(1)

    def ratio(w: np.ndarray) -> float:
        return float(((w * overfit) ** 2).sum() / (w @ gain) ** 2)

    best = minimize(
        ratio, np.ones(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    ).x
    np.testing.assert_allclose(weights, best / best.sum(), atol=1e-4)
    errors = np.random.default_rng(0).normal(size=(20_000, 3)) * overfit
    assert (
        np.mean((errors @ weights) ** 2) / (weights @ gain) ** 2
        < np.mean((errors @ np.full(3, 1 / 3)) ** 2) / gain.mean() ** 2
    )


def test_only_losses_that_fall_weigh_something() -> None:
    first = {MAIN: [1.0, 1.0], "a": [1.0, 1.0]}
    assert blended([first]) == {MAIN: 0.5, "a": 0.5}
    assert blended([first, {MAIN: [0.5, 0.8], "a": [0.2, 1.3]}]) == {MAIN: 1.0, "a": 0.0}
    assert blended([first, {MAIN: [0.5, 1.1], "a": [0.2, 1.3]}]) == {MAIN: 0.5, "a": 0.5}, (
        "where nothing falls, as before"
    )


def test_sure_answers_stand_in_for_labels() -> None:
    """(1 / B) sum of 1[max q >= t] H(argmax q, p) over the rows without a label (Sohn et al. 2020, eq. 4)."""
    model, batch = build()
    model.task("label").head.weight.data *= 40  # so that some answers are sure
    weak = replace(batch, labelled={"label": torch.tensor([1, 1, 0, 0, 0, 0, 0, 0]).bool()})
    strong = replace(weak, present={"one": weak.present["one"], "two": torch.zeros(8, dtype=torch.bool)})
    p, answer = fused_output(model, weak).softmax(1).max(1)
    used = (p >= SURE) & ~weak.labelled["label"]
    assert 0 < used.sum() < 6
    hidden = fused_output(model, strong)
    expected = F.cross_entropy(hidden, answer, reduction="none")[used].sum() / 6
    torch.testing.assert_close(consistency(model, weak, strong, {"label": 1.0}), expected)


def test_unlabelled_rows_have_the_loss_of_the_batch_in_parts() -> None:
    model, batch = build()
    model.task("label").head.weight.data *= 40  # so that some answers are sure
    batch = replace(batch, labelled={"label": torch.tensor([1, 1, 0, 0, 0, 0, 0, 0]).bool()})
    expected = consistency(model, batch, batch, {"label": 1.0})
    counts = count_unlabelled(model, batch)
    parts = []
    for rows in torch.arange(8).split(3):
        micro_batch = batch.take(rows)
        parts.append(consistency(model, micro_batch, micro_batch, {"label": 1.0}, counts))
    assert expected > 0
    torch.testing.assert_close(torch.stack(parts).sum(), expected)


@pytest.mark.parametrize("option", ["training.mixup=0.4", "training.unlabelled=1", "model.balance=blend"])
def test_what_training_minimises_is_a_users_choice(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unlabelled, "SURE", 0.0)  # else no answer may be sure after so few steps
    rows = make_rows(tmp_path, 48)
    for row in rows[::3]:
        row["label"] = ""
    table = write_csv(tmp_path / "t.csv", rows)
    runs = {}
    brief = [*FAST, "training.keep=last"]
    for name, overrides in {"plain": brief, "other": [*brief, option], "again": [*brief, option]}.items():
        plait.fit(table, "label", out=tmp_path / name, overrides=overrides, quiet=True)
        runs[name] = (tmp_path / name / "weights.safetensors").read_bytes()
    assert runs["plain"] != runs["other"]
    assert runs["other"] == runs["again"], "the same from the same seed"


def test_draws_and_measurements_go_on_after_a_stop(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 48)
    for row in rows[::3]:
        row["label"] = ""
    table = write_csv(tmp_path / "t.csv", rows)
    options = [
        *FAST,
        "training.epochs=6",
        "training.batch_size=6",
        "training.mixup=0.4",
        "training.unlabelled=1",
        "model.balance=blend",
    ]
    plait.fit(table, "label", out=tmp_path / "uninterrupted", overrides=options, quiet=True)
    stop = StopAtStep(14)  # in the middle of the third epoch
    with pytest.raises(Interrupted):
        plait.fit(table, "label", out=tmp_path / "resumed", overrides=options, callbacks=[stop], quiet=True)
    plait.fit(table, "label", out=tmp_path / "resumed", overrides=options, resume=True, quiet=True)
    assert stop.steps == 14
    for name in ("weights.safetensors", "log.csv"):
        assert (tmp_path / "uninterrupted" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_without_validation_rows_blended_losses_weigh_the_same(tmp_path: Path) -> None:
    table, record = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 24)), RecordWeights()
    options = [*FAST, "split.valid=0", "model.balance=blend"]
    plait.fit(table, "label", out=tmp_path / "run", overrides=options, callbacks=[record], quiet=True)
    assert record.weights
    expected = dict.fromkeys((MAIN, "photo", "text", TABLE), 0.25)
    assert all(weights["label"] == expected for weights in record.weights)
