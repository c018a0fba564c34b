"""Where pretrained weights lie, and whether they are here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from plait.pretrained import files
from support import tiny_models


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with one model, `someone/tiny`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = tmp_path / "hub" / "models--someone--tiny"
    tiny_models.vit(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    return cached


def test_a_folder_is_present_if_it_holds_a_model(tmp_path: Path) -> None:
    assert files.present(str(tiny_models.vit(tmp_path / "vit")))
    assert not files.present(str(tmp_path))
    assert not files.present(str(tmp_path / "vit" / "config.json"))


def test_a_model_in_the_hubs_cache_is_present(hub: Path) -> None:
    assert files.present("someone/tiny")
    assert not files.present("someone/other")
    assert not files.present("no model at all")
    for weights in hub.rglob("*.safetensors"):
        weights.unlink()
    assert not files.present("someone/tiny"), "its weights are gone"


def test_packages_without_weights_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not any(files.present(name) for name in files.PACKAGED)


def test_models_of_transformers_need_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tiny_models.vit(tmp_path / "vit"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not files.present(folder)


def test_what_is_present_can_be_found() -> None:
    for name in files.PACKAGED:
        if files.present(name):
            assert (files.find(name) / "config.json").is_file()


def test_looking_for_a_model_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(sys.modules)
    for name in (*files.PACKAGED, "someone/other"):
        files.present(name)
    imported = {module.partition(".")[0] for module in set(sys.modules) - before}
    assert imported <= {"huggingface_hub"}
