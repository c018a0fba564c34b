"""Wrong options of members are refused before the network beside them is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import plait
from plait.errors import RecipeError

ROWS = [{"x": float(i % 7), "label": "ab"[i % 2]} for i in range(20)]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("{name: network, encoders: abc}", "member 'a': members/network: option 'encoders' is 'abc'"),
        ("{name: network, encoders: {txet: bag}}", "member 'a': no component 'txet' in modalities"),
        ("{name: network, encoders: {text: bagg}}", "member 'a': no component 'bagg' in encoders"),
        ("{name: network, learning_rate: 1000}", "option 'learning_rate' is 1000: expected 100 or less"),
        ("{name: trees, leaves: 1000000000}", "option 'leaves' is 1000000000: expected 131,072 or less"),
        ("{name: linear, strengths: [-1]}", "option 'strengths' is [-1]: expected numbers from 0 to 1e+09"),
        ("{name: linear, strengths: [1e10]}", "expected numbers from 0 to 1e+09"),
        ("tres", "no component 'tres' in members: did you mean 'trees'?"),
    ],
)
def test_a_wrong_member_is_named_before_the_network_is_trained(
    member: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        plait.fit(ROWS, "label", out=tmp_path / "run", overrides=[f"ensemble.members={{a: {member}}}"])
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_trees_see_a_row_however_small_their_share(tmp_path: Path) -> None:
    forest = "ensemble.members={a: {name: trees, rounds: 2, subsample: 1e-9, colsample: 1e-9}}"
    overrides = ["training.epochs=1", "ensemble.folds=2", forest]
    model = plait.fit(ROWS, "label", out=tmp_path / "run", overrides=overrides, quiet=True)
    assert "a" in model.record["members"]["label"]
