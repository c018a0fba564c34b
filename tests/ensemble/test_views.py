"""What each view of a table adds to the features that members learn from."""

from __future__ import annotations

from pathlib import Path

from plait.data.plan import Plan
from plait.ensemble.views import feature_columns, member_views
from plait.prediction.view import View
from plait.recipe.recipe import load
from plait.recipe.registry import Choice
from plait.recipe.sections import OWN_NETWORK
from plait.table.read import read
from support import tiny_models

ROWS = [{"title": f"thing {i}", "body": f"of {i % 7}", "label": "ab"[i % 2]} for i in range(40)]


def test_members_with_other_options_have_views_of_their_own(tmp_path: Path) -> None:
    model = str(tiny_models.bert(tmp_path / "bert"))
    recipe = load({"columns": {"title": {"modality": "text"}}, "pretrained": "off"})
    table = read(ROWS)
    run_view = View.fit(OWN_NETWORK, Plan.make(table, recipe, ["label"]), table)
    members = {}
    for name, pool in (("mean", "mean"), ("first", "cls"), ("mean too", "mean")):
        encoder = {"name": "pretrained", "model": model, "mode": "frozen", "pool": pool}
        members[name] = Choice.model_validate({"name": "network", "encoders": {"text": encoder}})

    views, view_of = member_views(run_view, members, table)
    assert view_of["mean too"] == view_of["mean"] != view_of["first"]
    for name, pool in (("mean", "mean"), ("first", "cls")):
        plan = views[view_of[name]].plan
        assert plan.columns["title"].encoder.options["pool"] == pool


def test_columns_of_one_encoder_all_add_their_embeddings(tmp_path: Path) -> None:
    encoder = {"name": "pretrained", "model": str(tiny_models.bert(tmp_path / "bert"))}
    recipe = load(
        {"columns": {"title": {"modality": "text", "encoder": encoder}, "body": {"modality": "text"}}}
    )
    table = read(ROWS)
    run_view = View.fit(OWN_NETWORK, Plan.make(table, recipe, ["label"]), table)
    member = Choice.model_validate({"name": "network", "encoders": {"text": encoder}})

    views, view_of = member_views(run_view, {"all": member}, table)
    assert feature_columns(views) == {OWN_NETWORK: ["title"], view_of["all"]: ["body"]}
