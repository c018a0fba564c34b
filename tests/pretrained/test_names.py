"""Short names of models: each one's class loads, embeds, and gets the input that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModel, ClapFeatureExtractor

import plait
from plait.encoders.base import encoders
from plait.encoders.pretrained import Pretrained
from plait.errors import RecipeError
from plait.modalities.base import modalities
from plait.pretrained import files
from plait.pretrained.names import NAMED
from plait.table.table import Source
from support import tiny_models
from support.media import clip, wav, wave
from support.tables import FAST, make_rows, write_csv

TINY: dict[str, Callable[[Path], Path]] = {
    "e5_small": tiny_models.bert,
    "multilingual": tiny_models.bert,
    "bge_small": tiny_models.bert,
    "mpnet": tiny_models.mpnet,
    "dino": tiny_models.dinov2,
    "siglip": tiny_models.siglip,
    "clap": tiny_models.clap,
    "wav2vec2": tiny_models.wav2vec2,
    "hubert": tiny_models.hubert,
    "whisper_tiny": lambda folder: tiny_models.whisper(folder, seconds=1),
    "videomae": tiny_models.videomae,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a tiny model of a short name's class into the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(name: str) -> None:
        model = NAMED[name]
        cached = tmp_path / "hub" / f"models--{model.hub.replace('/', '--')}"
        TINY[name](cached / "snapshots" / "abc")
        reference = cached / "refs" / model.revision
        reference.parent.mkdir(parents=True)
        reference.write_text("abc")

    return put


def cells_of(modality: str, root: Path) -> list[Any]:
    """Return two cells of a modality."""
    if modality == "text":
        return ["a red apple", "the sky is blue there"]
    if modality == "audio":
        return [wav(wave(0.5, 440)), wav(wave(0.2, 200))]
    if modality == "video":
        return [clip(12), clip(3)]
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / name)
    return ["a.png", "b.png"]


def embedded(name: str, modality: str, root: Path) -> tuple[torch.Tensor, Any]:
    """Return the vectors of two cells, (2, D), and the column's modality."""
    config = Pretrained.settled(encoders.configure(name, {}), modality)
    options = modalities.configure(modality, Pretrained.asks(config, modality))
    column = pa.chunked_array([pa.array(cells_of(modality, root))])
    fitted = modalities.find(modality).fit(options, column)
    encoder = Pretrained.build(config, fitted.layout).eval()
    loaded = fitted.load(column, Source("column", root))
    vectors = encoder.embed(fitted.transform(loaded.values, None))
    assert vectors.x.shape[2] == encoder.width
    return vectors.x[:, 0], fitted


@pytest.mark.parametrize(
    ("name", "modality"), [(name, modality) for name in NAMED for modality in NAMED[name].modalities]
)
def test_every_name_embeds_its_columns(
    name: str, modality: str, hub: Callable[[str], None], tmp_path: Path
) -> None:
    assert not files.present(name)
    hub(name)
    assert files.present(name)
    x_BD, _ = embedded(name, modality, tmp_path)
    assert torch.isfinite(x_BD).all()
    assert not torch.allclose(x_BD[0], x_BD[1], atol=1e-4)


def test_a_bare_name_is_an_encoder(hub: Callable[[str], None], tmp_path: Path) -> None:
    hub("multilingual")
    table = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 24))
    options = [*FAST, "encoders.text=multilingual"]
    model = plait.fit(table, "label", overrides=options, out=tmp_path / "run", quiet=True)
    encoder = model.plan.columns["text"].encoder
    assert encoder.name == encoder.options["model"] == "multilingual"
    assert model.plan.columns["text"].frozen
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(model.embed(table), again.embed(table), atol=1e-2)


def test_a_name_may_have_options_of_its_own(hub: Callable[[str], None]) -> None:
    hub("dino")
    config = encoders.configure("dino", {"pool": "mean"})
    assert (config.model, Pretrained.settled(config, "image").pool) == ("dino", "mean")


def test_the_readme_lists_every_name() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for name, model in NAMED.items():
        columns = ", ".join(model.modalities)
        about = f"{model.hub} | {model.megabytes} | {model.licence} | {model.good_for} |"
        assert f"| `{name}` | {columns} | {about}" in readme
    for name, packaged in files.PACKAGED.items():
        assert f"| `{name}` | {', '.join(packaged.modalities)} | a package |" in readme


def test_no_name_is_that_of_a_component() -> None:
    assert not set(encoders.short) & set(encoders.names())
    assert {choice.name for choice in encoders.short.values()} <= set(encoders.names())


def test_misspelt_names_get_a_hint() -> None:
    with pytest.raises(RecipeError, match="did you mean 'multilingual'"):
        encoders.find("multilingul")


def test_columns_of_other_modalities_are_refused() -> None:
    with pytest.raises(RecipeError, match="'clap' reads columns of audio, not of image"):
        Pretrained.settled(encoders.configure("clap", {}), "image")
    with pytest.raises(RecipeError, match="'minilm' reads columns of text, not of audio"):
        Pretrained.settled(encoders.configure("minilm", {}), "audio")


@pytest.mark.parametrize("name", ["e5_small", "multilingual", "bge_small"])
def test_texts_are_read_with_their_models_prefix(
    name: str, hub: Callable[[str], None], tmp_path: Path
) -> None:
    hub(name)
    _, modality = embedded(name, "text", tmp_path)
    tokenizer = Tokenizer.from_file(str(files.find(name) / "tokenizer.json"))
    tokenizer.no_padding()
    prefix = "" if name == "bge_small" else "query: "
    texts = ["a red apple", "the"]
    loaded = modality.load(pa.chunked_array([texts]), Source("column", tmp_path))
    for row, text in enumerate(texts):
        length = int(loaded.values.length_B[row])
        assert loaded.values.x[row, :length].tolist() == tokenizer.encode(prefix + text).ids


def test_a_models_files_may_name_a_prefix(tmp_path: Path) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    assert files.prefix(str(folder)) == ""
    description = '{"prompts": {"query": "find: ", "document": "text: "}, "default_prompt_name": "document"}'
    (folder / "config_sentence_transformers.json").write_text(description)
    assert files.prefix(str(folder)) == "text: "


def test_a_tower_of_texts_gives_the_vector_of_the_end(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path / "clip")
    tokenizer = tiny_models.bert(tmp_path / "bert") / "tokenizer.json"
    (folder / "tokenizer.json").write_text(tokenizer.read_text())
    config = Pretrained.settled(encoders.configure("pretrained", {"model": str(folder)}), "text")
    options = modalities.configure("text", Pretrained.asks(config, "text"))
    column = pa.chunked_array([["a red apple", "blue"]])
    fitted = modalities.find("text").fit(options, column)
    encoder = Pretrained.build(config, fitted.layout).eval()
    values = fitted.load(column, Source("column", tmp_path)).values
    model = AutoModel.from_pretrained(folder).text_model
    with torch.no_grad():
        expected = model(values.x.long(), values.mask_BL().long()).pooler_output
    torch.testing.assert_close(encoder.embed(values).x[:, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_clap_hears_what_its_own_extractor_gives(fused: bool, tmp_path: Path) -> None:
    folder = tiny_models.clap(tmp_path / "clap", fused)
    config = Pretrained.settled(encoders.configure("pretrained", {"model": str(folder)}), "audio")
    options = modalities.configure("audio", Pretrained.asks(config, "audio"))
    rng = np.random.default_rng(0)
    recordings = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (480_000, 144_000)]
    column = pa.chunked_array([pa.array([wav(samples, 48_000) for samples in recordings])])
    fitted = modalities.find("audio").fit(options, column)
    encoder = Pretrained.build(config, fitted.layout).eval()
    vectors = encoder.embed(fitted.transform(fitted.load(column, Source("column", tmp_path)).values, None))

    model = AutoModel.from_pretrained(folder).eval().audio_model
    extract = ClapFeatureExtractor.from_pretrained(folder)
    for samples, vector in zip(recordings, vectors.x, strict=True):
        features = extract(samples, sampling_rate=48_000, return_tensors="pt").input_features
        with torch.no_grad():
            is_longer = torch.zeros(1, 1, dtype=torch.bool)
            expected = model(input_features=features, is_longer=is_longer).pooler_output
        # Cells hold half the digits, and repeated parts meet unlike.
        assert (vector - expected).norm() < 0.05 * expected.norm()
