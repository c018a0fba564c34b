"""Tiny pretrained models with random weights, saved to disk as Hugging Face has it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    HubertConfig,
    HubertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    SpeechT5Config,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5ForConditionalGeneration,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
    VitsConfig,
    VitsModel,
    VitsTokenizer,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from plait.pretrained.speech_embedding import SpeechEmbedding

WORDS = [
    "a",
    "red",
    "apple",
    "green",
    "tree",
    "the",
    "sky",
    "is",
    "blue",
    "there",
    "near",
    "house",
    "number",
    "cherry",
    "leaf",
]
LETTERS = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"] + list(
    "abcdefghijklmnopqrstuvwxyz0123456789"
)


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert(folder: Path, seed: int = 0, width: int = 32) -> Path:
    """An encoder of texts: mean of the tokens, unit length, at most 16 tokens."""
    torch.manual_seed(seed)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *LETTERS])]
    vocabulary += [f"[unused{i}]" for i in range(300 - len(vocabulary))]
    ids = {word: i for i, word in enumerate(vocabulary)}
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(
        pad_id=0, pad_token="[PAD]", length=16
    )  # as saved by many: undone when it is loaded
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]
        )
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return folder


def vit(folder: Path, seed: int = 0, pooling: bool = True) -> Path:
    torch.manual_seed(seed)
    ViTModel(
        ViTConfig(hidden_size=32, image_size=40, patch_size=8, **SMALL), add_pooling_layer=pooling
    ).save_pretrained(folder)
    preprocessor = {
        "size": {"height": 40, "width": 40},
        "do_normalize": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def resnet(folder: Path) -> Path:
    torch.manual_seed(0)
    ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ).save_pretrained(folder)
    preprocessor = {
        "size": {"shortest_edge": 48},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "do_normalize": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def clip(folder: Path) -> Path:
    """Two towers in one model."""
    torch.manual_seed(0)
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 300,
        "eos_token_id": 3,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": 32, "do_center_crop": True, "crop_size": 32})
    )
    return folder


def wav2vec2(folder: Path, seed: int = 0) -> Path:
    """A network of waves at 8 kHz, of two layers of convolutions that halve time five times each."""
    torch.manual_seed(seed)
    form = {
        "conv_dim": (8, 8),
        "conv_stride": (5, 4),
        "conv_kernel": (10, 8),
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4,
    }
    no_chance = {"layerdrop": 0.0, "mask_time_prob": 0.0}
    config = Wav2Vec2Config(hidden_size=32, num_conv_pos_embedding_groups=2, **form, **no_chance, **SMALL)
    Wav2Vec2Model(config).save_pretrained(folder)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 8000,
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def speech_embedding(folder: Path, seed: int = 0) -> Path:
    """The network of 330,000 numbers that reads windows of 0.8 s, with random ones."""
    torch.manual_seed(seed)
    network = SpeechEmbedding()
    network.bands_FM.copy_(network.fine_bands_FM[:, :32])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"network": "speech_embedding"}))
    return folder


def videomae(folder: Path) -> Path:
    torch.manual_seed(0)
    VideoMAEModel(
        VideoMAEConfig(hidden_size=32, image_size=32, patch_size=16, num_frames=4, **SMALL)
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 32, "width": 32}, "do_normalize": False})
    )
    return folder


def ctc(folder: Path, letters: str = "abcdefgh") -> Path:
    """A wav2vec 2.0 with a CTC head over a few letters."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({c: i for i, c in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *letters])})
    )
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True).save_pretrained(folder)
    shape = {
        "conv_dim": (8, 8),
        "conv_stride": (10, 16),
        "conv_kernel": (10, 16),
        "num_feat_extract_layers": 2,
        "hidden_size": 32,
    }
    shape["vocab_size"] = 5 + len(letters)
    config = Wav2Vec2Config(
        **shape,
        **SMALL,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def whisper(
    folder: Path, seed: int = 0, languages: tuple[str, ...] = (), seconds: int = 30, bands: int = 8
) -> Path:
    """Speech to text by generation, over pieces of words that begin with a blank.

    It knows one language or several, and reads so many seconds.
    """
    torch.manual_seed(seed)
    begin = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{name}|>" for name in languages),
        "<|transcribe|>",
        "<|notimestamps|>",
        "<|0.00|>",
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [("Ġ", letter) for letter in "abcdefgh"]
    words = [*alphabet, *("".join(pair) for pair in merged)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merged))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(begin)
    id_of = {name: tokenizer.token_to_id(name) for name in begin}
    end, start = id_of["<|endoftext|>"], id_of["<|startoftranscript|>"]
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds).save_pretrained(folder)
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    marks = {
        "pad_token_id": end,
        "eos_token_id": end,
        "bos_token_id": end,
        "decoder_start_token_id": start,
        "begin_suppress_tokens": None,
    }
    size = tokenizer.get_vocab_size()
    steps = {"max_source_positions": 50 * seconds, "max_target_positions": 24}
    config = WhisperConfig(vocab_size=size, num_mel_bins=bands, d_model=16, **steps, **layers, **marks)
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 12
    model.generation_config.no_timestamps_token_id = id_of["<|notimestamps|>"]
    if languages:
        model.generation_config.is_multilingual = True
        model.generation_config.lang_to_id = {f"<|{name}|>": id_of[f"<|{name}|>"] for name in languages}
        model.generation_config.task_to_id = {"transcribe": id_of["<|transcribe|>"]}
    model.save_pretrained(folder)
    return folder


def mpnet(folder: Path) -> Path:
    """An encoder of texts whose files do not describe a pooling."""
    torch.manual_seed(0)
    MPNetModel(MPNetConfig(vocab_size=300, hidden_size=32, **SMALL)).save_pretrained(folder)
    Tokenizer.from_file(str(bert(folder / "bert") / "tokenizer.json")).save(str(folder / "tokenizer.json"))
    return folder


def dinov2(folder: Path) -> Path:
    """A ViT of patches of 14 pixels, trained at another size than it is used at."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(hidden_size=32, image_size=70, patch_size=14, **sizes)).save_pretrained(folder)
    preprocessor = {
        "size": {"shortest_edge": 60},
        "crop_size": {"height": 56, "width": 56},
        "do_center_crop": True,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def siglip(folder: Path) -> Path:
    """Two towers; that of images pools by attention."""
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "image_size": 32, "patch_size": 8, **SMALL}
    text = {"hidden_size": 16, "vocab_size": 300, **SMALL}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    preprocessor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def clap(folder: Path, fused: bool = True) -> Path:
    """Two towers; that of audio reads ten seconds at 48 kHz, and joins views of long ones if `fused`."""
    torch.manual_seed(0)
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
        "num_hidden_layers": 2,
    }
    text = {"hidden_size": 16, "vocab_size": 300, **SMALL}
    config = ClapConfig(audio_config=audio, text_config=text, projection_dim=8)
    ClapModel(config).save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation).save_pretrained(folder)
    return folder


def hubert(folder: Path) -> Path:
    """A network of waves at 8 kHz."""
    torch.manual_seed(0)
    form = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    HubertModel(HubertConfig(hidden_size=32, **form, **positions, **SMALL)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """Text to text, over words and letters."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(bert(folder / "bert") / "tokenizer.json"))
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 4}
    marks = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(
        T5Config(vocab_size=300, **sizes, **marks, tie_word_embeddings=True)
    ).save_pretrained(folder)
    return folder


def vits(folder: Path, voices: int = 1) -> Path:
    """Reads letters aloud, at 16 kHz."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    letters = {c: i for i, c in enumerate([" ", *"abcdefghijklmnopqrstuvwxyz", "<pad>", "<unk>"])}
    (folder / "vocab.json").write_text(json.dumps(letters))
    VitsTokenizer(str(folder / "vocab.json"), phonemize=False).save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 16,
        "flow_size": 16,
        "spectrogram_bins": 9,
    }
    flows = {
        "prior_encoder_num_flows": 1,
        "posterior_encoder_num_wavenet_layers": 1,
        "prior_encoder_num_wavenet_layers": 1,
        "duration_predictor_num_flows": 1,
    }
    upsampling = {
        "upsample_initial_channel": 8,
        "upsample_rates": [8, 8],
        "upsample_kernel_sizes": [16, 16],
        "resblock_kernel_sizes": [3],
    }
    speakers = {"num_speakers": voices, "speaker_embedding_size": 4 if voices > 1 else 0}
    layers = {
        "resblock_dilation_sizes": [[1, 3]],
        "depth_separable_num_layers": 1,
        "duration_predictor_filter_channels": 16,
        "wavenet_dilation_rate": 1,
    }
    VitsModel(
        VitsConfig(vocab_size=len(letters), **sizes, **flows, **upsampling, **speakers, **layers)
    ).save_pretrained(folder)
    return folder


def speecht5(folder: Path) -> Path:
    """Reads letters aloud as spectra, with a vocoder in a folder beside it."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        models.WordLevel(
            {c: i for i, c in enumerate(["<pad>", "<s>", "</s>", "<unk>", *" abcdefghijklmnopqrstuvwxyz"])},
            unk_token="<unk>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_mel_bins": 8,
    }
    widths = {
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "speaker_embedding_dim": 6,
        "speech_decoder_prenet_units": 8,
        "speech_decoder_postnet_units": 8,
    }
    SpeechT5ForTextToSpeech(SpeechT5Config(vocab_size=31, **sizes, **widths)).save_pretrained(folder)
    upsampling = {
        "upsample_initial_channel": 8,
        "upsample_rates": [4, 4],
        "upsample_kernel_sizes": [8, 8],
        "resblock_kernel_sizes": [3],
    }
    form = SpeechT5HifiGanConfig(model_in_dim=8, resblock_dilation_sizes=[[1, 3]], **upsampling)
    SpeechT5HifiGan(form).save_pretrained(folder.with_name("vocoder"))
    return folder
