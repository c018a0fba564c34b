"""Images, texts, audio and video in one table: fit, predict any subset, load, lists, missing cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import plait
from plait.cli.main import run
from plait.modalities.base import modalities
from plait.table.table import Source
from support.answers import assert_same_answers
from support.media import clip, wav, wave
from support.tables import FAST, make_rows

QUICK = [
    *(o for o in FAST if "epochs" not in o),
    "training.epochs=12",
    "training.learning_rate=0.01",
    "modalities.audio.bands=16",
    "modalities.audio.hop=0.02",
    "encoders.audio={name: audio_cnn, channels: [4, 8], width: 8}",
    "modalities.video.size=16",
    "modalities.video.frames=4",
    "encoders.video={name: conv3d, channels: [4, 8]}",
]
TONES = {"red": 300, "green": 900, "blue": 2500}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """48 rows whose image, audio and video with sound say the label. A third of all cells are missing."""
    folder = tmp_path_factory.mktemp("media")
    rows, rng = make_rows(folder, 48), np.random.default_rng(0)
    for i, row in enumerate(rows):
        tone = wave(0.3, TONES[row["label"]], seed=i)
        (folder / f"{i}.wav").write_bytes(wav(tone))
        (folder / f"{i}.mp4").write_bytes(clip(6, sound=tone if i % 4 else None))
        row |= {"noise": f"{i}.wav", "film": f"{i}.mp4"}
        del row["text"], row["price"], row["shop"]
        for name in ("photo", "noise", "film"):
            if rng.random() < 0.33:
                row[name] = None
    return folder, rows


@pytest.fixture(scope="module")
def model(media: tuple[Path, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    folder, rows = media
    return plait.fit(
        rows, "label", root=folder, out=tmp_path_factory.mktemp("run") / "run", overrides=QUICK, quiet=True
    )


def test_every_column_is_recognised_and_videos_give_sound(model: plait.Model) -> None:
    assert {c.name: c.modality for c in model.schema if c.role == "input"} == {
        "photo": "image",
        "noise": "audio",
        "film": "video",
        "film.sound": "audio",
    }
    assert "videos looked at have audio" in model.schema["film.sound"].reason


def test_it_learns_and_predicts_any_subset(
    media: tuple[Path, list[dict[str, Any]]], model: plait.Model
) -> None:
    folder, rows = media
    with_both = [row for row in rows if row["photo"] and row["noise"]]
    labels = np.array([row["label"] for row in with_both])
    for names in (("photo", "noise", "film"), ("photo",), ("noise",)):
        subset = pa.table({name: [row[name] for row in with_both] for name in names})
        answers = model.predict(subset, root=folder)["label"].to_numpy(zero_copy_only=False)
        assert np.mean(answers == labels) > 0.6, names
    assert model.predict({"film": None, "photo": None}, root=folder).num_rows == 1


def test_absent_columns_are_warned_of_once(
    media: tuple[Path, list[dict[str, Any]]], model: plait.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = media
    plait.load(model.folder).predict([{"photo": row["photo"]} for row in rows], root=folder)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.endswith("2 inputs are not in the table, treated as missing in every row: 'noise', 'film'")


def test_a_loaded_model_answers_the_same(
    media: tuple[Path, list[dict[str, Any]]], model: plait.Model
) -> None:
    folder, rows = media
    expected = model.predict(rows, root=folder)
    loaded = plait.load(model.folder, quiet=True)
    assert_same_answers(loaded.predict(rows, root=folder), expected)
    assert expected["problem"].null_count == len(rows)


def test_every_subset_is_evaluated(model: plait.Model) -> None:
    scores = model.record["evaluation"]["validation"]["targets"]["label"]
    assert len(scores["subsets"]) == 14


@pytest.mark.parametrize(
    "encoder", ["{name: per_frame, time: attention, width: 8}", "{name: per_frame, time: mean}", "per_frame"]
)
def test_encoders_of_frames_train(
    media: tuple[Path, list[dict[str, Any]]], tmp_path: Path, encoder: str
) -> None:
    folder, rows = media
    options = [
        *QUICK,
        "training.epochs=1",
        f"encoders.video={encoder}",
        "encoders.audio={name: crnn, channels: [4], width: 4}",
    ]
    ignored = {"photo": "ignored", "film.sound": "ignored"}
    fitted = plait.fit(
        rows, "label", root=folder, out=tmp_path / "run", overrides=options, columns=ignored, quiet=True
    )
    assert fitted.inputs == ["noise", "film"]


def test_the_sound_of_videos_by_itself(media: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rows = media
    columns = {"photo": "ignored", "noise": "ignored", "film": "ignored", "film.sound": "audio"}
    fitted = plait.fit(
        rows,
        "label",
        root=folder,
        out=tmp_path / "run",
        overrides=[*QUICK, "training.epochs=1"],
        columns=columns,
        quiet=True,
    )
    assert fitted.inputs == ["film.sound"]
    assert fitted.predict({"film": rows[1]["film"]}, root=folder).num_rows == 1


def test_several_recordings_in_a_cell_in_any_order(
    media: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = media
    names = [f"{i}.wav" for i in range(48)]
    lists = [
        {"noises": [names[(i + 3 * k) % 48] for k in range(i % 3 + 1)], "label": row["label"]}
        for i, row in enumerate(rows)
    ]
    options = [o for o in QUICK if "photo" not in o]
    fitted = plait.fit(lists, "label", root=folder, out=tmp_path / "run", overrides=options, quiet=True)
    assert any("attention" in name for name in fitted.artifact.model.state_dict())

    def probability(rows: Any) -> np.ndarray:
        answers: pa.Table = fitted.predict(rows, root=folder)
        return answers["label_probability_red"].to_numpy()

    reversed_rows = [{**row, "noises": row["noises"][::-1]} for row in lists]
    assert np.allclose(probability(lists), probability(reversed_rows), atol=1e-4)
    name, list_of_one = pa.table({"noises": [names[0]]}), pa.table({"noises": [[names[0]]]})
    assert np.allclose(probability(name), probability(list_of_one), atol=1e-4)


def test_windows_of_long_audio(media: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rows = media
    columns = {"photo": "ignored", "film": "ignored", "film.sound": "ignored"}
    options = [*QUICK, "training.epochs=1", "modalities.audio.seconds=0.1", "modalities.audio.view=windows"]
    fitted = plait.fit(
        rows, "label", root=folder, out=tmp_path / "run", overrides=options, columns=columns, quiet=True
    )
    assert fitted.predict(rows, root=folder).num_rows == 48


def test_inspect_reads_the_cells(
    media: tuple[Path, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = media
    broken = [dict(row) for row in rows]
    (folder / "short.wav").write_bytes(wav(wave(0.3))[:2000])
    broken[4]["noise"] = "short.wav"
    inspection = plait.inspect(broken, "label", root=folder)
    assert [(p.row, p.column) for p in inspection.problems] == [(4, "noise")]
    assert "cut short" in inspection.problems[0].reason
    inspection.show()
    assert "1 cell cannot be read" in capsys.readouterr().out
    assert plait.inspect(broken, "label", root=folder, probe=False).problems == []


def test_the_command_line_shows_and_clears_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    plait.inspect(make_rows(tmp_path, 20), root=tmp_path)
    assert run(["cache"]) == 0
    assert "20 prepared cells" in capsys.readouterr().out
    assert run(["cache", "--clear"]) == 0
    assert "0 prepared cells" in capsys.readouterr().out
    monkeypatch.setenv("PLAIT_CACHE_LIMIT", "much")
    assert run(["cache"]) == 1
    assert "expected a number of gigabytes" in capsys.readouterr().err


def test_a_silent_video_is_no_problem_if_frames_are_cached(
    media: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames come from the cache, so nothing has opened the video when its sound is asked for."""
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    columns = {"photo": "ignored", "noise": "ignored", "film.sound": "ignored"}
    plait.fit(
        media[1],
        "label",
        root=media[0],
        columns=columns,
        overrides=[*QUICK, "training.epochs=1"],
        out=tmp_path / "frames",
        quiet=True,
    )
    del columns["film.sound"]
    both = plait.fit(
        media[1],
        "label",
        root=media[0],
        columns=columns,
        overrides=[*QUICK, "training.epochs=1"],
        out=tmp_path / "both",
        quiet=True,
    )
    assert both.inputs == ["film", "film.sound"]
    assert "no audio" not in (tmp_path / "both" / "problems.csv").read_text()


def test_a_file_without_sound_in_an_audio_column_is_named(
    media: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "silent.mp4").write_bytes(clip(4))
    loaded = modalities.find("audio")(modalities.configure("audio", {})).load(
        pa.chunked_array([["silent.mp4"]]), Source("noise", tmp_path)
    )
    assert [p.reason for p in loaded.problems] == ["no audio in it"]


@pytest.mark.parametrize("view", ["windows", "whole"])
def test_linear_models_see_recordings_in_windows(
    view: str, media: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = media
    columns = {"photo": "ignored", "film": "ignored", "film.sound": "ignored"}
    overrides = [
        *QUICK,
        "training.epochs=1",
        f"modalities.audio.view={view}",
        "modalities.audio.seconds=0.1",
        "ensemble.members.linear=linear",
    ]
    model = plait.fit(
        rows,
        "label",
        root=folder,
        columns=columns,
        overrides=[*overrides, "ensemble.folds=2"],
        out=tmp_path / "run",
        quiet=True,
    )
    assert len(model.predict(rows, folder)) == len(rows)
