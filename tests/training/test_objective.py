"""What training minimises, against the equations that it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

import plait
from plait.errors import Interrupted
from plait.model.fused import TABLE
from plait.nn.batch import Tokens
from plait.training import loop, objective
from plait.training.objective import (
    EMPTY,
    FUSED,
    OWN,
    SURE,
    Mixing,
    blended,
    consistency,
    losses,
    settled,
    weighed,
)
from support.models import build
from support.tables import FAST, make_rows, write_csv
from support.training import stop_at_step


def test_the_loss_of_whole_rows_is_all_when_nothing_is_added() -> None:
    model, batch = build()
    encoded = model.encode(batch)
    output = model.task("label")(model.fused_for("label").fusion(encoded, batch.present), encoded)
    expected = F.cross_entropy(output, batch.targets["label"])
    torch.testing.assert_close(losses(model, batch)["label"][FUSED], expected)


def test_each_part_alone_adds_its_loss_of_the_rows_that_have_it() -> None:
    model, batch = build()
    encoded, own = model.encode(batch), []
    for c in model.columns:
        has = batch.present[c]
        found = model.task("label")(model.fused_for("label").alone(c, encoded), encoded)
        own.append(F.cross_entropy(found[has], batch.targets["label"][has]))
    output = model.task("label")(model.fused_for("label").fusion(encoded, batch.present), encoded)
    whole = F.cross_entropy(output, batch.targets["label"])
    some = losses(model, batch)["label"]
    assert all(name.startswith("\0") for name in (FUSED, EMPTY, OWN)), "no column has such a name"
    assert set(some) == {FUSED, *model.columns, EMPTY}
    for left in (1.0, 0.5, 0.0):
        weights = settled(model, 0.7, left)
        torch.testing.assert_close(
            weighed({"label": some}, weights)["label"], whole + 0.7 * (own[0] + own[1] + some[EMPTY])
        )
    model.task("label").squared = True  # as that of a number
    assert settled(model, 0.7, 0.5) == {
        "label": {FUSED: 1.0, **dict.fromkeys((*model.columns, EMPTY), 0.7 * 0.5 / 2)}
    }


def test_what_empty_cells_say_is_learned_by_itself_from_rows_that_are_told_of_one_other_cell_or_none() -> (
    None
):
    model, batch = build()
    part, task, y = model.fused_for("label"), model.task("label"), batch.targets["label"]
    no_one, no_two, nothing = torch.nn.init.normal_(part.empty.weight).detach()
    encoded, lacks = model.encode(batch), {c: ~batch.present[c] for c in model.columns}
    said = lacks["one"][:, None] * no_one + lacks["two"][:, None] * no_two
    empty = lacks["one"] | lacks["two"]
    parts = [F.cross_entropy(task(said + nothing, encoded)[empty], y[empty])]
    for c in model.columns:
        rows = empty & batch.present[c]
        parts.append(F.cross_entropy(task(part.alone(c, encoded) + said, encoded)[rows], y[rows]))
    found = losses(model, batch)["label"][EMPTY]
    torch.testing.assert_close(found, torch.stack(parts).mean())
    found.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())} == {
        "fused.of_one,two.empty.weight"
    }
    whole = replace(batch, present={c: torch.ones(8, dtype=torch.bool) for c in model.columns})
    assert set(losses(model, whole)["label"]) == {FUSED, *model.columns}, "nothing is empty"
    hidden = replace(whole, present=batch.present, given=whole.present)
    assert EMPTY not in losses(model, hidden)["label"], "what training hides is not empty"


def test_half_of_the_empty_cells_are_told_in_training_and_all_of_them_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = build()
    part, told = model.fused_for("label"), []
    said = part.said_by_empty
    monkeypatch.setattr(
        part,
        "said_by_empty",
        lambda empty_BP, nothing_B: told.append(int(empty_BP.sum())) or said(empty_BP, nothing_B),
    )
    empty = sum(int((~p).sum()) for p in batch.present.values())
    losses(model, batch)
    assert set(told) == {empty}
    told.clear()
    torch.manual_seed(0)
    for _ in range(200):
        losses(model.train(), batch)
    assert abs(sum(told) / len(told) / empty - 0.5) < 0.05


def test_mixed_rows_are_mixed_inputs_and_mixed_losses() -> None:
    """x = s x_i + (1 - s) x_j, and the loss s L(y_i) + (1 - s) L(y_j) (Zhang et al. 2018, eq. 1)."""
    model, batch = build()
    batch = replace(batch, present={c: torch.ones(8, dtype=torch.bool) for c in model.columns})
    partner = torch.tensor([3, 0, 1, 2, 7, 6, 5, 4])
    encoded = model.encode(batch)
    by_hand = {c: Tokens(0.3 * t.x_BLD + 0.7 * t.x_BLD[partner], t.mask_BL) for c, t in encoded.items()}
    output = model.task("label")(model.fused_for("label").fusion(by_hand, batch.present), by_hand)
    y = batch.targets["label"]
    expected = 0.3 * F.cross_entropy(output, y) + 0.7 * F.cross_entropy(output, y[partner])
    torch.testing.assert_close(losses(model, batch, mixing=Mixing(0.3, partner))["label"][FUSED], expected)


def test_a_row_that_lacks_a_column_takes_its_partners() -> None:
    x = torch.arange(4.0).reshape(4, 1, 1)
    present = torch.tensor([True, False, True, False])
    mixed, there = Mixing(0.25, torch.tensor([1, 2, 0, 3])).tokens(
        {"a": Tokens(x, present[:, None])}, {"a": present}
    )
    assert there["a"].tolist() == [True, True, True, False]
    assert mixed["a"].mask_BL[:, 0].tolist() == there["a"].tolist()
    assert mixed["a"].x_BLD.flatten().tolist() == [0.0, 2.0, 0.25 * 2 + 0.75 * 0, 3.0]


def test_blended_weights_are_the_best_of_all_on_the_papers_toy() -> None:
    """Of estimates with gains G_k and independent errors of deviation O_k, the sum that errs least for
    what it gains, E[(sum w e)^2] / (sum w G)^2, has w_k ~ G_k / O_k^2 (Wang et al. 2020, proposition
    1).
    """
    gain, overfit = np.array([0.5, 0.3, 0.05]), np.array([0.4, 0.2, 0.3])
    before = {str(k): [1.0, 1.0] for k in range(3)}
    after = {str(k): [1.0 - g - o, 1.0 - g] for k, (g, o) in enumerate(zip(gain, overfit, strict=True))}
    found = np.array(list(blended([before, after]).values()))
    assert found.sum() == pytest.approx(1)

    def ratio(w: np.ndarray) -> float:
        return float(((w * overfit) ** 2).sum() / (w @ gain) ** 2)

    best = minimize(
        ratio, np.ones(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    ).x
    np.testing.assert_allclose(found, best / best.sum(), atol=1e-4)
    errors = np.random.default_rng(0).normal(size=(20_000, 3)) * overfit
    assert (
        np.mean((errors @ found) ** 2) / (found @ gain) ** 2
        < np.mean((errors @ np.full(3, 1 / 3)) ** 2) / gain.mean() ** 2
    )


def test_a_loss_that_does_not_fall_weighs_nothing_and_before_the_second_measure_all_weigh_the_same() -> None:
    first = {FUSED: [1.0, 1.0], "a": [1.0, 1.0]}
    assert blended([first]) == {FUSED: 0.5, "a": 0.5}
    assert blended([first, {FUSED: [0.5, 0.8], "a": [0.2, 1.3]}]) == {FUSED: 1.0, "a": 0.0}
    assert blended([first, {FUSED: [0.5, 1.1], "a": [0.2, 1.3]}]) == {FUSED: 0.5, "a": 0.5}, (
        "where nothing falls, as before"
    )


def test_sure_answers_stand_in_for_labels() -> None:
    """(1 / B) sum of 1[max q >= t] H(argmax q, p) over the rows without a label (Sohn et al. 2020, eq. 4)."""
    model, batch = build()
    model.task("label").head.weight.data *= 40  # so that some answers are sure
    weak = replace(batch, labelled={"label": torch.tensor([1, 1, 0, 0, 0, 0, 0, 0]).bool()})
    strong = replace(weak, present={"one": weak.present["one"], "two": torch.zeros(8, dtype=torch.bool)})
    encoded = model.encode(weak)
    p, answer = (
        model.task("label")(model.fused_for("label").fusion(encoded, weak.present), encoded).softmax(1).max(1)
    )
    used = (p >= SURE) & ~weak.labelled["label"]
    assert 0 < used.sum() < 6
    encoded = model.encode(strong)
    hidden = model.task("label")(model.fused_for("label").fusion(encoded, strong.present), encoded)
    expected = F.cross_entropy(hidden, answer, reduction="none")[used].sum() / 6
    torch.testing.assert_close(consistency(model, weak, strong, {"label": 1.0}), expected)


@pytest.mark.parametrize("option", ["training.mixup=0.4", "training.unlabelled=1", "model.balance=blend"])
def test_what_training_minimises_is_a_users_choice(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objective, "SURE", 0.0)  # else no answer may be sure after so few steps
    rows = make_rows(tmp_path, 48)
    for row in rows[::3]:
        row["label"] = ""
    table = write_csv(tmp_path / "t.csv", rows)
    runs = {}
    asked = [*FAST, "training.keep=last"]
    for name, overrides in {"plain": asked, "other": [*asked, option], "again": [*asked, option]}.items():
        plait.fit(table, "label", out=tmp_path / name, overrides=overrides, quiet=True)
        runs[name] = (tmp_path / name / "weights.safetensors").read_bytes()
    assert runs["plain"] != runs["other"]
    assert runs["other"] == runs["again"], "the same from the same seed"


def test_an_input_that_is_better_alone_is_said() -> None:
    from plait.evaluation.scores import imbalance

    found = {
        "score": "accuracy",
        "metrics": {"accuracy": {"value": 0.7}},
        "subsets": [(("photo",), {"value": 0.5}), (("text",), {"value": 0.75})],
    }
    said = imbalance("label", found, True)
    assert said
    assert "'text' alone" in said
    assert imbalance("label", found, False) == said.replace("'text' alone", "'photo' alone").replace(
        "0.750", "0.500"
    )
    found["metrics"] = {"accuracy": {"value": 0.8}}
    assert imbalance("label", found, True) is None


def test_what_is_drawn_and_measured_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    plait.fit(table, "label", out=tmp_path / "whole", overrides=options, quiet=True)
    count = stop_at_step(monkeypatch, 14)  # in the middle of the third epoch
    with pytest.raises(Interrupted):
        plait.fit(table, "label", out=tmp_path / "parts", overrides=options, quiet=True)
    monkeypatch.undo()
    plait.fit(table, "label", out=tmp_path / "parts", overrides=options, resume=True, quiet=True)
    assert len(count) == 14
    for name in ("weights.safetensors", "log.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_without_rows_to_measure_by_all_losses_weigh_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, seen = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 24)), []
    step = loop._step
    monkeypatch.setattr(
        loop, "_step", lambda run, *others: seen.append(run.weights["label"]) or step(run, *others)
    )
    plait.fit(
        table,
        "label",
        out=tmp_path / "run",
        overrides=[*FAST, "split.valid=0", "model.balance=blend"],
        quiet=True,
    )
    assert seen
    assert all(weights == dict.fromkeys((FUSED, "photo", "text", TABLE), 0.25) for weights in seen)
