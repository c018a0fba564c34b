"""JSON and tensors carry a checksum of themselves: any changed byte is an error, never another content."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plait.errors import ArtifactError
from plait.runs import files
from support.damage import flips

CONTENT: dict[str, Any] = {"seed": 1, "columns": ["photo", "größe", "\ud83d"], "share": 0.125, "none": None}
TENSORS = {
    "weight": torch.linspace(0, 1, 1000).reshape(10, 100),
    "half": torch.ones(7, dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "empty": torch.zeros(0, 4),
}


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    files.write_checked(path, CONTENT)
    assert files.read_checked(path) == CONTENT
    assert json.loads(path.read_text()).keys() == {"checksum", *CONTENT}


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    files.write_json(tmp_path / "scores.json", {"scores": [math.nan, {"low": -math.inf}, (1.5,)]})
    assert json.loads((tmp_path / "scores.json").read_text()) == {"scores": [None, {"low": None}, [1.5]]}


def test_tensors_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    shared = TENSORS["weight"]
    files.write_tensors(path, {**TENSORS, "same": shared, "turned": shared.T}, {"epoch": "3"})
    tensors, metadata = files.read_tensors(path)
    assert metadata == {"epoch": "3"}
    assert tensors.keys() == {*TENSORS, "same", "turned"}
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert torch.equal(tensors["turned"], shared.T)


def test_tensors_do_not_change_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    files.write_tensors(path, TENSORS)
    tensors, _ = files.read_tensors(path)
    path.write_bytes(b"")
    assert torch.equal(tensors["weight"], TENSORS["weight"])


def test_weights_have_the_mode_of_their_neighbours(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "weights.safetensors", TENSORS)
    files.write_checked(tmp_path / "plan.json", CONTENT)
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


def test_any_flipped_byte_is_an_error(tmp_path: Path) -> None:
    plan, weights = tmp_path / "plan.json", tmp_path / "weights.safetensors"
    files.write_checked(plan, CONTENT)
    files.write_tensors(weights, TENSORS, {"progress": json.dumps({"epoch": 3, "checksum": "0" * 32})})
    for _ in flips(plan):
        with pytest.raises(ArtifactError, match=r"plan.json' is damaged"):
            files.read_checked(plan)
    for _ in flips(weights):
        with pytest.raises(ArtifactError, match=r"weights.safetensors' is damaged"):
            files.read_tensors(weights)
    assert files.read_checked(plan) == CONTENT
    assert files.read_tensors(weights)[0].keys() == TENSORS.keys()


def test_files_that_were_cut_or_lengthened_are_errors(tmp_path: Path) -> None:
    plan, weights = tmp_path / "plan.json", tmp_path / "weights.safetensors"
    files.write_checked(plan, CONTENT)
    files.write_tensors(weights, TENSORS)
    for path, read in ((plan, files.read_checked), (weights, files.read_tensors)):
        content = path.read_bytes()
        huge_header = b"\xff" * 8 + content[8:]
        ends = [content[:length] for length in (0, 7, 8, 9, len(content) // 2, len(content) - 1)]
        for damaged in [*ends, content + b"x", huge_header, bytes(len(content)), b"x" * 1000]:
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match="is damaged"):
                read(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": NaN}', "[]", "5", "\udcff"]
)
def test_json_that_plait_never_writes_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match="is damaged"):
        files.read_json(path)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "nothing", tmp_path / "nul\0"]:
        for read in (files.read_json, files.read_tensors):
            with pytest.raises(ArtifactError, match=r"is no file|cannot be read"):
                read(path)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "lacks the tensor 'weight'"),
        ({"weight": torch.zeros(3)}, r"the tensor 'weight' is float32 \(3,\), expected float32 \(2,\)"),
        ({"weight": torch.zeros(2).double()}, r"is float64 \(2,\)"),
        ({"weight": torch.zeros(2), "other": torch.zeros(1)}, "has a tensor 'other'"),
    ],
)
def test_tensors_of_another_model_are_refused(tensors: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        files.check_shapes(Path("weights"), tensors, {"weight": torch.ones(2)})
