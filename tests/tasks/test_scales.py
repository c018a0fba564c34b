"""The two scales of numbers: which one a target gets, and that answers on both are means in its own unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.table.read import read
from plait.tasks.predicting.scale_choice import compare, may_be_log, skewness
from plait.tasks.predicting.scales import Log, Standard, mean_offset

ROWS = 240


def table(seed: int = 0) -> pa.Table:
    """Prices that multiply, sums that are skewed by one input, and symmetric sizes, of the same inputs."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, ROWS))
    shop = rng.choice(["north", "south"], ROWS)
    noise = rng.normal(size=ROWS)
    factor = np.where(shop == "south", 1.5, 1.0)
    return pa.table(
        {
            "x": x,
            "z": z,
            "shop": shop,
            "price": np.round(10 * np.exp(x + z) * factor * np.exp(0.3 * noise), 2),
            "sum": 3 * np.exp(x) + 3 * np.exp(z) + 0.1 * np.abs(noise),
            "profit": np.exp(2 * x) * np.sign(z),
            "size": 20 + x + z + 0.3 * noise,
        }
    )


def planned(target: str, *overrides: str) -> tuple[str, str]:
    """The transform of a target, and why."""
    columns = {name: "ignored" for name in ("price", "sum", "profit", "size") if name != target}
    plan = Plan.make(read(table()), recipe_from(None, columns=columns, overrides=overrides), target)
    return plan.tasks[target].options["transform"], plan.reasons[target]


class TestChoice:
    def test_skewed_prices_that_multiply_get_the_logarithm(self) -> None:
        transform, reason = planned("price")
        assert transform == "log"
        assert "skewed: learns the logarithm of the mean (rmse with a logarithm 0." in reason

    def test_words_in_lists_are_inputs_of_the_choice(self) -> None:
        shops = table()["shop"].to_pylist()
        tagged = (
            table().select(["x", "price"]).append_column("tags", pa.array([["", shop] for shop in shops]))
        )
        plan = Plan.make(read(tagged), recipe_from(None, columns={"tags": "text"}), "price")
        assert plan.tasks["price"].options["transform"] == "log"

    def test_skewed_sums_do_not(self) -> None:
        transform, reason = planned("sum")
        assert transform == "none"
        assert "skewed: learns the number itself" in reason

    def test_symmetric_and_negative_targets_do_not(self) -> None:
        assert planned("size") == ("none", "numbers")
        assert planned("profit") == ("none", "numbers")

    def test_the_recipe_has_the_last_word(self) -> None:
        assert planned("price", "tasks.price.transform=none") == ("none", "numbers")
        assert planned("sum", "tasks.sum.transform=log") == ("log", "numbers")
        assert planned("price", "tasks.price={name: regression, loss: huber}")[0] == "none"

    def test_inputs_without_a_number_leave_the_scales_equal(self) -> None:
        y = np.random.default_rng(0).lognormal(size=90)
        compared = compare(np.zeros((90, 0)), y)
        assert not compared.is_worse
        assert compared.ratio == pytest.approx(1, abs=0.02)

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_a_comparison_survives_the_largest_numbers(self) -> None:
        x = np.random.default_rng(0).normal(size=ROWS)
        largest = np.where(x > 0, 1.7e308, -1.7e308)
        small = compare(np.sign(x)[:, None], np.exp(2 * x))
        assert compare(largest[:, None], np.exp(2 * x)) == small

    @pytest.mark.parametrize("cells", [[["a"], ["b", "c"]], [b"a", b"\xff"]])
    def test_cells_of_a_wrong_type_are_named_as_ever(self, cells: list[Any]) -> None:
        prices = table().select(["x", "price"])
        prices = prices.append_column("tag", pa.array(cells * (ROWS // 2)))
        with pytest.raises(plait.errors.TableError, match="column 'tag' has cells of type"):
            plait.fit(prices, "price", columns={"tag": "category"}, quiet=True)

    def test_a_comparison_survives_missing_and_constant_numbers(self) -> None:
        y = np.where(np.arange(60) % 20 == 0, 5.0, 0.0)
        x = np.stack([np.full(60, np.nan), np.ones(60), np.where(np.arange(60) % 2, np.nan, y)], 1)
        assert np.isfinite(compare(x, y).ratio)

    @pytest.mark.parametrize("numbers", [[0.0], [0.01], [1e300, 2e300], [1.0, 1.0 + 1e-12]])
    def test_numbers_of_any_size_that_are_not_skewed(self, numbers: list[float]) -> None:
        assert not may_be_log(np.array(numbers * 40))

    def test_skewed_numbers_of_any_size_are(self) -> None:
        y = np.random.default_rng(0).exponential(size=90)
        for size in (1e-200, 1.0, 1e200):
            assert may_be_log(size * y)
            assert compare(y[:, None], size * y).ratio == pytest.approx(compare(y[:, None], y).ratio)

    def test_skewness_is_that_of_the_exponential_distribution(self) -> None:
        y = np.random.default_rng(0).exponential(size=200_000)
        assert skewness(y) == pytest.approx(2, abs=0.1)
        assert may_be_log(y)
        assert not may_be_log(y[:20])


SCALES = {"standard": Standard(3.0, 2.0, None), "log": Log(3.0, largest=40.0)}


@pytest.mark.parametrize("name", SCALES)
class TestScale:
    y = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 11.5])

    def target(self, name: str) -> torch.Tensor:
        return torch.from_numpy(SCALES[name].target(self.y).astype(np.float32))

    def test_labels_come_back_in_their_unit(self, name: str) -> None:
        assert SCALES[name].label(self.target(name).numpy()) == pytest.approx(self.y, abs=1e-6)

    def test_the_constant_of_the_least_loss_answers_the_mean(self, name: str) -> None:
        """So answers are unbiased: the exponential of a mean of logarithms would be smaller."""
        scale, target = SCALES[name], self.target(name)
        outputs = torch.linspace(-2, 2, 4001)
        losses = torch.stack([scale.loss(output.expand(len(target)), target).mean() for output in outputs])
        best = outputs[losses.argmin()]
        assert scale.answer(best.numpy()[None])[0] == pytest.approx(self.y.mean(), abs=5e-3)
        assert scale.baseline(target) == pytest.approx(float(best), abs=2e-3)

    def test_a_mixture_answers_the_mean_of_answers(self, name: str) -> None:
        scale = SCALES[name]
        outputs = torch.tensor([[0.0, -1.0], [1.0, 2.0]])
        mixed = scale.mix(outputs, torch.tensor([0.25, 0.75]))
        expected = 0.25 * scale.answer(outputs[0].numpy()) + 0.75 * scale.answer(outputs[1].numpy())
        assert scale.answer(mixed.numpy()) == pytest.approx(expected)

    def test_the_loss_of_a_right_answer_is_zero(self, name: str) -> None:
        scale = SCALES[name]
        output = torch.tensor([-1.0, 0.0, 1.0])
        assert scale.loss(output, scale.as_target(output)).abs().max() < 1e-6


class TestLog:
    scale = Log(10.0, largest=50.0)

    def test_answers_lie_above_zero_and_not_far_beyond_training_rows(self) -> None:
        answers = self.scale.answer(np.array([-1000.0, 0.0, 1000.0], dtype=np.float32))
        assert 0 < answers[0] < 1e-9
        assert answers[1:] == pytest.approx([10, 100])

    def test_no_output_has_an_infinite_loss(self) -> None:
        losses = self.scale.loss(torch.tensor([-1e9, 1e9]), torch.tensor([5.0, 0.0]))
        assert losses.isfinite().all()

    def test_the_offset_makes_the_mean_right(self) -> None:
        rng = np.random.default_rng(0)
        output = torch.from_numpy(rng.normal(0, 0.3, 2000)).float()
        target = (output + 0.4 + 0.1 * torch.randn(2000, generator=torch.Generator().manual_seed(0))).exp()
        assert mean_offset(self.scale, output, target) == pytest.approx(0.405, abs=0.01)

    def test_chance_does_not_move_answers(self) -> None:
        target = torch.tensor([0.1, 0.2, 0.1, 0.3, 4.0])
        assert mean_offset(self.scale, torch.zeros(5), target) == 0
        assert mean_offset(self.scale, torch.zeros(5), torch.zeros(5)) == 0


def fitted(folder: Path, *overrides: str) -> Any:
    skewed = table().drop_columns(["sum", "profit", "size"])
    return plait.fit(skewed, "price", out=folder, overrides=overrides, quiet=True)


def test_a_network_learns_logarithms_and_is_loaded_again(tmp_path: Path) -> None:
    model = fitted(tmp_path / "run", "training.epochs=30")
    rows = table(1).drop_columns(["price"])
    answers = np.array(model.predict(rows)["price"].to_pylist())
    assert (answers > 0).all()
    assert answers.mean() == pytest.approx(np.mean(table(1)["price"].to_pylist()), rel=0.3)

    evaluation = model.record["evaluation"]["validation"]["targets"]["price"]
    assert evaluation["metrics"]["rmse"]["value"] < 0.8 * evaluation["baseline"]["rmse"]
    assert plait.load(tmp_path / "run").predict(rows)["price"].to_pylist() == answers.tolist()


def test_members_of_an_ensemble_share_the_scale(tmp_path: Path) -> None:
    members = "ensemble={folds: 2, members: {linear: linear, trees: {name: trees, rounds: 50}}}"
    model = fitted(tmp_path / "run", "training.epochs=1", members)
    scores = model.record["members"]["price"]
    baseline = model.record["evaluation"]["validation"]["targets"]["price"]["baseline"]["rmse"]
    assert max(scores["linear"]["value"], scores["trees"]["value"]) < baseline
    answers = model.predict(table(1).drop_columns(["price"]))["price"].to_pylist()
    assert min(answers) > 0
