"""Write what is said in a recording.

Each step of the recording's tokens writes a unit or nothing (CTC), or a pretrained network generates the
text.

B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import pyarrow as pa
from pydantic import Field, model_validator
from torch import Tensor

from plait.errors import RecipeError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.recipe.bounds import MAX_BEAM, MAX_RATE
from plait.table.json import JSON, read_as, read_object
from plait.tasks.base_text import TextOptions, TextTask, learned_spelling, spelled
from plait.tasks.writing import pretrained_ctc, pretrained_speech
from plait.tasks.writing.ctc_writer import CTCWriter, LastLayer, PrefixSearch
from plait.tasks.writing.generating_writer import GeneratingWriter, SpeechNetwork
from plait.tasks.writing.metrics import EditedRows, cer, exact_match, wer
from plait.tasks.writing.recording_writer import RecordingWriter
from plait.tasks.writing.spelling import Form, NGrams, Spelling, Units


class Config(TextOptions):
    """`inputs` is the one column that is transcribed: the only audio column of the table, if left out.

    With a `beam` of 1 the answer is the likeliest path. With more, prefixes are searched. With `ngram` of
    2 or more, a language model of that order takes part in the search. It is learned from the training
    rows' texts. Its weight is `ngram_weight`, and each unit adds `bonus`.

    `model` is a pretrained network (a folder, or a name on the hub) that is trained further. A network
    for CTC (as Wav2Vec2ForCTC) brings its own letters and its own last layer. A network that generates
    text (as Whisper) brings its own subwords and its own decoder, which searches with the `beam`. These
    take `rate` of the learning rate. The encoder of the recordings is then the rest of the network, and
    all of it is trained unless the recipe names another encoder. `language` is for networks that know
    several. A network that generates text uses only the options `form`, `longest`, `beam` and `rate`.
    """

    units: Units = Field("characters", description="units of a text, written one by one")
    form: Form = Field(
        "spoken", description="which characters of texts count: all, or those that can be heard"
    )
    beam: int = Field(
        1, ge=1, le=MAX_BEAM, description="prefixes that the search goes on with; 1: the likeliest path"
    )
    ngram: int = Field(
        0, ge=0, le=12, description="units that the language model looks at; 0 or 1: no language model"
    )
    ngram_weight: float = Field(0.4, ge=0, le=100, description="of the language model in the search")
    bonus: float = Field(
        1.0, ge=-100, le=100, description="for each unit of a text in the search; more makes texts longer"
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )
    model: str = Field("", description="a pretrained network to train further; if empty, none")
    language: str = Field(
        "", description="what is spoken, as in en, for a pretrained network that knows several languages"
    )
    rate: float = Field(
        0.05,
        gt=0,
        le=MAX_RATE,
        description="learning rate of a pretrained last layer or decoder, relative to the recipe's",
    )

    @model_validator(mode="after")
    def _spells(self) -> Self:
        if self.model and self.units != "characters":
            raise ValueError(
                "a pretrained network (model) has letters of its own; expected units 'characters', came "
                f"'{self.units}': leave units out"
            )
        if self.language and not self.model:
            raise ValueError(
                "language tells a pretrained network (model) what is spoken: leave it out, or name a model"
            )
        return self


class Transcription(TextTask):
    """Write the text of the only column of recordings that is read.

    Its `writer` is trained by connectionist temporal classification, or is a pretrained network that
    generates text.
    """

    options = Config
    metrics = {"cer": cer, "wer": wer, "exact_match": exact_match}
    score = "cer"
    higher = False
    steps = 2500
    unaugmented = 0.0
    leaves_rows_out = True
    modalities = ("audio",)
    encoders = {"audio": {"name": "crnn", "channels": (32, 64, 64), "width": 160, "layers": 2}}
    cells = {"audio": {"view": "whole", "longest": 600.0, "seconds": 20.0, "time_masks": 2, "band_masks": 2}}

    def __init__(self, config: Config, spelling: Spelling, writer: RecordingWriter) -> None:
        super().__init__(config, spelling)
        self.writer = writer

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Return None: a transcription has to be named."""
        return None

    @classmethod
    def encoder_for(cls, config: Config, modality: str) -> JSON | None:
        """Return the pretrained network's own encoder for audio, if there is such a network."""
        if not config.model or modality != "audio":
            return cls.encoders.get(modality)

        # All of it is trained, and each step of the recording keeps its token.
        return {
            "name": "pretrained",
            "model": config.model,
            "mode": "full",
            "pool": "none",
            "norm": False,
        }

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Transcription:
        """Learn the letters or subwords, or take those of the pretrained network, and what the writer needs.

        Raises `RecipeError` if the recipe asks for n-grams of a network that generates text.
        """
        writer: RecordingWriter
        if config.model and not pretrained_speech.aligns(config.model):
            spelling, network = _speech_network(config)
            config = _limited(config, network)
            writer = _generating_writer(config, network)
        elif config.model:
            spelling, _ = pretrained_ctc.letters(config.model, config.form)
            writer = _ctc_writer(config, spelling)
        else:
            spelling = learned_spelling(config, cells, name)
            writer = _ctc_writer(config, spelling)
        writer.study(spelled(spelling, config.longest, cells, name))
        return cls(config, spelling, writer)

    def build_head(self, widths: dict[str, int]) -> None:
        """Make the writer's layers for the only column's tokens."""
        if len(widths) != 1:
            raise RecipeError(
                f"a transcription reads one column, not {', '.join(widths)}: name it, as in {{name: "
                f"transcription, inputs: [speech]}}"
            )
        ((self.column, width),) = widths.items()
        self.writer.build(self.column, width)

    def load_pretrained(self) -> None:
        """Load the weights of the pretrained network's last layer or decoder, if there is one."""
        self.writer.load_pretrained()

    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Return parameters with their share of the recipe's learning rate."""
        return self.writer.rates()

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return what the writer makes of the recording's tokens, (B, ...)."""
        output: Tensor = self.writer(tokens[self.column])
        return output

    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Leave out rows whose text cannot be written."""
        return self.writer.learnable(output, target, labelled_B)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the writer's mean loss over the rows whose text can be written."""
        return self.writer.loss(output, target, labelled_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return ids, (B, units)."""
        return self.writer.write(output, thorough)

    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> EditedRows:
        """Count the edits that turn labels into answers, for the error rates."""
        return EditedRows.of(answers, labels)

    def state(self) -> JSON:
        """Return the spelling, and what the writer has learned."""
        return {"spelling": self.spelling.state(), **self.writer.state()}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Transcription:
        """Restore the task. Only a network that generates text has a `prefix`."""
        spelling = Spelling.from_state(read_object(state["spelling"]))

        # The configuration does not say which kind of network it names, and its files may be gone.
        if "prefix" in state:
            network = SpeechNetwork.from_state(config.model, state)
            config = _limited(config, network)
            longest = read_as(int, state["longest"])
            return cls(config, spelling, _generating_writer(config, network, longest))
        ngrams = None
        if state["ngrams"] is not None:
            ngrams = NGrams.from_state(read_object(state["ngrams"]))
        return cls(config, spelling, _ctc_writer(config, spelling, ngrams))


component = Transcription


def _speech_network(config: Config) -> tuple[Spelling, SpeechNetwork]:
    """Read the spelling and the settings of a network that generates text from its files."""
    if config.ngram > 1:
        raise RecipeError(f"'{config.model}' generates text, which ngram has no part in: leave it out")
    architecture, spelling, prefix, never = pretrained_speech.files_for(
        config.model, config.language, config.form
    )
    return spelling, SpeechNetwork(config.model, architecture, prefix, never)


def _limited(config: Config, network: SpeechNetwork) -> Config:
    """Return the options of a network that generates text.

    It has no positions for longer texts, and writes subwords whatever the options say.
    """
    longest = min(config.longest, network.positions)
    return config.model_copy(update={"units": "subwords", "longest": longest})


def _generating_writer(config: Config, network: SpeechNetwork, longest: int = 0) -> GeneratingWriter:
    """Make a writer that generates text."""
    return GeneratingWriter(network, config.rate, config.beam, config.longest, longest)


def _ctc_writer(config: Config, spelling: Spelling, ngrams: NGrams | None = None) -> CTCWriter:
    """Make a writer that is trained by CTC."""
    ids = len(spelling) + 1  # with `NOTHING`, the blank
    search = PrefixSearch(config.beam, config.ngram, config.ngram_weight, config.bonus)
    pretrained = LastLayer(config.model, config.form, config.rate) if config.model else None
    return CTCWriter(ids, config.units, config.dropout, search, pretrained, ngrams)
