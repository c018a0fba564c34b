"""The cases of `same_answers.py`: tiny tables, made from seeds, and what is trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

ROWS = 160
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 220)}
WORDS = {"red": "cherry", "green": "leaf", "blue": "sky"}
TONES = {"red": 300, "green": 900, "blue": 2500}
LETTERS = {"a": 400, "b": 900, "c": 2000}
RATE = 16_000

# ---------------------------------------------------------------- tables


def things(folder: Path, missing: float = 0.15) -> pa.Table:
    """Media and plain columns. A fifth of the labels are wrong, so that no model is too sure of them."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        colour = list(COLOURS)[i % 3]
        seen, heard = (colour if rng.random() < 0.8 else draw(COLOURS, rng) for _ in range(2))
        large = bool(rng.random() < 0.5)
        number = float(rng.normal(list(COLOURS).index(colour) + large, 0.5))
        inputs = {
            "photo": save_photo(folder / f"{i}.png", seen, rng),
            "sound": save_tones(folder / f"{i}.wav", [TONES[heard]], 0.2, rng),
            "text": f"there is a {WORDS[seen]} near house number {int(rng.integers(1000))}",
            "price": number if rng.random() < 0.9 else 0.0,
            "shop": draw(("north", "south", "east"), rng),
            "day": f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}",
        }
        # besides cells missing at random, some rows have no input at all, and some just one
        for place, name in enumerate(inputs):
            lone = i % 20 == 13 and place != i // 20 % len(inputs)
            if missing and (rng.random() < missing or i % 20 == 7 or lone):
                inputs[name] = None
        label = colour if rng.random() < 0.8 else draw(COLOURS, rng)
        targets = {
            "label": label,
            "half": label if rng.random() < 0.6 else None,
            "large": "yes" if large else "no",
            "value": number + float(rng.normal(0, 0.2)) if rng.random() < 0.9 else None,
            "tags": [tag for tag in (colour, "large" if large else "") if tag and rng.random() < 0.9],
            "caption": f"a {'large' if large else 'small'} {colour} thing",
        }
        rows.append(inputs | targets)
    (folder / "5.png").write_bytes(b"no image")  # one cell that cannot be read
    return pa.Table.from_pylist(rows)


def complete(folder: Path) -> pa.Table:
    return things(folder, missing=0.0)


def wide(folder: Path) -> pa.Table:
    """Things with many plain columns."""
    table, rng = things(folder), np.random.default_rng(1)
    value = np.array([v or 0.0 for v in table["value"].to_pylist()])
    for i in range(40):
        if i % 4:
            cells = value * rng.normal() / 2 + rng.normal(size=ROWS)
        else:
            cells = rng.integers(0, 5, ROWS).astype(str)
        table = table.append_column(f"x{i}", pa.array(cells.tolist(), mask=rng.random(ROWS) < 0.1))
    vectors = rng.normal(size=(ROWS, 4)).tolist()
    return table.append_column("vector", pa.array([None if i % 9 == 4 else v for i, v in enumerate(vectors)]))


def lists(folder: Path) -> pa.Table:
    """Things with none to three images in a cell."""
    table = things(folder)
    photos = [[f"{(i + 3 * k) % ROWS}.png" for k in range(i % 4)] for i in range(ROWS)]
    return table.append_column("photos", pa.array(photos))


def clips(folder: Path) -> pa.Table:
    """Clips as MP4, some of them with sound, and as GIF."""
    rng, rows = np.random.default_rng(2), []
    for i in range(80):
        colour = list(COLOURS)[i % 3]
        name = save_clip(folder, i, colour) if i % 10 < 8 else None
        rows.append({"film": name, "price": float(rng.normal(i % 3)) if i % 7 else None, "label": colour})
    return pa.Table.from_pylist(rows)


def speech(folder: Path) -> pa.Table:
    """Sounds of two to four tones, and a letter for each tone."""
    rng, rows = np.random.default_rng(3), []
    for i in range(60):
        letters = [str(letter) for letter in rng.choice(list(LETTERS), int(rng.integers(2, 5)))]
        name = save_tones(folder / f"{i}.wav", [LETTERS[letter] for letter in letters], 0.16, rng)
        said = "".join(letters)
        rows.append({"sound": None if i % 15 == 4 else name, "said": None if i % 15 == 9 else said})
    return pa.Table.from_pylist(rows)


def draw(names: Iterable[str], rng: np.random.Generator) -> str:
    return str(rng.choice(list(names)))


def save_photo(path: Path, colour: str, rng: np.random.Generator) -> str:
    pixels = np.array(COLOURS[colour]) + rng.normal(0, 60, (20, 20, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path.name


def save_tones(path: Path, hertz: list[int], seconds: float, rng: np.random.Generator) -> str:
    steps = np.arange(int(seconds * RATE)) / RATE
    wave = np.concatenate([np.append(0.3 * np.sin(2 * np.pi * h * steps), np.zeros(960)) for h in hertz])
    soundfile.write(path, wave + 0.02 * rng.normal(size=len(wave)), RATE)
    return path.name


def save_clip(folder: Path, number: int, colour: str) -> str:
    frames = [np.full((24, 32, 3), 20 + 3 * step, np.uint8) for step in range(5)]
    for step, pixels in enumerate(frames):
        pixels[6:14, 4 * step : 4 * step + 8] = COLOURS[colour]
    if number % 3 == 1:
        first, *others = [Image.fromarray(pixels) for pixels in frames]
        first.save(folder / f"{number}.gif", save_all=True, append_images=others, duration=40)
        return f"{number}.gif"
    with av.open(str(folder / f"{number}.mp4"), "w") as file:
        images = file.add_stream("libx264", rate=24)
        sounds = file.add_stream("aac", rate=RATE) if number % 2 else None
        images.width, images.height, images.pix_fmt = 32, 24, "yuv420p"
        for pixels in frames:
            file.mux(images.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(images.encode())
        if sounds is not None:
            wave = np.sin(2 * np.pi * TONES[colour] * np.arange(4096) / RATE).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            file.mux(sounds.encode(frame))
            file.mux(sounds.encode())
    return f"{number}.mp4"


def save_bert(folder: Path) -> None:
    """A tiny text encoder with random weights, as Hugging Face saves one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "there", "is", "a", "near", "house", *WORDS.values()]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.save(str(folder / "tokenizer.json"))


def make_inputs(work: Path) -> None:
    """Write the tables and the tiny text encoder, unless they are there."""
    for make in (things, complete, wide, lists, clips, speech):
        folder = work / "tables" / make.__name__
        if not (folder / "table.parquet").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(make(folder), folder / "table.parquet")
    if not (work / "bert" / "tokenizer.json").is_file():
        save_bert(work / "bert")


# ---------------------------------------------------------------- cases

SMALL = (
    "training.precision=fp32",
    "training.epochs=5",
    "training.learning_rate=0.01",
    "training.keep=last",  # so that every epoch leaves its mark
    "split.valid=0.3",  # 48 of 160 rows: enough for temperatures and for the share of late fusion
    "modalities.image.size=16",
    "modalities.audio.bands=16",
    "modalities.audio.hop=0.02",
    "modalities.video.size=16",
    "modalities.video.frames=4",
)
ENCODERS = (
    "encoders.image={name: cnn, channels: [4, 8], pool: mean}",
    "encoders.audio={name: audio_cnn, channels: [4, 8], width: 8}",
    "encoders.video={name: conv3d, channels: [4, 8]}",
)


@dataclass(frozen=True)
class Case:
    """A table, its columns that are used, and what `plait.fit` is called with."""

    table: str
    inputs: tuple[str, ...]
    target: tuple[str, ...] = ("label",)
    overrides: tuple[str, ...] = ()  # BERT stands for the folder of a tiny text encoder
    arguments: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # label columns of targets that have another name
    encoders: tuple[str, ...] = ENCODERS
    fused: bool = True  # whether rows have a fused vector


LABELS = tuple(WORDS.values())  # what `classify` and `search` are asked for
PAIR, MEDIA, PLAIN = ("photo", "text"), ("photo", "sound", "text"), ("price", "shop", "day")
MANY = (*(f"x{i}" for i in range(40)), "vector")
ALL = (*PAIR, *PLAIN)

LARGER = ("modalities.image.size=32", "training.epochs=4")
TRANSFORMER = "encoders.text={name: transformer, width: 16}"
PER_FRAME = "encoders.video={name: per_frame, time: attention, width: 8}"
FROZEN = ("encoders.image=pretrained", "encoders.text={name: pretrained, model: BERT}")
SEEN = "tasks.seen={name: classification, column: label, inputs: [photo]}"
WRITTEN = ("tasks.caption={name: generation, width: 32, layers: 1, dropout: 0}", "training.epochs=20")
HEARD = (
    "encoders.audio={name: crnn, channels: [8, 8], width: 24, dropout: 0}",
    "tasks.said=transcription",
    "training.epochs=40",
)
SPOKEN = (
    "columns.said.modality=text",
    "columns.said.encoder={name: lstm, embedding: 24, width: 24, bidirectional: true, tokens: all}",
    "tasks.sound={name: speak, rate: 8000, bands: 24, hop: 0.02, width: 48, dropout: 0}",
    "training.epochs=20",
)
MEMBERS = (
    "ensemble.members.line=linear",
    "ensemble.members.forest={name: trees, rounds: 20}",
    "ensemble.members.light={name: network, light: true, encoders: {text: {name: pretrained, model: BERT}}}",
    "ensemble.folds=2",
    "ensemble.stack=true",
)

CASES = {
    # what a user does without options
    "classic": Case("complete", (*PAIR, "price"), overrides=LARGER, encoders=(),
                    arguments={"recipe": "classic"}),
    "default": Case("things", (*MEDIA, *PLAIN), overrides=("training.keep=best",)),
    "default-encoders": Case("things", (*MEDIA, "price"), overrides=LARGER, encoders=()),
    "regression": Case("wide", (*MEDIA, "day", *MANY), ("value",)),
    "multilabel": Case("things", (*MEDIA, *PLAIN), ("tags",)),
    "plain": Case("wide", (*PLAIN, *MANY), ("large",)),
    "video": Case("clips", ("film", "price")),
    "frames": Case("clips", ("film",), overrides=(PER_FRAME,)),
    "lists": Case("lists", ("photos", "price")),
    # several targets
    "several-targets": Case("things", ALL, ("half", "value", "tags")),
    "best-by": Case("things", ALL, ("half", "value"), ("training.keep=best", "training.best_by=value")),
    "own-inputs": Case("things", (*PAIR, "price"), ("value",), (SEEN,), others=("label",)),
    "gradient-balancing": Case("things", (*PAIR, "price"), ("label", "value"), (
        "balancing={name: gradient, method: upgrad}",)),
    "singles": Case("things", (*PAIR, "price"), ("label", "value"), ("singles=true", "training.keep=best"),
                    {"evaluate": True}),
    # fusion, missing cells, objectives
    "logit-sum": Case("things", ALL, overrides=("fusion=logit_sum", "encoders.text=lstm")),
    "gated": Case("things", ALL, ("value",), ("fusion={name: gated, width: 16}",)),
    "low-rank": Case("things", ALL, overrides=("fusion={name: low_rank, width: 16, rank: 4}",)),
    "cross-attention": Case("things", ALL, overrides=(
        "fusion={name: cross_attention, width: 16, layers: 1}", TRANSFORMER)),
    "missing-zero": Case("things", (*MEDIA, *PLAIN), overrides=("model.missing=zero",)),
    "no-dropout": Case("complete", ALL, overrides=("model.modality_dropout=0", "model.alone=0.3")),
    "no-unimodal": Case("things", ALL, overrides=("model.alone=0",)),
    "unlabelled-and-mixup": Case("things", ALL, ("half",), (
        "training.unlabelled=1", "training.mixup=0.4", "training.epochs=25")),
    "blend": Case("things", ALL, overrides=("model.balance=blend",)),
    # pretrained networks, ensembles
    "frozen": Case("things", (*PAIR, "price"), overrides=FROZEN),
    "good": Case("things", (*PAIR, "price"), ("label", "value"), arguments={"quality": "good"}),
    "best": Case("things", ALL, ("large",), ("training.epochs=2",), {"quality": "best"}),
    "members": Case("things", ALL, overrides=MEMBERS),
    # alignment, texts and sounds as answers
    "alignment": Case("things", PAIR, (), arguments={"align": PAIR}),
    "alignment-and-target": Case("things", (*PAIR, "price"), arguments={"align": PAIR}),
    "transcription": Case("speech", ("sound",), ("said",), HEARD, fused=False),
    "generation": Case("things", ("photo", "price"), ("caption",), WRITTEN, fused=False),
    "speak": Case("speech", ("said",), ("sound",), SPOKEN, fused=False),
}  # fmt: skip
