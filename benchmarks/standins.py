"""Make small tables and networks, from a seed, that stand in for real ones in quick runs.

They have the form of the real ones, and nothing can be learned from most of them.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import soundfile
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from measure import cache_folder
from plait.pretrained.files import PACKAGED
from plait.pretrained.speech_embedding import SpeechEmbedding
from plait.samples import clips as real_clips
from plait.samples import prompts as real_prompts
from plait.table.write import write

COLOURS = {"animals": (220, 60, 60), "food": (60, 200, 60)}  # the two classes of every sample
WORDS = {"animals": "cat dog cow hen", "food": "bread apple soup cake"}
SIDES = ("train", "train", "train", "valid", "test")  # dealt in turn
RATE = 8000


def write_samples(*names: str) -> None:
    """Write stand-ins of these samples of `plait.samples` where `sample_table` looks for them."""
    for name in names:
        folder = cache_folder() / "samples" / name
        folder.mkdir(parents=True, exist_ok=True)
        SAMPLES[name](folder)


def stamps(folder: Path) -> None:
    """Write files as Debian's package has them, from which `plait.samples.stamps` makes its table."""
    rng = np.random.default_rng(0)
    files = folder / "usr" / "share" / "tuxpaint" / "stamps"
    for label in COLOURS:
        (files / label).mkdir(parents=True)
        for number in range(32):
            stem = files / label / f"{'cartoon' if number % 4 == 0 else ''}{_letters(number)}"
            sentence = f"A {rng.choice(WORDS[label].split())} named {_letters(number)}."
            translations = [f"{language}.utf8=Un {label}." for language in ("fr", "es")[: 1 + number % 2]]
            stem.with_suffix(".txt").write_text("\n".join([sentence, *translations]), encoding="utf-8")
            _image(stem.with_suffix(".png"), label, rng)
            _sound(stem.with_name(f"{stem.name}_desc_fr.wav"), number, rng)
            if number % 3 == 0:
                _sound(stem.with_suffix(".wav"), number, rng)
            if number % 3 == 1:
                _sound(stem.with_name(f"{stem.name}_desc_de.wav"), number + 1, rng)


def emoji(folder: Path) -> None:
    """Write the table of emoji: two vendors, English, French and Chinese names."""
    rng = np.random.default_rng(1)
    rows = []
    for vendor in ("google", "openmoji"):
        (folder / vendor).mkdir()
        for number in range(30):
            label = list(COLOURS)[number % 2]
            path = folder / vendor / f"{number}.png"
            _image(path, label, rng)
            name = f"{WORDS[label].split()[number % 4]} {_letters(number)}"
            row = {"emoji": str(number), "vendor": vendor, "picture": f"{vendor}/{path.name}", "name": name}
            row |= {
                "name_fr": f"le {name}",
                "name_zh": f"字 {name}",
                "tags": f"{label}, thing",
                "group": label,
            }
            row["split"] = SIDES[number // 2 % 5]
            row["vendor_split"] = "test" if vendor == "openmoji" else "train"
            rows.append(row)
    write(pa.Table.from_pylist(rows), folder / "emoji-names.csv")


def prompts(folder: Path) -> None:
    """Write files as Debian's packages have them, and the table that `plait.samples.prompts` makes."""
    rng = np.random.default_rng(2)
    digits = {
        "digits/1": "one",
        "digits/2": "two",
        "digits/3": "three",
        "digits/4": "four",
        "digits/5": "five",
    }
    keys = digits | {f"vm-{_letters(number)}": f"press {_letters(number)} now" for number in range(14)}
    for language in real_prompts.READERS:
        about = folder / "usr" / "share" / "doc" / f"asterisk-core-sounds-{language}"
        about.mkdir(parents=True)
        lines = "\n".join(f"{key}: {text}" for key, text in keys.items())
        (about / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(lines.encode()))
    readers = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
    for reader in (*readers, real_prompts.SECOND_FOLDER):
        for number, key in enumerate(keys):
            path = folder / "usr" / "share" / "asterisk" / "sounds" / reader / f"{key}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            _sound(path, number, rng, seconds=1.0)  # its text needs a step for each letter
    write(pa.Table.from_pylist(real_prompts.build(folder)), folder / "prompts-languages.csv")


def clips(folder: Path) -> None:
    """Write the table of moving stamps: videos of five frames, most of them with a caption."""
    rng = np.random.default_rng(3)
    motions = list(real_clips.WORDS)[:2]
    (folder / "clips").mkdir()
    rows = []
    for number in range(40):
        label, motion = list(COLOURS)[number % 2], motions[number // 2 % 2]
        name = f"clips/{number:04d}.mp4"
        _video(folder / name, label, 1 if motion == motions[1] else -1, rng)
        caption = f"a {WORDS[label].split()[number % 4]} {real_clips.WORDS[motion]}, fast"
        row = {"clip": name, "caption": "" if number % 5 == 4 else caption, "motion": motion}
        rows.append({**row, "category": label, "split": SIDES[number // 4 % 5]})
    write(pa.Table.from_pylist(rows), folder / "clips.csv")


SAMPLES = {"stamps": stamps, "emoji": emoji, "prompts": prompts, "clips": clips}


def bits(folder: Path) -> Path:
    """Write the two tables that `bits.py` reads, with an image, a text and a sound in each row."""
    rng = np.random.default_rng(4)
    rows = []
    for number in range(60):
        label = list(COLOURS)[number % 2]
        row = {"image": _image(folder / f"{number}.png", label, rng), "text": f"a {WORDS[label].split()[0]}"}
        row["audio"] = _sound(folder / f"{number}.wav", number % 2, rng)
        row |= {"number": str(rng.normal()), "category": str(rng.choice(["a", "b", "c"]))}
        rows.append(
            {**row, "label": label, "label4": label, "y": str(rng.normal()), "split": SIDES[number % 5]}
        )
    write(pa.Table.from_pylist(rows), folder / "all.clean.csv")

    for row in rows:
        for column in ("image", "text", "audio", "number", "category"):
            if rng.random() < 0.3:
                row[column] = ""
    write(pa.Table.from_pylist(rows), folder / "all.missing30.csv")
    return folder


def plain_tables(folder: Path) -> Path:
    """Write two CSV files as R's example data has them: rows are numbered in a column without a name."""
    rng = np.random.default_rng(5)
    for name, target in (("classes", rng.choice(["yes", "no"], 160)), ("amounts", rng.normal(size=160))):
        lines = [",height,weight,kind,target"]
        for number, answer in enumerate(target):
            cells = (number + 1, rng.normal(), rng.normal() if number % 9 else "", rng.choice(["a", "b"]))
            lines.append(",".join(map(str, (*cells, answer))))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def pretrained_networks() -> None:
    """Put tiny networks with random weights before the packages of `plait.pretrained` on Python's path.

    Processes that are started later see them as well.
    """
    packages = cache_folder() / "packages"
    for packaged in PACKAGED.values():
        folder = packages / packaged.package / packaged.path
        folder.mkdir(parents=True)
        (packages / packaged.package / "__init__.py").touch()
        if packaged.modalities == ("text",):
            text_network(folder)
        elif packaged.modalities == ("audio",):
            sound_network(folder)
        else:
            image_network(folder)
    sys.path.insert(0, str(packages))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])


transformers.utils.logging.disable_progress_bar()
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def image_network(folder: Path) -> Path:
    """Save a ViT of 32 pixels as Hugging Face has it."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, image_size=32, patch_size=16, **SMALL)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    about = {"size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def sound_network(folder: Path) -> Path:
    """Save a speech embedding as plait has it."""
    torch.manual_seed(0)
    save_file(SpeechEmbedding().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"network": "speech_embedding"}))
    return folder


def text_network(folder: Path) -> Path:
    """Save a BERT that reads letters as Hugging Face has it."""
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    config = BertConfig(vocab_size=len(ids), hidden_size=16, max_position_embeddings=64, **SMALL)
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def whisper(folder: Path) -> Path:
    """Save a Whisper of width 64 as CTranslate2 has it: config.json, model.bin, tokenizer.json."""
    folder.mkdir(parents=True)
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [], "suppress_ids_begin": []}))

    rng = np.random.default_rng(6)
    with (folder / "model.bin").open("wb") as file:
        tensors = _whisper_shapes(64, tokenizer.get_vocab_size())
        file.write(struct.pack("<I", 6) + _packed("WhisperSpec") + struct.pack("<II", 3, len(tensors)))
        for name, shape in tensors.items():
            array = (0.05 * rng.normal(size=shape)).astype(np.float32)
            file.write(_packed(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape))
            file.write(struct.pack("<BI", 0, array.nbytes) + array.tobytes())  # 0 stands for float32
    return folder


def _whisper_shapes(width: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """List the tensors of four layers on each side, by CTranslate2's names."""
    shapes: dict[str, tuple[int, ...]] = {"decoder/embeddings/weight": (vocabulary, width)}
    for name, channels in (("conv1", 80), ("conv2", width)):
        shapes |= {f"encoder/{name}/weight": (width, channels, 3), f"encoder/{name}/bias": (width,)}
    for side, steps in (("encoder", 1500), ("decoder", 448)):
        norms = [f"{side}/layer_norm"]
        linears = {}
        for number in range(4):
            layer = f"{side}/layer_{number}"
            linears |= {f"{layer}/self_attention/linear_0": (3 * width, width)}
            linears |= {f"{layer}/self_attention/linear_1": (width, width)}
            linears |= {
                f"{layer}/ffn/linear_0": (4 * width, width),
                f"{layer}/ffn/linear_1": (width, 4 * width),
            }
            norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
            if side == "decoder":
                linears |= {f"{layer}/attention/linear_0": (width, width)}
                linears |= {f"{layer}/attention/linear_1": (2 * width, width)}
                linears |= {f"{layer}/attention/linear_2": (width, width)}
                norms.append(f"{layer}/attention/layer_norm")
        for name, shape in linears.items():
            shapes |= {f"{name}/weight": shape, f"{name}/bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}/gamma": (width,), f"{name}/beta": (width,)}
        shapes[f"{side}/position_encodings/encodings"] = (steps, width)
    return shapes


def _packed(text: str) -> bytes:
    """Pack a string as CTranslate2 does: its length, its characters, and a zero."""
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _letters(number: int) -> str:
    """Write a number in letters, for names that differ in more than digits."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:02d}")


def _image(path: Path, label: str, rng: np.random.Generator) -> str:
    pixels = np.array(COLOURS[label]) + rng.normal(0, 40, (32, 32, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path.name


def _sound(path: Path, number: int, rng: np.random.Generator, seconds: float = 0.2) -> str:
    """Write a tone, higher for higher numbers."""
    steps = np.arange(int(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (300 + 100 * number) * steps) + 0.01 * rng.normal(size=len(steps))
    soundfile.write(path, wave, RATE)
    return path.name


def _video(path: Path, label: str, direction: int, rng: np.random.Generator) -> None:
    """Write five frames, in which a square moves to the left (-1) or to the right (1)."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        for step in range(5):
            pixels = rng.normal(128, 3, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            left = 16 + direction * 3 * step
            pixels[16:32, left : left + 16] = COLOURS[label]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
