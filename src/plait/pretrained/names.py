"""Short names of models on the hub, and what to know before one is fetched.

All have safetensors. Sizes, licences and revisions are those of the models' pages on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGES = ("image", "video")


@dataclass(frozen=True)
class Named:
    """A model on the hub. It reads columns of `modalities`.

    `prefix` stands before every text, as in the model's training. `revision` is where its safetensors are.
    """

    hub: str
    modalities: tuple[str, ...]
    megabytes: int
    licence: str
    good_for: str
    prefix: str = ""
    revision: str = "main"


NAMED = {
    "e5_small": Named(
        "intfloat/e5-small-v2", ("text",), 133, "MIT", "English texts; ranks close meanings", prefix="query: "
    ),
    "multilingual": Named(
        "intfloat/multilingual-e5-small", ("text",), 471, "MIT", "texts in 100 languages", prefix="query: "
    ),
    "bge_small": Named("BAAI/bge-small-en-v1.5", ("text",), 133, "MIT", "English texts"),
    "mpnet": Named(
        "sentence-transformers/all-mpnet-base-v2",
        ("text",),
        438,
        "Apache-2.0",
        "English texts; larger than minilm",
    ),
    "dino": Named(
        "facebook/dinov2-small", IMAGES, 88, "Apache-2.0", "images of any kind, shapes and textures"
    ),
    "siglip": Named(
        "google/siglip-base-patch16-224", IMAGES, 813, "Apache-2.0", "images that a caption could describe"
    ),
    "clap": Named(
        "laion/clap-htsat-fused",
        ("audio",),
        614,
        "Apache-2.0",
        "noises, animals, music",
        revision="refs/pr/3",
    ),
    "wav2vec2": Named("facebook/wav2vec2-base-960h", ("audio",), 378, "Apache-2.0", "English speech"),
    "hubert": Named(
        "facebook/hubert-base-ls960", ("audio",), 378, "Apache-2.0", "English speech", revision="refs/pr/2"
    ),
    "whisper_tiny": Named("openai/whisper-tiny", ("audio",), 151, "Apache-2.0", "speech in 99 languages"),
    "videomae": Named(
        "MCG-NJU/videomae-base",
        ("video",),
        377,
        "CC-BY-NC-4.0: no commercial use",
        "what people do in videos",
    ),
}


def named(model: str) -> Named | None:
    """Return what is known of a model by its short name, or by its name on the hub."""
    for name, entry in NAMED.items():
        if model in (name, entry.hub):
            return entry
    return None
