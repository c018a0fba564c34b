"""What every registered component keeps. A new file in a component folder is tested from the moment
that it is there.
"""

from __future__ import annotations

import datetime
import inspect
import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from plait.api.describe import REGISTRIES
from plait.encoders.base import encoders
from plait.fusion.base import fusions
from plait.media import image
from plait.modalities.base import modalities
from plait.nn.batch import Layout, Tokens, Values
from plait.table.table import Source
from plait.tasks import base_text
from plait.tasks.base import TaskOptions, tasks
from plait.tasks.base_prediction import Prediction
from plait.tasks.base_text import TextTask
from support import tiny_models
from support.media import clip, wav, wave

BROKEN = object()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Eight cells of each modality: good ones, a missing one (row 2), and a bad one (row 5) where the
# modality can have one.
CELLS: dict[str, list[Any]] = {
    "image": [png(0), png(1), None, png(3), png(4), b"this is no picture", png(6), png(7)],
    "audio": [
        wav(wave(0.3, 300)),
        wav(wave(0.5, 500)),
        None,
        wav(wave(0.2), kind="FLAC"),
        wav(wave(0.4, 900)),
        b"RIFF but no more",
        wav(wave(0.1)),
        wav(wave(0.25), 8000),
    ],
    "video": [
        clip(3),
        clip(12),
        None,
        clip(1),
        clip(9, "webm", "libvpx"),
        clip(9)[:900],
        clip(24),
        clip(4, sound=wave(0.2)),
    ],
    "text": ["a red apple", "ein grüner Baum", None, "北京的天空", "مرحبا بالعالم", "", "🍎🍏 apples", "a"],
    "number": [1.0, -2.5, None, 1e9, 0.0, float("inf"), 3.0, 4.0],
    "category": ["a", "b", None, "a", "c", "b", "a", "b"],
    "datetime": [
        "2024-01-31",
        "2024-02-29",
        None,
        "2025-12-24",
        "2020-06-15",
        "yesterday",
        "2021-03-04",
        "2022-11-11",
    ],
    "vector": [
        [1.0, 2.0, 3.0],
        [0.5, 0.1, 0.2],
        None,
        [3.0, 1.0, 4.0],
        [1.0, 5.0, 9.0],
        [1.0],
        [2.0, 6.0, 5.0],
        [3.0, 5.0, 8.0],
    ],
}
SMALL = {"image": {"size": 24}, "video": {"size": 16, "frames": 4}, "audio": {"bands": 16}}
LAYOUTS = {
    "vector": Layout("vector", (5,)),
    "index": Layout("index", (), 7),
    "tokens": Layout("tokens", (12,), 300),
    "bag": Layout("bag", (12,), 300),
    "grid": Layout("grid", (3, 40, 40)),
    "frames": Layout("frames", (6, 3, 40, 40)),
    "spectrogram": Layout("spectrogram", (50, 20)),
    "wave": Layout("wave", (900,)),
}


def fitted(name: str, **options: Any) -> tuple[Any, pa.ChunkedArray]:
    cells = pa.chunked_array([pa.array(CELLS[name])])
    return modalities.find(name).fit(
        modalities.configure(name, {**SMALL.get(name, {}), **options}), cells
    ), cells


def load(modality: Any, cells: pa.ChunkedArray) -> Any:
    return modality.load(cells, Source("column", Path.cwd()))


def values_of(layout: Layout, rows: int, seed: int = 0) -> Values:
    g = torch.Generator().manual_seed(seed)
    if layout.kind == "vector":
        return Values(torch.randn(rows, *layout.size, generator=g))
    if layout.kind == "index":
        return Values(torch.randint(0, layout.vocabulary, (rows,), generator=g))
    if layout.kind == "grid":
        return Values(torch.randn(rows, *layout.size, generator=g).to(memory_format=torch.channels_last))
    length = torch.randint(1, layout.size[0] + 1, (rows,), generator=g)
    if layout.kind in ("frames", "spectrogram", "wave"):
        return Values(
            torch.randn(rows, *layout.size, generator=g), length
        )  # what lies beyond a row's length is no zero
    ids = torch.randint(2, layout.vocabulary, (rows, layout.size[0]), generator=g)
    return Values(ids * (torch.arange(layout.size[0]) < length[:, None]), length)


def pairs() -> list[tuple[str, str]]:
    return [(name, kind) for name in encoders.names() for kind in sorted(encoders.find(name).takes)]


@cache
def saved(kind: str, seed: int = 0) -> str:
    """The folder of a tiny pretrained model."""
    folder = Path(tempfile.mkdtemp(prefix="plait-test-"))
    if kind == "spectrogram":
        return str(tiny_models.whisper(folder, seed, seconds=1, bands=LAYOUTS[kind].size[1]))
    return str(
        {"tokens": tiny_models.bert, "wave": tiny_models.wav2vec2}.get(kind, tiny_models.vit)(folder, seed)
    )


def encoder(name: str, kind: str, **options: Any) -> Any:
    if name == "pretrained":
        options = {"model": saved(kind), **options}
    component = encoders.find(name)
    modality = {
        "tokens": "text",
        "grid": "image",
        "frames": "video",
        "wave": "audio",
        "spectrogram": "audio",
    }.get(kind, kind)
    config = component.settled(encoders.configure(name, options), modality)
    torch.manual_seed(0)
    return component.build(config, LAYOUTS[kind]).eval()


def move(parameters: list[torch.nn.Parameter], along: list[torch.Tensor], step: float) -> None:
    for parameter, direction in zip(parameters, along, strict=True):
        parameter.data.add_(direction, alpha=step)


def assert_gradient(module: torch.nn.Module, output: Callable[[], torch.Tensor]) -> None:
    """The derivative of a weighted sum of the outputs, with the same dropout, along a direction drawn
    by lot.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    g = torch.Generator().manual_seed(2)
    along = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in parameters]
    move(parameters, along, 0.01)  # from zeros, where there may be a kink

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        x = output()
        return (x * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)).sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    expected = float(sum((d * a).sum() for d, a in zip(gradients, along, strict=True) if d is not None))
    ends = []
    for step in (1e-8, -2e-8):
        move(parameters, along, step)
        ends.append(float(loss().detach()))
    assert (ends[0] - ends[1]) / 2e-8 == pytest.approx(expected, rel=1e-3)


LEARNING = {
    "pretrained": {"mode": "full", "layers": 1}
}  # what an encoder that is frozen by itself needs to learn


# ---------------------------------------------------------------- all kinds


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]
)
def test_every_component_states_its_options_once(kind: str, name: str) -> None:
    found = REGISTRIES[kind].find(name)
    assert inspect.getdoc(found), "say what it computes, with its source"
    config = found.options()
    with pytest.raises(ValidationError):
        found.options(no_such_option=1)
    for field in type(config).model_fields:
        with pytest.raises(ValidationError):
            setattr(config, field, 1)
    module = inspect.getmodule(found)
    assert module is not None
    source = inspect.getsource(module)
    if any(base.__module__ == "plait.media.image" for base in type(config).__mro__):
        source += inspect.getsource(image)
    if issubclass(found, TextTask):
        source += inspect.getsource(base_text)
    common = (
        set(TaskOptions.model_fields) if kind == "tasks" else set()
    )  # read by those who make tasks, see test_multitask.py
    assert all(f".{f}" in source or f'"{f}"' in source for f in set(type(config).model_fields) - common), (
        "an option that nothing reads"
    )


# ---------------------------------------------------------------- modalities


@pytest.mark.parametrize("name", modalities.names())
class TestModality:
    def test_missing_and_bad_cells_are_absent_and_the_bad_ones_named(self, name: str) -> None:
        modality, cells = fitted(name)
        loaded = load(modality, cells)
        assert not loaded.present[2]
        expected = {"text": [], "category": []}.get(name, [5])
        assert [p.row for p in loaded.problems] == expected
        assert all(p.column == "column" and p.reason for p in loaded.problems)
        assert len(loaded.values.x) == len(loaded.present) == len(cells)
        assert loaded.present.sum() == (7 if name == "category" else 6)

    def test_state_is_json_and_restores_equal_values(self, name: str) -> None:
        import json

        modality, cells = fitted(name)
        state = json.loads(json.dumps(modality.state(), allow_nan=False))
        again = type(modality).from_state(modality.config, state)
        assert torch.equal(load(modality, cells).values.x, load(again, cells).values.x)
        assert modality.layout == again.layout

    def test_a_row_alone_is_the_same_as_among_others(self, name: str) -> None:
        modality, cells = fitted(name)
        whole, alone = load(modality, cells), load(modality, cells.slice(4, 1))
        x, one = modality.transform(whole.values, None).x[4], modality.transform(alone.values, None).x[0]
        assert torch.equal(x[: len(one)] if one.ndim and name in ("text", "audio", "video") else x, one)

    def test_a_column_without_any_cell_is_all_missing(self, name: str) -> None:
        modality, cells = fitted(name)
        nothing = pa.chunked_array([pa.array([None] * 3, cells.type)])
        assert not load(modality, nothing).present.any()
        assert not load(type(modality).fit(modality.config, nothing), nothing).present.any()

    def test_the_layout_is_what_transform_gives(self, name: str) -> None:
        modality, cells = fitted(name)
        x = modality.transform(load(modality, cells).values, None).x
        if modality.layout.kind in ("vector", "grid"):
            assert tuple(x.shape[1:]) == modality.layout.size
        elif modality.layout.kind in ("frames", "spectrogram"):
            assert x.shape[1] <= modality.layout.size[0]
            assert tuple(x.shape[2:]) == modality.layout.size[1:]
        else:
            assert x.max() < modality.layout.vocabulary
        assert torch.isfinite(x.float()).all()

    def test_an_encoder_takes_it(self, name: str) -> None:
        modality, _ = fitted(name)
        default = encoders.find(modality.encoder)
        asked, _ = fitted(name, **default.asks(default.options(), name))
        assert asked.layout.kind in default.takes


def test_every_modality_has_cells_here() -> None:
    assert sorted(CELLS) == modalities.names(), "give a new modality eight cells in CELLS"


def test_modalities_recognise_their_own_cells() -> None:
    for name, cells in CELLS.items():
        good = pa.chunked_array([pa.array([c for c in cells if c is not None][:4] * 30)])
        scores = {
            n: modalities.find(n).matches(good, Source("column", Path.cwd())) for n in modalities.names()
        }
        best = max((n for n in scores if scores[n]), key=lambda n: scores[n].score)
        assert best == (name if name != "text" else "category"), (
            f"{name}: {scores}"
        )  # four texts, thirty times each


def test_datetime_of_arrow_and_with_time() -> None:
    cells = pa.chunked_array(
        [pa.array([datetime.datetime(2024, 1, 1, 12), None, datetime.datetime(2025, 1, 1)])]
    )
    modality = modalities.find("datetime").fit(modalities.configure("datetime", {}), cells)
    x = load(modality, cells).values.x
    assert x[0, 0] == -1
    assert x[2, 0] == 1
    assert torch.allclose(x[0, 7:9], torch.tensor([0.0, -1.0]), atol=1e-6)  # noon: half a turn of the day


# ---------------------------------------------------------------- encoders


@pytest.mark.parametrize(("name", "kind"), pairs())
class TestEncoder:
    def test_shapes_and_finite_values(self, name: str, kind: str) -> None:
        module = encoder(name, kind)
        tokens = module(values_of(LAYOUTS[kind], 8))
        assert tokens.x_BLD.shape[0] == 8
        assert tokens.x_BLD.shape[2] == module.width
        assert tokens.mask_BL.shape == tokens.x_BLD.shape[:2]
        assert tokens.mask_BL.dtype == torch.bool
        assert torch.isfinite(tokens.x_BLD).all()

    def test_a_row_alone_is_the_same_as_among_eight(self, name: str, kind: str) -> None:
        module = encoder(name, kind)
        values = values_of(LAYOUTS[kind], 8)
        whole = module(values).pooled_BD()
        for row in range(8):
            alone = module(
                values.take(torch.tensor([row]))
            ).pooled_BD()  # take drops the padding beyond its length
            assert torch.allclose(alone[0], whole[row], atol=1e-5)

    def test_every_parameter_learns(self, name: str, kind: str) -> None:
        module = encoder(name, kind, **LEARNING.get(name, {})).train()
        x_BLD = module(values_of(LAYOUTS[kind], 8)).x_BLD
        (x_BLD * torch.randn(x_BLD.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        still = [
            n
            for n, p in module.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        # the last normalisation of a residual block begins at zero, so what lies before it learns from
        # the second step on
        # a pretrained network comes with parts that these vectors do not pass through
        later = {"resnet": ("convolution", "norm1"), "pretrained": ("pooler", "masked_spec_embed")}.get(
            name, ()
        )
        assert all(any(w in n for w in later) for n in still), still

    def test_gradients_are_those_of_small_steps(self, name: str, kind: str) -> None:
        """What autograd says of a step in parameters' space is what a small one does: libraries have
        been wrong, and said nothing.
        """
        if name == "pretrained":
            pytest.skip("its vectors are in single precision whatever it is given")
        module = encoder(name, kind, **LEARNING.get(name, {})).double().train()
        values = values_of(LAYOUTS[kind], 8)
        if values.x.is_floating_point():
            values = replace(values, x=values.x.double())
        assert_gradient(module, lambda: module(values).x_BLD)

    def test_one_row_trains(self, name: str, kind: str) -> None:
        module = encoder(name, kind, **LEARNING.get(name, {})).train()
        module(values_of(LAYOUTS[kind], 1)).x_BLD.sum().backward()

    def test_saved_and_loaded_weights_give_equal_tokens(self, name: str, kind: str) -> None:
        module, other = encoder(name, kind), encoder(name, kind)
        for parameter in other.parameters():
            parameter.data += 1
        other.load_state_dict(module.state_dict())
        values = values_of(LAYOUTS[kind], 3)
        assert torch.equal(module(values).x_BLD, other(values).x_BLD)


# Another value for every option of every encoder; the test fails for an option that changes nothing.
OTHER = {
    "audio_cnn": {"channels": (4, 8), "width": 16, "dropout": 0.9},
    "conv3d": {"channels": (4, 8), "dropout": 0.9},
    "conformer": {"width": 16, "heads": 2, "layers": 1, "kernel": 5, "channels": 4, "dropout": 0.9},
    "crnn": {"channels": (4, 8), "width": 16, "layers": 2, "tokens": "last", "dropout": 0.9},
    "pretrained": {
        "model": saved("grid", 1),
        "mode": "full",
        "pool": "mean",
        "unit": True,
        "norm": False,
        "dropout": 0.9,
        "layers": 1,
        "rank": 2,
        "rate": 0.5,
        "decay": 0.5,
    },
    "per_frame": {
        "frame": {"name": "resnet", "width": 8},
        "time": "mean",
        "width": 16,
        "heads": 2,
        "layers": 2,
        "dropout": 0.9,
    },
    "bag": {"width": 16, "dropout": 0.9},
    "cnn": {"channels": (4, 8), "kernel": 5, "padding": 1, "pool": "mean"},
    "lstm": {"embedding": 8, "width": 16, "bidirectional": True, "tokens": "all", "dropout": 0.9},
    "resnet": {"width": 8, "stages": 2, "blocks": 2, "dropout": 0.9},
    "tabular": {"width": 8, "periodic": 4, "sigma": 3.0},
    "vgg": {"channels": (4, 8), "dropout": 0.9},
    "transformer": {"width": 32, "heads": 2, "layers": 1, "dropout": 0.9},
    "concat": {"hidden": (16,), "dropout": 0.9},
    "cross_attention": {"width": 32, "heads": 2, "layers": 1, "queries": 2, "dropout": 0.9},
    "gated": {"width": 16, "hidden": (16,), "dropout": 0.9},
    "logit_sum": {"hidden": (16,), "dropout": 0.9},
    "low_rank": {"width": 16, "rank": 2, "hidden": (16,), "dropout": 0.9},
}
FOUND = (
    "architecture",
    "identity",
    "why",
)  # not for a user to choose: read from a model's files, or said of a choice
NEEDS = {
    "tabular": {"sigma": {"periodic": 4}},
    "per_frame": {"heads": {"time": "attention"}},
    "pretrained": {
        "layers": {"mode": "lora"},
        "rank": {"mode": "lora"},
        "rate": {"mode": "full"},
        "decay": {"mode": "full"},
        "norm": {"unit": True},
    },
}


@pytest.mark.parametrize(
    ("name", "option"),
    [(n, o) for n in encoders.names() for o in encoders.find(n).options.model_fields if o not in FOUND],
)
def test_every_encoder_option_changes_something(name: str, option: str) -> None:
    kind = min(encoders.find(name).takes - {"index"})
    values = values_of(LAYOUTS[kind], 8)

    def result(**options: Any) -> tuple[torch.Tensor, list[Any]]:
        """What comes out of it, and what is trained of it, how fast."""
        module = encoder(name, kind, **options).train()
        rates = {id(p): rate for p, rate in module.rates()}
        torch.manual_seed(1)
        return module(values).x_BLD, [
            (p.shape, rates.get(id(p), 1.0)) for p in module.parameters() if p.requires_grad
        ]

    needs = NEEDS.get(name, {}).get(option, {})
    (plain, trained), (changed, others) = result(**needs), result(**needs, **{option: OTHER[name][option]})
    assert plain.shape != changed.shape or not torch.allclose(plain, changed) or trained != others


# ---------------------------------------------------------------- fusion

WIDTHS = {"photo": 6, "a.title": 10, "keys": 4}


def tokens_of(
    rows: int, present: dict[str, torch.Tensor] | None = None, seed: int = 0
) -> tuple[dict[str, Tokens], dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    present = present or {c: torch.ones(rows, dtype=torch.bool) for c in WIDTHS}
    tokens = {}
    for (column, width), length in zip(WIDTHS.items(), (9, 5, 1), strict=True):
        x = torch.randn(rows, length, width, generator=g)
        mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=g)
        missing = torch.full((width,), 0.1)
        tokens[column] = Tokens(
            torch.where(present[column][:, None, None], x, missing), mask & present[column][:, None]
        )
    return tokens, present


def fusion(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return fusions.find(name).build(fusions.configure(name, options), WIDTHS).eval()


@pytest.mark.parametrize("name", fusions.names())
class TestFusion:
    def test_gradients_are_those_of_small_steps(self, name: str) -> None:
        module, (tokens, present) = fusion(name).double().train(), tokens_of(8)
        double = {c: Tokens(t.x_BLD.double(), t.mask_BL) for c, t in tokens.items()}
        assert_gradient(module, lambda: module(double, present))

    def test_every_subset_of_columns_gives_finite_values_and_gradients(self, name: str) -> None:
        subsets = torch.tensor([[bool(i >> k & 1) for i in range(8)] for k in range(3)])
        present = dict(zip(WIDTHS, subsets, strict=True))
        module = fusion(name)
        fused = module(*tokens_of(8, present))
        assert fused.shape == (8, module.width)
        assert torch.isfinite(fused).all()
        fused.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
        assert len({tuple(row.tolist()) for row in fused.detach()}) >= (7 if name == "logit_sum" else 8)

    def test_masked_tokens_have_no_effect(self, name: str) -> None:
        tokens, present = tokens_of(8)
        module = fusion(name)
        before = module(tokens, present)
        noisy = {
            c: Tokens(torch.where(t.mask_BL[..., None], t.x_BLD, torch.tensor(1e3)), t.mask_BL)
            for c, t in tokens.items()
        }
        assert torch.allclose(before, module(noisy, present), atol=1e-5)

    def test_a_row_alone_is_the_same_as_among_eight(self, name: str) -> None:
        tokens, present = tokens_of(8)
        module = fusion(name)
        whole = module(tokens, present)
        alone = module(
            {c: Tokens(t.x_BLD[3:4], t.mask_BL[3:4]) for c, t in tokens.items()},
            {c: p[3:4] for c, p in present.items()},
        )
        assert torch.allclose(whole[3], alone[0], atol=1e-5)

    def test_every_parameter_learns(self, name: str) -> None:
        module = fusion(name).train()
        out = module(*tokens_of(64))
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "option"), [(n, o) for n in fusions.names() for o in fusions.find(n).options.model_fields]
)
def test_every_fusion_option_changes_something(name: str, option: str) -> None:
    def output(**options: Any) -> torch.Tensor:
        module = fusion(name, **options).train()
        torch.manual_seed(1)
        return module(*tokens_of(8))

    plain, changed = output(), output(**{option: OTHER[name][option]})
    assert plain.shape != changed.shape or not torch.allclose(plain, changed)


# ---------------------------------------------------------------- tasks

PREDICTING = [name for name in tasks.names() if issubclass(tasks.find(name), Prediction)]
TARGETS: dict[str, list[Any]] = {
    "classification": ["cat", "dog", None, "cat", "eel", "dog", "cat", "dog"],
    "regression": [1.0, 2.0, None, 4.0, -1.0, 0.5, 2.5, 3.0],
    "multilabel": [["a"], ["a", "b"], None, [], ["c"], ["b"], ["a", "c"], ["b", "c"]],
}


def task(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    cells = pa.chunked_array([pa.array(TARGETS[name])])
    torch.manual_seed(0)
    made = tasks.find(name).fit(tasks.configure(name, {}), cells, "target")
    made.build_head(16)
    target, labelled, problems = made.encode(cells, Source("target", Path()))
    assert not problems
    return made, target, labelled


@pytest.mark.parametrize("name", PREDICTING)
class TestTask:
    def test_unlabelled_rows_have_no_loss_and_no_gradient(self, name: str) -> None:
        made, target, labelled = task(name)
        assert labelled.tolist() == [True, True, False, *[True] * 5]
        fused = torch.randn(8, 16, requires_grad=True)
        made.loss(made(fused), target, labelled).backward()
        assert fused.grad is not None
        assert not fused.grad[2].any()
        assert fused.grad[0].any()
        nothing = made.loss(made(fused), target, torch.zeros(8, dtype=torch.bool))
        assert nothing == 0

    def test_answers_have_a_value_for_each_row(self, name: str) -> None:
        made, _, _ = task(name)
        answers = made.answers(made(torch.randn(8, 16)).detach())
        assert all(len(a) == 8 for a in answers.values())
        assert "" in answers

    def test_a_perfect_output_is_measured_as_perfect(self, name: str) -> None:
        made, target, labelled = task(name)
        perfect = {
            "classification": lambda: torch.nn.functional.one_hot(target, 3) * 50.0,
            "regression": lambda: target,
            "multilabel": lambda: (target - 0.5) * 100,
        }[name]()
        measured = made.measure(perfect[labelled].numpy(), target[labelled].numpy())
        assert measured[made.score] == pytest.approx(1.0 if made.higher else 0.0, abs=1e-6)

    def test_state_restores_the_same_task(self, name: str) -> None:
        import json

        made, _, _ = task(name)
        config = tasks.configure(name, {})
        again = type(made).from_state(config, json.loads(json.dumps(made.state())))
        again.build_head(16)
        again.load_state_dict(made.state_dict())
        fused = torch.randn(3, 16)
        assert torch.equal(made(fused), again(fused))

    def test_a_row_without_inputs_gets_the_baseline(self, name: str) -> None:
        made, target, labelled = task(name)
        torch.testing.assert_close(
            made.baseline_output(), made.baseline(target[labelled]), atol=1e-6, rtol=1e-5
        )

    def test_the_baseline_beats_a_random_head(self, name: str) -> None:
        made, target, labelled = task(name)
        baseline = made.baseline(target[labelled]).expand(8, *made(torch.zeros(1, 16)).shape[1:])
        assert made.loss(baseline, target, labelled) <= made.loss(made(torch.randn(8, 16)), target, labelled)


def test_every_task_has_targets_here() -> None:
    assert sorted(TARGETS) == PREDICTING, "give a new task eight cells in TARGETS"
