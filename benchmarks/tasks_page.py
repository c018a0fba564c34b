"""Format the page of tasks.py from its scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from measure import interval, table

CAPTIONED = ("motion", "object", "exact", "chrf")
TASKS = ("category by picture", "category by sentence", "style", "language")


def spread(values: list[float]) -> str:
    return interval(values) if len(values) > 1 else f"{values[0]:.3f} (one seed)"


def part_a(results: dict[str, Any]) -> list[str]:
    joint, alone = ([v for k, v in results.items() if k.split()[0] == name] for name in ("together", "apart"))
    if not joint or not alone:
        return ["## (a) Four targets of the stamps", "Not measured yet."]
    n = min(len(joint), len(alone))
    rows = [
        [
            name,
            spread([j[name] for j in joint[:n]]),
            spread([a[name] for a in alone[:n]]),
            spread([j[name] - a[name] for j, a in zip(joint, alone, strict=False)]),
        ]
        for name in TASKS
    ]
    rows.append(["seconds", *(f"{np.mean([v['seconds'] for v in runs]):.0f}" for runs in (joint, alone)), ""])
    about = (
        f"Accuracy on test rows, {n} seeds, 95 % intervals over seeds; the last column has the differences"
    )
    about += " at the same seed."
    return [
        "## (a) Four targets of the stamps",
        about,
        table(["target", "one model", "a model for each", "gained"], rows),
    ]


def part_b(results: dict[str, Any]) -> list[str]:
    section = ["## (b) Speech to text"]
    runs = [v for k, v in results.items() if k.startswith("prompts")]
    for run in runs[:1]:
        rows = []
        for language, name in (("en", "English"), ("it", "Italian")):
            for suffix, what in (("", "plait"), (", nearest", "transcript of the nearest recording")):
                scores = [r[f"{language}{suffix}"] for r in runs]
                cells = [
                    f"{np.mean([s[m][0] for s in scores]):.3f} ({scores[0][m][1]:.3f} to "
                    f"{scores[0][m][2]:.3f})"
                    for m in ("cer", "wer")
                ]
                rows.append([name, what, *cells])
        seconds = np.mean([r["seconds"] for r in runs])
        section.append(
            f"Prompts never heard; one model for both languages, {run['hours']:.2f} hours of three readers, "
            f"{run['rows']['train']} recordings, "
            f"{run['epochs']} epochs in {seconds:.0f} s, {len(runs)} seeds (interval: first seed, over "
            f"rows). Recipe: the default of "
            "`transcription` at 8 kHz (crnn, characters, CTC, greedy). What helps: more epochs (English "
            "alone, 100 of them: retrieval.md, "
            '"by way of a transcript"), and above all a network that has learned from more than an hour '
            "(whisper.md)."
        )
        section.append(table(["language", "", "CER", "WER"], rows))
        examples = [
            f"- {expected} | {answered}"
            for language in ("en", "it")
            for expected, answered in run[f"{language}, heard"]
        ]
        section += ["Said, and read, of the first rows:", "\n".join(examples)]
    numbers_runs = [v for k, v in results.items() if k.startswith("numbers")]
    if numbers_runs:
        first, wer = numbers_runs[0], np.mean([r["wer"][0] for r in numbers_runs])
        exact, interval = (
            np.mean([r["exact_match"][0] for r in numbers_runs]),
            f"{first['wer'][1]:.4f} to {first['wer'][2]:.4f}",
        )
        section.append(
            f"Numbers spoken, 2 to 5 words of 28, {first['rows']['train']} training rows, "
            f"{first['rows']['test']} test rows with word pairs "
            f"never heard in training: WER {wer:.4f} (first seed {interval}), exact {exact:.3f}, "
            f"{first['epochs']} epochs in "
            f"{first['seconds']:.0f} s, {len(numbers_runs)} seeds."
        )
    spoken = [v for k, v in results.items() if k.startswith("aloud")]
    if spoken:
        first = spoken[0]
        cells = [
            f"{np.mean([s[which]['wer'][0] for s in spoken]):.3f} ({first[which]['wer'][1]:.3f} to "
            f"{first[which]['wer'][2]:.3f})"
            for which in ("made", "recorded")
        ]
        section.append(
            f"Text to speech, there and back: {first['rows']} of these texts read aloud by `speak` (trained "
            f"on the same 1,200 recordings in "
            f"{first['seconds']:.0f} s) and read back by `transcription`: WER {cells[0]}; of the recordings "
            f"themselves {cells[1]}."
        )
        section += [
            "Spoken, and read back:",
            "\n".join(f"- {expected} | {again}" for expected, again in first["heard"]),
        ]
    return section if len(section) > 1 else [*section, "Not measured yet."]


def part_cd(results: dict[str, Any]) -> list[str]:
    section, runs = (
        ["## (c) Captions of moving stamps, from the video alone"],
        [v for k, v in results.items() if k.startswith("captions")],
    )
    if runs:
        rows = [
            [
                f"{which} ({run['tested']} videos, {run['rows']['train']} to train)",
                *(spread([r[which][m] for r in runs]) for m in CAPTIONED),
            ]
            for which, run in runs[0].items()
        ]
        section.append(table(["", "motion right", "object right", "complete caption right", "chrF"], rows))
        section.append(
            "With the motion as a second target the encoder also learns from videos without a caption. "
            "Objects are not named: of each there is one "
            "other video at most, 22 pixels long, among six hundred names; a pretrained encoder of frames "
            "would be the next thing to try."
        )
        section.append("Expected, and written, of the first rows:")
        for which, run in runs[0].items():
            section += [
                which,
                "\n".join(f"- {expected} | {answered}" for expected, answered in run["examples"]),
            ]
    else:
        section.append("Not measured yet.")
    if runs := [v for k, v in results.items() if k.startswith("motion")]:
        (value, low, high), counted = runs[0]["accuracy"], runs[0]["rows"]
        section.append(
            f"The motion as a class, from the video alone ({counted['train']} videos to train, "
            f"{counted['test']} of objects never seen): accuracy "
            f"{value:.3f} ({low:.3f} to {high:.3f}; first of {len(runs)} seeds, over rows). By chance: 0.125."
        )
    section.append("## (d) Emoji, picture to name, unseen vendor")
    for job, what in (
        ("names", "written freely"),
        ("chosen", "chosen among the names of training rows (`answers: training`)"),
    ):
        runs = [v for k, v in results.items() if k.startswith(job)]
        if not runs:
            section.append(f"{what[0].upper()}{what[1:]}: not measured yet.")
            continue
        first = runs[0]
        rows = [
            [
                m,
                spread([r[m][0] for r in runs]),
                f"{first[m][1]:.3f} to {first[m][2]:.3f}",
                f"{first['guess'][m]:.3f}",
            ]
            for m in ("exact_match", "chrf", "bleu")
        ]
        section.append(
            f"{what[0].upper()}{what[1:]}; {first['rows']} rows, {np.mean([r['seconds'] for r in runs]):.0f} "
            f"s a model:"
        )
        section.append(table(["metric", "over seeds", "first seed, over rows", "most frequent name"], rows))
    section.append(
        "The names of the test are those of training emoji, drawn by others. An alignment finds the right "
        "one first for one in eleven "
        "(retrieval.md): a decoder that began at such a space would be what to try."
    )
    return section


def part_e(results: dict[str, Any]) -> list[str]:
    section = ["## (e) Balancing"]
    losses = {k.removeprefix("toy "): v for k, v in results.items() if k.startswith("toy")}
    if losses:
        rows = [
            [way, *(", ".join(f"{x:.2f}" for x in v[t]) for t in "ab"), f"{np.mean(v['a'] + v['b']):.2f}"]
            for way, v in losses.items()
        ]
        section += [
            "Two losses that conflict, each as a share of what it was at the start, from three starts.",
            table(["", "a", "b", "mean"], rows),
        ]
    ways: dict[str, list[Any]] = {}
    for k, v in results.items():
        if k.startswith("way"):
            ways.setdefault(k.split(" ", 2)[2], []).append(v)
    if ways:
        equal = [v for k, v in results.items() if k.startswith("together")]
        ways = {"equal": equal[: max(map(len, ways.values()))], **ways}
        base = np.mean([v["seconds"] for v in ways["equal"]])
        rows = [
            [
                way,
                *(f"{np.mean([v[t] for v in runs]):.3f}" for t in TASKS),
                f"{np.mean([[v[t] for t in TASKS] for v in runs]):.3f}",
                f"{np.mean([v['seconds'] for v in runs]) / base:.2f}",
            ]
            for way, runs in ways.items()
        ]
        section += [
            f"The four targets of (a), test accuracy, {len(ways['equal'])} seeds.",
            table(["", *TASKS, "mean", "time, of equal's"], rows),
        ]
    return section if len(section) > 1 else [*section, "Not measured yet."]
