"""Find out which input a pretrained network expects, and how its vectors are pooled: its files say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from plait.errors import RecipeError
from plait.pretrained import files as weights
from plait.pretrained.files import Architecture
from plait.pretrained.network import own, takes_all_frames
from plait.pretrained.speech_embedding import RATE
from plait.table.json import JSON

LONGEST = 512  # tokens of a text, if the model's files do not say
LONGEST_SOUND = 30.0  # seconds that the speech embedding reads of a recording

# Types that take waves.
OF_WAVES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
    "sew",
    "sew-d",
    "wav2vec2-conformer",
)

# Types that take mel spectrograms as `audio` makes them.
OF_SPECTRA = ("whisper", "clap")


@contextmanager
def reading(model: str) -> Iterator[None]:
    """Raise `RecipeError` if an entry of the model's JSON files is not of the kind that is expected."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RecipeError(
            f"a JSON file of '{model}', in {weights.find(model)}, has an entry that cannot be used: {error}; "
            f"save or copy the model again"
        ) from error


def pooling(folder: Path, architecture: Architecture, modality: str) -> str:
    """Return the pooling that a model's files describe: `mean`, `cls` or `pooler`."""
    if "network" in architecture:
        return "pooler" if own(architecture).pooled else "mean"
    if modality == "text":
        description = weights.read_json(folder, "1_Pooling/config.json")
        if not description and "text_config" in architecture:
            return "pooler"  # of two towers, the one of texts ends with the vector of the text's end
        return "cls" if description.get("pooling_mode_cls_token") else "mean"
    if architecture.get("model_type") == "clap":
        return "pooler"
    if modality == "audio" or takes_all_frames(architecture):
        return "mean"

    # Swin and SigLIP have no first token and pool by themselves.
    vision = architecture.get("vision_config", architecture)
    model_type = str(vision.get("model_type", ""))
    if "window_size" in vision or model_type.startswith("siglip"):
        return "pooler"

    # Transformers over patches have a first token. Convolutions give a grid.
    has_patches = "patch_size" in vision and "num_attention_heads" in vision
    return "cls" if has_patches else "mean"


def longest_text(folder: Path, architecture: Architecture) -> int:
    """Return how many tokens a network of texts reads at once, its marks included."""
    description = weights.read_json(folder, "sentence_bert_config.json")
    longest = description.get("max_seq_length")
    if longest:
        return int(longest)
    positions = int(architecture.get("max_position_embeddings", LONGEST))
    return min(positions, LONGEST)


def asked(model: str, architecture: Architecture, modality: str) -> JSON:
    """Return the modality's options that give a network the input it was trained on.

    They come from the model's files. Raises `RecipeError` if the network cannot read a column of audio.
    """
    folder = weights.find(model)
    if modality == "text":
        longest = longest_text(folder, architecture)
        return {"split": "pretrained", "tokenizer": model, "max_tokens": longest}

    preprocessor = weights.read_json(folder, "preprocessor_config.json")
    if modality == "audio":
        return _audio_options(model, preprocessor, architecture)
    options = _image_options(preprocessor)
    if modality == "video" and "num_frames" in architecture:
        options["frames"] = int(architecture["num_frames"])
    return options


def _audio_options(model: str, preprocessor: Architecture, architecture: Architecture) -> JSON:
    """Return the `preprocessor_config.json` of a network that reads audio as options of `audio`."""
    if "network" in architecture:
        # All of a recording is read at once: a window of the network is not a part of the column's.
        return {
            "form": "wave",
            "rate": RATE,
            "unit": False,
            "seconds": LONGEST_SOUND,
            "longest": LONGEST_SOUND,
            "view": "centre",
        }
    kind = architecture.get("model_type")
    if kind == "clap":
        return _clap_options(preprocessor)
    if kind in OF_SPECTRA:
        return _spectrogram_options(preprocessor, architecture)
    if kind not in OF_WAVES:
        kinds = ", ".join((*OF_WAVES, *OF_SPECTRA))
        raise RecipeError(f"'{model}' is a '{kind}'; for audio expected one of {kinds}")
    return {
        "form": "wave",
        "rate": int(preprocessor.get("sampling_rate", 16_000)),
        "unit": bool(preprocessor.get("do_normalize", True)),
    }


def _spectrogram_options(preprocessor: Architecture, architecture: Architecture) -> JSON:
    """Return the options of `audio` for a network of spectra. It reads recordings up to its longest input.

    Whisper's files are the pattern: what they lack has Whisper's value.
    """
    rate = int(preprocessor.get("sampling_rate", 16_000))
    window = int(preprocessor.get("n_fft", 400)) / rate
    hop = int(preprocessor.get("hop_length", 160)) / rate
    steps = 2 * int(architecture.get("max_source_positions", 1500))
    seconds = steps * hop
    return {
        "rate": rate,
        "window": window,
        "hop": hop,
        "bands": int(architecture.get("num_mel_bins", 80)),
        "lowest": 0.0,
        "highest": rate / 2,
        "view": "centre",
        "seconds": seconds,
        "longest": seconds,
    }


def _clap_options(preprocessor: Architecture) -> JSON:
    """Return the options of `audio` for CLAP. What its files lack has the value of its first version."""
    rate = int(preprocessor.get("sampling_rate", 48_000))
    seconds = float(preprocessor.get("max_length_s", 10))
    return {
        "rate": rate,
        "window": int(preprocessor.get("fft_window_size", 1024)) / rate,
        "hop": int(preprocessor.get("hop_length", 480)) / rate,
        "bands": int(preprocessor.get("feature_size", 64)),
        "lowest": float(preprocessor.get("frequency_min", 0)),
        "highest": float(preprocessor.get("frequency_max", 14_000)),
        "scale": "htk" if preprocessor.get("truncation", "fusion") == "fusion" else "slaney",
        "view": "centre",
        "seconds": seconds + 0.01,
        "longest": seconds,
    }


def _image_options(preprocessor: Architecture) -> JSON:
    """Return the size, framing and colours of a `preprocessor_config.json` as options of `image`."""
    crops = preprocessor.get("do_center_crop")
    size = preprocessor.get("crop_size" if crops else "size")
    if size is None:
        size = 224

    mean, std = 0.0, 1.0
    if preprocessor.get("do_normalize", True):
        mean = preprocessor.get("image_mean", [0.5] * 3)
        std = preprocessor.get("image_std", [0.5] * 3)

    names_shortest_edge = isinstance(size, dict) and "shortest_edge" in size
    fit = "stretch"
    if preprocessor.get("do_pad"):
        fit = "pad"
    elif crops or names_shortest_edge:
        fit = "crop"
    return {"size": _side(size), "fit": fit, "mean": mean, "std": std}


def _side(size: int | Mapping[str, int]) -> int:
    """Return the pixels of a side. Files give the size as a number, or by its edges."""
    if isinstance(size, int):
        return size
    side = size.get("height") or size.get("shortest_edge") or 224
    return int(side)
