"""The speech embedding: windows, padding, its ONNX files, and what ONNX Runtime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plait.errors import RecipeError
from plait.pretrained import files, speech_embedding
from plait.pretrained.network import Network
from plait.pretrained.speech_embedding import SHORTEST, SUMMARY, SpeechEmbedding, read_onnx
from support import tiny_models

RATE = 16_000


@pytest.fixture
def network(tmp_path: Path) -> SpeechEmbedding:
    """A network with random weights."""
    return loaded(tiny_models.speech_embedding(tmp_path / "network"))


def loaded(folder: Path) -> Any:
    architecture = files.read_json(folder, "config.json")
    return Network(str(folder), files.identity(folder), architecture, "").on(torch.device("cpu"))


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def batch(*recordings: Tensor) -> tuple[Tensor, Tensor]:
    """Return recordings as a batch, with anything but zeros behind their ends."""
    length_B = torch.tensor([len(recording) for recording in recordings])
    wave_BS = torch.full((len(recordings), int(length_B.max())), 0.7)
    for row, recording in enumerate(recordings):
        wave_BS[row, : len(recording)] = recording
    return wave_BS, length_B


def test_it_has_as_many_numbers_as_published(network: SpeechEmbedding) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 328_152


def test_all_windows_at_once_are_what_each_is_alone(network: SpeechEmbedding) -> None:
    """A window has 76 spectra, and the next one begins 8 spectra later."""
    level_BTM = torch.randn(2, 76 + 5 * 8 + 3, 32)
    with torch.inference_mode():
        together = network.windows(level_BTM)
        single = [network.windows(level_BTM[:, 8 * number : 8 * number + 76]) for number in range(6)]
    assert together.shape == (2, 6, 96)
    torch.testing.assert_close(together, torch.cat(single, 1), atol=1e-5, rtol=1e-4)


def test_a_recording_is_encoded_as_among_others(network: SpeechEmbedding) -> None:
    recordings = [noise(3 * RATE, 1), noise(1000, 2), noise(RATE, 3), noise(100, 4)]
    with torch.inference_mode():
        among = network(*batch(*recordings))
        assert among.length_B.tolist() == [28, 1, 3, 1]
        for row, recording in enumerate(recordings):
            alone = network(*batch(recording))
            count = int(alone.length_B[0])
            torch.testing.assert_close(among.last_hidden_state[row, :count], alone.last_hidden_state[0])
            torch.testing.assert_close(among.pooler_output[row], alone.pooler_output[0])


def test_many_long_recordings_are_encoded_in_turns(
    network: SpeechEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = batch(noise(2 * RATE, 1), noise(RATE, 2), noise(500, 3))
    with torch.inference_mode():
        together = network(*values)
        monkeypatch.setattr(speech_embedding, "TOGETHER", 1)
        in_turns = network(*values)
    torch.testing.assert_close(in_turns.last_hidden_state, together.last_hidden_state)
    torch.testing.assert_close(in_turns.pooler_output, together.pooler_output)


def test_short_recordings_are_repeated(network: SpeechEmbedding) -> None:
    short = noise(2000)
    repeated = short.repeat(7)[:SHORTEST]
    with torch.inference_mode():
        vectors = network(*batch(short, repeated)).last_hidden_state
    torch.testing.assert_close(vectors[0, 0], vectors[1, 0])


def test_a_summary_tells_levels_and_seconds(network: SpeechEmbedding) -> None:
    loud, long = noise(RATE), noise(4 * RATE)
    with torch.inference_mode():
        summary = network(*batch(loud, loud / 10, long)).pooler_output
    assert summary.shape == (3, SUMMARY)

    # A tenth of the size is two powers of ten less, in every band alike.
    levels = summary[:, 192:384]
    torch.testing.assert_close(levels[0] - levels[1], torch.full((192,), 1.0), atol=1e-3, rtol=0)
    assert (levels[:, :64] < levels[:, 64:128]).all(), "a tenth of the spectra are below, a half are"
    torch.testing.assert_close(summary[2, -1] - summary[0, -1], torch.tensor(4.0).log())


def test_silence_and_clipping_give_finite_numbers(network: SpeechEmbedding) -> None:
    silence, clipped = torch.zeros(RATE), noise(RATE).sign()
    with torch.inference_mode():
        output = network(*batch(silence, clipped, noise(1)))
    assert torch.isfinite(output.last_hidden_state).all()
    assert torch.isfinite(output.pooler_output).all()


def write_onnx(folder: Path, network: SpeechEmbedding, **changed: Tensor | None) -> Path:
    """Write the network's tensors as the package has them: by TensorFlow's names, in two files."""
    onnx = pytest.importorskip("onnx")
    fourier_FS = torch.fft.rfft(torch.diag(network.window)).T
    spectra = zip(speech_embedding.SPECTRUM_WEIGHTS, (fourier_FS.real, fourier_FS.imag), strict=True)
    tensors: dict[str, Tensor | None] = {name: weights_FS[:, None] for name, weights_FS in spectra}
    state = network.state_dict()
    for name, onnx_name in speech_embedding.onnx_names().items():
        tensors[onnx_name] = state[name]
    tensors |= changed

    for name, is_mel in (("embedding_model.onnx", False), ("melspectrogram.onnx", True)):
        initializers = []
        for key, tensor in tensors.items():
            if tensor is not None and key.startswith(("0.", "1.")) == is_mel:
                array = tensor.contiguous().numpy()
                initializers.append(onnx.numpy_helper.from_array(array, key))
        graph = onnx.helper.make_graph([], name, [], [], initializers)
        onnx.save(onnx.helper.make_model(graph), folder / name)
    return folder / "embedding_model.onnx"


def test_the_tensors_of_the_onnx_files_are_read(network: SpeechEmbedding, tmp_path: Path) -> None:
    tensors = read_onnx(write_onnx(tmp_path, network))
    expected = network.state_dict()
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (speech_embedding.LAST, None, "Conv2D/ReadVariableOp:0 is missing"),
        (
            speech_embedding.LAST,
            torch.zeros(96, 96, 1, 1),
            r"shape \(96, 96, 1, 1\), expected \(96, 96, 3",
        ),
        (speech_embedding.SPECTRUM_WEIGHTS[0], torch.zeros(257, 1, 512), "another window"),
        (speech_embedding.SPECTRUM_WEIGHTS[1], None, "is missing"),
    ],
)
def test_other_onnx_files_are_refused(
    name: str, tensor: Tensor | None, message: str, network: SpeechEmbedding, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_onnx(write_onnx(tmp_path, network, **{name: tensor}))


def test_a_damaged_onnx_file_is_refused(network: SpeechEmbedding, tmp_path: Path) -> None:
    file = write_onnx(tmp_path, network)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"is no ONNX file|is missing"):
        read_onnx(file)


def test_without_onnx_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(RecipeError, match="pip install onnx"):
        read_onnx(tmp_path / "embedding_model.onnx")


def recordings_with_edge_cases() -> dict[str, np.ndarray]:
    """Samples of 16 bits."""
    rng = np.random.default_rng(0)
    fading = np.linspace(0, 1, 20 * RATE)
    recordings = {
        "noise": rng.normal(0, 0.1, 3 * RATE),
        "silence": np.zeros(RATE),
        "clipped": np.sign(rng.normal(size=RATE)),
        "tone": 0.5 * np.sin(np.arange(RATE) * 0.1),
        "quietest": rng.integers(-1, 2, RATE) / 32768,
        "long": rng.normal(0, 0.1, 20 * RATE) * fading,
        "shortest": rng.normal(0, 0.1, SHORTEST),
    }
    for name, wave in recordings.items():
        recordings[name] = np.clip(wave * 32768, -32768, 32767).astype(np.int16)
    return recordings


@pytest.mark.parametrize("name", recordings_with_edge_cases())
def test_the_vectors_are_those_of_onnx_runtime(name: str) -> None:
    """The same up to rounding, 1e-4 of the largest number, on samples of 16 bits."""
    runtime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime, which is not installed")
    if not files.present("speech_embedding"):
        pytest.skip("the package openwakeword or the package onnx is not installed")
    samples = recordings_with_edge_cases()[name].astype(np.float32)

    package = Path(files.package_file("speech_embedding"))
    mel = runtime.InferenceSession(str(package.with_name("melspectrogram.onnx")))
    level_TM = mel.run(None, {"input": samples[None]})[0].squeeze() / 10 + 2
    starts = range(0, len(level_TM) - 75, 8)
    windows_LTM1 = np.stack([level_TM[start : start + 76] for start in starts])[..., None]
    embedding = runtime.InferenceSession(str(package))
    expected = embedding.run(None, {"input_1": windows_LTM1})[0][:, 0, 0]

    network = loaded(files.find("speech_embedding"))
    with torch.inference_mode():
        vectors = network(*batch(torch.from_numpy(samples / 32768))).last_hidden_state[0].numpy()
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-4 * np.abs(expected).max()
