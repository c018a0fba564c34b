"""Measure training and embedding on one GPU, beside what the card can do: benchmarks/gpu.py

First come the card's ceilings, measured in the same run: products of large matrices, and copies. Then the
classic model, frozen encoders of images, texts and audio beside the loop that most people write, the head
alone, and LoRA. All weights are random: only times are measured. Without a GPU the same code runs on the CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

import head
from measure import machine, median, page, read_arguments, table
from plait.console import Screen
from plait.data import frozen
from plait.data.arguments import recipe_from
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.nn.batch import Batch, Values
from plait.prediction.view import View
from plait.pretrained.network import own
from plait.pretrained.speech_embedding import SpeechEmbedding
from plait.table.read import read
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, train_epoch
from plait.training.objective import packed

transformers.utils.logging.disable_progress_bar()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOOP_BATCH = 32  # rows of a batch in the loop that most people write
RATE = 16_000  # samples a second of the audio


class Sizes(NamedTuple):
    matrix: int  # rows and columns of a product's matrices
    copied: int  # bytes
    side: int  # pixels of the classic model's images
    batches: tuple[int, ...]
    rows: int  # of the classic table, in units of the batch
    cells: int  # that are embedded, of each kind
    pixels: int  # side of the images that are embedded
    words: int
    width: int  # of the networks of texts: 1 is the real one
    seconds: float  # that one number is measured for


FULL = Sizes(8192, 2 << 30, 224, (32, 256), 6, 2048, 224, 40, 1, 1.5)
QUICK = Sizes(128, 1 << 16, 24, (4,), 2, 6, 32, 6, 12, 0.0)


@dataclass
class Report:
    """The lines of the table, and how much time is left."""

    end: float
    lines: list[list[str]] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def add(self, what: str, rate: str, flops: float = 0.0, ceiling: str = "", note: str = "") -> None:
        """Add a line. `flops` are those of a second, of which `ceiling` names the limit."""
        share = ""
        if flops and ceiling in self.ceilings:
            share = f"{flops / self.ceilings[ceiling]:.1%} of {ceiling}"
        work = f"{flops / 1e12:,.2f}" if flops else ""
        self.lines.append([what, rate, work, share, note])
        print(" | ".join(self.lines[-1]), flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[bool]:
        """Run a part of the measurements, unless time is over. One that fails must not take the others."""
        if perf_counter() > self.end:
            self.add(name, "no time left")
            yield False
            return
        begun = perf_counter()
        try:
            yield True
        except Exception:
            traceback.print_exc()
            self.failed.append(name)
            self.add(name, "failed")
        print(f"# {name}: {perf_counter() - begun:.1f} s", flush=True)


def wait() -> None:
    """Wait for the GPU."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(call: Callable[[], object], seconds: float, warm: int = 3) -> float:
    """Return the median seconds of a call, over rounds of several calls between which the GPU is awaited."""
    for _ in range(warm):
        call()
    wait()
    begun = perf_counter()
    call()
    wait()
    took = perf_counter() - begun
    calls = max(1, int(seconds / 5 / max(took, 1e-6)))

    rounds = []
    for _ in range(5 if took < seconds else 1):
        begun = perf_counter()
        for _ in range(calls):
            call()
        wait()
        rounds.append((perf_counter() - begun) / calls)
    return median(rounds)


def counted(call: Callable[[], object]) -> float:
    """Return the floating-point operations of a call: products and convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


# What the card can do


def ceilings(report: Report, sizes: Sizes) -> None:
    """Measure products of large matrices, and a copy within the memory of the device."""
    matmul = torch.backends.cuda.matmul
    n = sizes.matrix
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        a, b = torch.randn(2, n, n, device=DEVICE).to(dtype).unbind()
        before, matmul.allow_tf32 = matmul.allow_tf32, tf32
        took = timed(lambda a=a, b=b: a @ b, sizes.seconds)
        matmul.allow_tf32 = before
        report.ceilings[name] = 2 * n**3 / took
        report.add(f"product of {n} x {n} matrices, {name}", f"{took * 1e3:.2f} ms", 2 * n**3 / took)

    source = torch.empty(sizes.copied, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    took = timed(lambda: target.copy_(source), sizes.seconds)
    rate = 2 * sizes.copied / took / 1e12
    report.add("copy within the device", f"{rate:.2f} TB/s", note="bytes read and written")

    host = torch.empty(min(sizes.copied, 1 << 28), dtype=torch.uint8, pin_memory=DEVICE.type == "cuda")
    took = timed(lambda: host.to(DEVICE, non_blocking=True), sizes.seconds)
    report.add("copy from pinned memory", f"{len(host) / took / 1e9:.1f} GB/s")


# The classic model


def classic(report: Report, sizes: Sizes, folder: Path) -> None:
    """Measure the classic model: the step alone, on a batch that is there, and plait's loop with its data."""
    for batch in sizes.batches:
        for precision, compile_it in (("fp32", "off"), ("bf16", "off"), ("bf16", "on")):
            name = f"classic model, batch {batch}, {precision}" + (", compiled" if compile_it == "on" else "")
            if compile_it == "on" and (DEVICE.type != "cuda" or batch != sizes.batches[-1]):
                continue
            with report.part(name) as goes:
                if goes:
                    _classic(report, sizes, folder, name, batch, precision, compile_it)


def _classic(
    report: Report, sizes: Sizes, folder: Path, name: str, batch: int, precision: str, compile_it: str
) -> None:
    training = _classic_training(sizes, folder, batch, precision, compile_it)
    ceiling = "bf16" if precision == "bf16" else "tf32"
    _step_alone(report, training, name, batch, ceiling, sizes.seconds)
    if compile_it == "on":
        return

    epoch = _epoch(training, folder)
    rows = len(training.train_data)
    took = timed(epoch, sizes.seconds, warm=1)
    report.add(f"{name}: plait's loop", f"{rows / took:,.0f} rows/s", note="cuts, copies and converts bytes")


def _classic_training(sizes: Sizes, folder: Path, batch: int, precision: str, compile_it: str) -> Training:
    """Return a training of the classic recipe, on images and words drawn from a seed."""
    rows, side = sizes.rows * batch, sizes.side
    rng = np.random.default_rng(0)
    options = [
        f"training.precision={precision}",
        f"training.batch_size={batch}",
        f"training.compile={compile_it}",
        "split.valid=0",
        f"modalities.image.size={side}",
        "training.unaugmented=0",
    ]
    recipe = recipe_from("classic", columns={"image": "image", "words": "text"}, overrides=options)
    label = rng.integers(0, 2, rows)
    cells = read(pa.table({"image": ["a"] * rows, "words": ["a b"] * rows, "label": label}))
    plan = Plan.make(cells, recipe, "label")
    preprocessing = Preprocessing.fit(plan.read(cells), plan, np.arange(rows))

    images = torch.from_numpy(rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8))
    words = torch.from_numpy(rng.integers(0, 4, (rows, 100), dtype=np.int32))
    values = {"image": Values(images), "words": Values(words, torch.full((rows,), 100))}
    everywhere = torch.ones(rows, dtype=torch.bool)
    present = dict.fromkeys(values, everywhere)
    labels = {"label": torch.from_numpy(label)}
    prepared = Prepared(Batch(values, present, present, torch.arange(rows), labels, {"label": everywhere}))
    return _training(plan, preprocessing, prepared, folder)


def _training(plan: Plan, preprocessing: Preprocessing, prepared: Prepared, folder: Path) -> Training:
    torch.manual_seed(0)
    settings = device.settings(plan.recipe.training, preprocessing.convolves(plan))
    model = MultimodalModel.build(plan, preprocessing)
    train_data = Dataset(prepared, preprocessing)
    nothing = Dataset(prepared, preprocessing, np.arange(0))
    return Training(model, plan, settings, train_data, nothing, folder, Screen(quiet=True))


def _step_alone(
    report: Report, training: Training, name: str, batch: int, ceiling: str, seconds: float
) -> None:
    """Take the same step over and over, on a batch that lies on the device."""
    training.model.train()
    training.step.set_learning_rate(1e-5)
    rows = packed(training.model, training.train_data.batch(torch.arange(batch))).to(DEVICE)
    begun = perf_counter()
    training.step(rows)
    wait()
    first = perf_counter() - begun
    took = timed(lambda: training.step(rows), seconds)
    flops = counted(lambda: training.step(rows)) if not training.settings.compile else 0.0
    work = training.plan.training.batch_size
    assert work == batch
    counts = f", {flops / batch / 1e9:.2f} GFLOP a row" if flops else ""
    report.add(
        f"{name}: the step alone",
        f"{batch / took:,.0f} rows/s",
        flops / took,
        ceiling,
        f"{took * 1e3:.2f} ms{counts}, first step {first:.1f} s",
    )


def _epoch(training: Training, folder: Path) -> Callable[[], None]:
    """Return a call of plait's own loop over the training rows."""

    def run() -> None:
        with Screen(quiet=True).bar("", 1) as bar:
            train_epoch(training, Progress(), Checkpoint(folder, 1e6, training.plan), bar)

    return run


# Frozen encoders


def frozen_encoders(report: Report, sizes: Sizes, folder: Path) -> None:
    """Measure plait's own way from prepared cells to vectors, beside a plain loop over the same cells."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(
        rng.integers(0, 256, (sizes.cells, sizes.pixels, sizes.pixels, 3), dtype=np.uint8)
    )
    lengths = torch.from_numpy(rng.integers(sizes.words // 2, sizes.words + 1, sizes.cells))
    words = torch.from_numpy(rng.integers(5, 30, (sizes.cells, sizes.words)).astype(np.int32))
    words = words * (torch.arange(sizes.words) < lengths[:, None])
    samples = torch.from_numpy(rng.normal(0, 3000, (sizes.cells // 4 + 1, 2 * RATE)).astype(np.int16))
    heard = torch.full((len(samples),), samples.shape[1])
    kinds = {
        "EfficientNet-Lite0": ("image", lite_folder(folder / "lite", sizes), Values(pixels)),
        "ViT-B/16": ("image", vit_folder(folder / "vit", sizes), Values(pixels)),
        "MiniLM-L6": ("text", bert_folder(folder / "minilm", sizes, 384, 6), Values(words, lengths)),
        "speech embedding, 2 s": ("audio", speech_folder(folder / "speech"), Values(samples, heard)),
    }
    for name, (modality, network, values) in kinds.items():
        with report.part(f"frozen {name}") as goes:
            if goes:
                _frozen(report, sizes, name, modality, network, values)


def _frozen(report: Report, sizes: Sizes, name: str, modality: str, network: Path, values: Values) -> None:
    view = _view(modality, network)
    rows = len(values)

    def ours() -> Tensor:
        present = {"cell": torch.ones(rows, dtype=torch.bool)}
        prepared = Prepared(Batch({"cell": values}, present, present, torch.arange(rows)))
        frozen.embed(prepared, view.preprocessing, view.frozen, view.plan, view.settings)
        return prepared.batch.values["cell"].x

    encoder = view.frozen["cell"]
    preparing = view.preprocessing.inputs["cell"]

    @torch.inference_mode()
    def loop() -> Tensor:
        vectors = []
        for places in torch.arange(rows).split(LOOP_BATCH):
            cells = preparing.transform(values.take(places), None).to(DEVICE)
            vectors.append(encoder.embed(cells).x.cpu())
        return torch.cat([v.flatten(1)[:, : vectors[0].shape[-1]] for v in vectors])

    ours()
    flops = _flops_a_row(lambda: encoder.embed(_cells(preparing, values)), min(rows, LOOP_BATCH))
    loop_took = timed(loop, sizes.seconds, warm=1)
    took = timed(ours, sizes.seconds, warm=1)
    ceiling = "bf16" if view.settings.frozen == "bf16" else "tf32"
    report.add(
        f"frozen {name}: plain loop, fp32", f"{rows / loop_took:,.0f} cells/s", rows * flops / loop_took
    )
    note = f"{loop_took / took:.1f}x the loop; {flops / 1e9:.2f} GFLOP a cell; {view.settings.frozen}"
    report.add(f"frozen {name}: plait", f"{rows / took:,.0f} cells/s", rows * flops / took, ceiling, note)


def _cells(preparing: Any, values: Values) -> Values:
    places = torch.arange(min(len(values), LOOP_BATCH))
    moved: Values = preparing.transform(values.take(places), None).to(DEVICE)
    return moved


def _flops_a_row(call: Callable[[], object], rows: int) -> float:
    return counted(call) / rows


def _view(modality: str, network: Path) -> View:
    """Return the view of a table whose only column has a frozen encoder."""
    cells: Sequence[object] = ["one two three", "four five", "six", "seven"] * 2
    overrides = [
        f"columns.cell.modality={modality}",
        f"encoders.{modality}={{name: pretrained, mode: frozen, model: {network}}}",
    ]
    rows = read(pa.table({"cell": list(cells), "y": [float(row) for row in range(len(cells))]}))
    plan = Plan.make(rows, recipe_from(None, overrides=overrides), "y")
    return View.fit("gpu", plan, plan.read(rows))


def lite_folder(folder: Path, sizes: Sizes) -> Path:
    """Save an EfficientNet-Lite0 with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    about = {"network": "efficientnet_lite0"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "preprocessor_config.json").write_text(_preprocessor(sizes))
    save_file(own(about).build().state_dict(), folder / "model.safetensors")
    return folder


def _preprocessor(sizes: Sizes) -> str:
    return json.dumps({"size": sizes.pixels, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})


def vit_folder(folder: Path, sizes: Sizes) -> Path:
    """Save a ViT of the base size, patches of 16 pixels, with random weights."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=768 // sizes.width,
        intermediate_size=3072 // sizes.width,
        num_hidden_layers=max(12 // sizes.width, 1),
        num_attention_heads=12 // min(sizes.width, 12),
        image_size=sizes.pixels,
        patch_size=16,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(_preprocessor(sizes))
    return folder


def bert_folder(folder: Path, sizes: Sizes, width: int, layers: int) -> Path:
    """Save a BERT with random weights, whose tokenizer knows few words."""
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    count = 30_522 if sizes.width == 1 else 200
    pieces += [f"[unused{number}]" for number in range(count - len(pieces))]
    config = BertConfig(
        vocab_size=count,
        hidden_size=width // sizes.width,
        intermediate_size=4 * width // sizes.width,
        num_hidden_layers=max(layers // sizes.width, 1),
        num_attention_heads=12 // min(sizes.width, 12),
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({p: n for n, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def speech_folder(folder: Path) -> Path:
    """Save plait's speech embedding with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    save_file(SpeechEmbedding().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"network": "speech_embedding"}))
    return folder


# Training on embedded cells, and LoRA


def heads(report: Report, sizes: Sizes, folder: Path) -> None:
    """Measure what comes after frozen encoders, beside the arithmetic alone (see head.py)."""
    of_head = head.FULL if sizes is FULL else head.QUICK
    x, y = head.draw(of_head)
    first = [v[: of_head.batch] for v in x.values()]
    batch, target = torch.cat(first, 1).to(DEVICE), y[: of_head.batch].float().to(DEVICE)
    programs: dict[str, Callable[[], float]] = {
        "floor, fp32": lambda: head.floor(batch, target, of_head, False, True),
        "plait, fp32": lambda: head.ours(x, y, of_head, True, "fp32", folder),
        "floor, bf16": lambda: head.floor(batch.bfloat16(), target, of_head, True, True),
        "plait, bf16": lambda: head.ours(x, y, of_head, True, "bf16", folder),
    }
    took: dict[str, float] = {}
    for name, program in programs.items():
        program()
        took[name] = median([program() for _ in range(3 if sizes is FULL else 1)])
    for name, seconds in took.items():
        floor = took["floor, fp32"]
        report.add(
            f"head of 3 x {of_head.width}, batch {of_head.batch}: {name}",
            f"{of_head.rows / seconds:,.0f} rows/s",
            note=f"{seconds / floor:.2f}x the time of the floor",
        )


def lora(report: Report, sizes: Sizes, folder: Path) -> None:
    """Measure steps of LoRA on an encoder of texts of BERT's base size."""
    network = bert_folder(folder / "bert", sizes, 768, 12)
    for precision in ("fp32", "bf16"):
        name = f"LoRA of BERT-base, 64 texts of {sizes.words * 3} tokens, {precision}"
        with report.part(name) as goes:
            if goes:
                training = _lora_training(sizes, folder, network, precision)
                batch = training.plan.training.batch_size
                ceiling = "bf16" if precision == "bf16" else "fp32"
                _step_alone(report, training, name, batch, ceiling, sizes.seconds)


def _lora_training(sizes: Sizes, folder: Path, network: Path, precision: str) -> Training:
    batch = 64 if sizes is FULL else 8
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    texts = [" ".join(rng.choice(letters, sizes.words * 3)) for _ in range(2 * batch)]
    rows = read(pa.table({"cell": texts, "y": rng.normal(size=len(texts))}))
    overrides = [
        "columns.cell.modality=text",
        f"encoders.text={{name: pretrained, mode: lora, model: {network}}}",
        f"training.precision={precision}",
        f"training.batch_size={batch}",
        "split.valid=0",
    ]
    plan = Plan.make(rows, recipe_from(None, overrides=overrides), "y")
    typed = plan.read(rows)
    preprocessing = Preprocessing.fit(typed, plan, np.arange(len(texts)))
    return _training(plan, preprocessing, preprocessing.prepare(typed), folder)


def card() -> str:
    """Name the device and the versions."""
    name = machine()
    if DEVICE.type == "cuda":
        name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {name}"
    return f"{name}; torch {torch.__version__}; {date.today().isoformat()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="after which no new part begins")
    arguments = read_arguments(parser)
    sizes = QUICK if arguments.quick else FULL
    begun = time.monotonic()
    report = Report(perf_counter() + arguments.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with report.part("ceilings") as goes:
            if goes:
                ceilings(report, sizes)
        frozen_encoders(report, sizes, folder)
        with report.part("head") as goes:
            if goes:
                heads(report, sizes, folder)
        lora(report, sizes, folder)
        classic(report, sizes, folder)

    headers = ["what", "rate", "TFLOP/s", "share of the ceiling", "note"]
    text = f"""# On a GPU

Made by `benchmarks/gpu.py` in {time.monotonic() - begun:.0f} s; {card()}.
All weights are random. Products and convolutions are counted by torch's FlopCounterMode, forward and
backward. "The step alone" takes the same batch over and over; "plait's loop" also cuts, converts and copies
batches. fp32 is torch's own default: tf32 in convolutions, not in products.

{table(headers, report.lines)}"""
    page("gpu.md", text, arguments)
    if report.failed:
        raise SystemExit(f"failed: {', '.join(report.failed)}")


if __name__ == "__main__":
    main()
