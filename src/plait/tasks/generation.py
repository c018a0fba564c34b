"""Write text about a row's cells: a caption, a name, the answer to a question.

B rows, M tokens of all inputs, L steps, V ids, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import pyarrow as pa
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import module_key
from plait.pretrained import files
from plait.pretrained.files import Architecture
from plait.recipe.bounds import MAX_BEAM, MAX_HEADS, MAX_LAYERS, MAX_RATE, MAX_TOKENS, MAX_WIDTH
from plait.table.json import JSON, read_as, read_object
from plait.table.values import distinct, is_text, words_a_cell
from plait.tasks.base import masked_mean
from plait.tasks.base_text import TextOptions, TextTask, learned_spelling, spelled
from plait.tasks.writing import decoder, pretrained_decoder
from plait.tasks.writing.ctc import padded
from plait.tasks.writing.decoder import SearchOptions, TextDecoder, positions
from plait.tasks.writing.metrics import OverlapRows, bleu, chrf, exact_match
from plait.tasks.writing.pretrained_decoder import PretrainedDecoder
from plait.tasks.writing.spelling import NOTHING, Spelling

# Share of the training rows that are written about without any input.
WITHOUT_INPUTS = 0.05


class Config(TextOptions):
    """The answer is searched for with a `beam`. `length_penalty` makes texts of different length comparable.

    At most `limit` units are written; with 0, half as many again as the longest training text has. No
    sequence of `no_repeat` units is written twice. `answers` says which texts may be written: any
    (`free`), those of the training rows (`training`), or those that are listed.

    `model` is a pretrained network that turns text into text (a folder, or a name on the hub). Its
    decoder, with its own subwords, then replaces plait's decoder, and is trained with `rate` of the
    learning rate.
    """

    model: str = Field(
        "", description="a pretrained network that turns text into text; if empty, plait's own decoder"
    )
    rate: float = Field(
        0.05, gt=0, le=MAX_RATE, description="learning rate of a pretrained decoder, relative to the recipe's"
    )
    width: int = Field(
        128, ge=2, le=MAX_WIDTH, description="of plait's own decoder; even, and a multiple of heads"
    )
    heads: int = Field(4, ge=1, le=MAX_HEADS, description="attention heads of plait's own decoder")
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="blocks of plait's own decoder")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="probability that a unit shares among all units"
    )
    beam: int = Field(4, ge=1, le=MAX_BEAM, description="texts that the search for the answer goes on with")
    length_penalty: float = Field(
        0.6,
        ge=0,
        le=100,
        description="exponent of the length that a text's logarithmic probability is divided by",
    )
    no_repeat: int = Field(
        0, ge=0, le=MAX_TOKENS, description="no sequence of so many units is written twice; 0: no limit"
    )
    limit: int = Field(
        0,
        ge=0,
        le=MAX_TOKENS,
        description="units of an answer, at most; 0: half as many again as the longest training text",
    )
    answers: Literal["free", "training"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "free", description="texts that may be written: any, those of training rows, or those that are listed"
    )

    @field_validator("answers", mode="before")
    @classmethod
    def _new_name(cls, answers: object) -> object:
        return "training" if answers == "seen" else answers  # plans and recipes of earlier versions

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads} and of 2")
        return self


class Generation(TextTask):
    """A transformer decoder that attends to the tokens of all inputs.

    It learns each unit from the units before it (teacher forcing).

    The output is the memory that the decoder attends to, (B, 1 + M, D), and zeros where there is no token.
    A learned token comes first, so that a row has one token at least. In a few rows of training it is the
    only one. So a row without any input gets a likely text, and not a random one.
    """

    options = Config
    metrics = {"chrf": chrf, "bleu": bleu, "exact_match": exact_match}
    score = "chrf"
    higher = True
    steps = 1200
    encoders = {"text": {"name": "lstm", "bidirectional": True, "tokens": "all"}}

    def __init__(
        self,
        config: Config,
        spelling: Spelling,
        longest: int = 0,
        training_texts: list[list[int]] | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__(config, spelling)
        self.config: Config = config
        self.longest = longest
        self.training_texts = training_texts or []
        self.architecture = architecture or {}
        answers = self.training_texts if config.answers == "training" else self._listed_answers()
        self.allowed = decoder.continuations(answers) if answers else None

    def _listed_answers(self) -> list[list[int]]:
        """Return the answers that the options list, as ids."""
        if not isinstance(self.config.answers, tuple):
            return []
        return [self.spelling.encode(text) for text in self.config.answers]

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Match texts of two words or more, of which most occur once."""
        if not is_text(cells):
            return None
        words = words_a_cell(cells)
        different = distinct(cells)
        repeats = different <= max(20, len(cells) / 2)
        if words < 2 or repeats:
            return None
        return Match(0.95, f"{different:,} different texts of {words:.0f} words: too many for classes")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Generation:
        """Learn the subwords, or take those of the pretrained network, and the length of texts."""
        architecture: Architecture = {}
        if config.model:
            architecture, tokenizer = pretrained_decoder.files(config.model)
            spelling = Spelling.pretrained(tokenizer, config.form)
        else:
            spelling = learned_spelling(config, cells, name)
        task = cls(config, spelling, architecture=architecture)
        task._study(spelled(spelling, config.longest, cells, name))
        return task

    def _study(self, texts: list[list[int]]) -> None:
        """Measure the longest text, and collect the answers that may be written.

        Raises `TrainingError` if a listed answer has letters that no training text has.
        """
        self.longest = max(map(len, texts), default=1)
        listed_texts = self.config.answers if isinstance(self.config.answers, tuple) else ()
        for text in listed_texts:
            if self.spelling.unknown in self.spelling.encode(text):
                raise TrainingError(
                    f"the answer '{text}' has letters that no training text has, so it cannot be written: "
                    f"change it, or leave it out of answers"
                )
        if self.config.answers == "training":
            different_texts = {tuple(ids): ids for ids in texts}
            self.training_texts = sorted(different_texts.values())
            self.allowed = decoder.continuations(self.training_texts)

    def build_head(self, widths: dict[str, int]) -> None:
        """Make the decoder, and a projection of each column's tokens to its width."""
        config = self.config
        self.columns = list(widths)
        self.decoder: TextDecoder | PretrainedDecoder
        if config.model:
            self.decoder = PretrainedDecoder(self.architecture, config.rate)
        else:
            vocabulary = len(self.spelling) + 1  # with `NOTHING`
            self.decoder = TextDecoder(vocabulary, config.width, config.heads, config.layers, config.dropout)
        self.into = nn.ModuleDict()
        for column, width in widths.items():
            self.into[module_key(column)] = nn.Linear(width, self.decoder.width)
        self.first_D = nn.Parameter(torch.randn(self.decoder.width) * 0.02)
        self.norm = nn.LayerNorm(self.decoder.width)

    def load_pretrained(self) -> None:
        """Load the pretrained decoder's weights, if there is one."""
        if isinstance(self.decoder, PretrainedDecoder):
            self.decoder.load(files.find(self.config.model))

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return the memory, (B, 1 + M, D): the learned token, then those of all columns."""
        first_column = next(iter(tokens.values()))
        rows, device = len(first_column.x_BLD), first_column.x_BLD.device
        always_B1 = torch.ones(rows, 1, dtype=torch.bool, device=device)
        with_inputs_B1 = always_B1
        if self.training:
            with_inputs_B1 = torch.rand(rows, 1, device=device) >= WITHOUT_INPUTS

        first_B1D = self.first_D.expand(rows, 1, -1)
        memory = [first_B1D.float()]
        masks = [always_B1]
        for column in self.columns:
            # Positions begin anew in each column. The projection tells columns apart.
            x_BLD = self.into[module_key(column)](tokens[column].x_BLD)
            x_BLD = x_BLD + positions(x_BLD.shape[1], x_BLD.shape[2], device)
            memory.append(x_BLD.float())
            masks.append(tokens[column].mask_BL & with_inputs_B1)
        memory_BMD = torch.cat(memory, 1)
        mask_BM = torch.cat(masks, 1)
        return self.norm(memory_BMD) * mask_BM[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean cross-entropy of a row's units, with label smoothing."""
        units_B = (target != NOTHING).sum(1)
        longest = max(int(units_B.max()), 1)
        ids_BL = target[:, :longest].long()
        mask_BM = (output != 0).any(-1)
        logits_BLV = self.decoder(ids_BL, output, mask_BM)
        loss_B = decoder.surprise(logits_BLV, ids_BL, self.config.label_smoothing)
        return masked_mean(loss_B, labelled_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return ids, (B, units). Without `thorough`, each id is the likeliest after those before it."""
        mask_BM = (output != 0).any(-1)

        def log_p_next(ids_NL: Tensor, row_N: Tensor) -> Tensor:
            logits_NLV = self.decoder(ids_NL, output[row_N], mask_BM[row_N])
            next_logits_NV = logits_NLV[:, -1].float()
            if self.spelling.unknown is not None:
                next_logits_NV[:, self.spelling.unknown] = -torch.inf  # it stands for no letter
            return next_logits_NV.log_softmax(-1)

        config = self.config
        half_as_many_again = self.longest * 3 // 2
        options = SearchOptions(
            longest=config.limit or half_as_many_again,
            beam=config.beam if thorough else 1,
            penalty=config.length_penalty,
            no_repeat=config.no_repeat,
            allowed=self.allowed,
        )
        texts = decoder.search(log_p_next, len(output), options, output.device)

        # A row without any input has a text too.
        absent_B = torch.zeros(len(output), dtype=torch.bool)
        return padded(texts, absent_B, NOTHING)

    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        """Count the n-grams that answers and labels share, for BLEU and chrF."""
        return OverlapRows.of(answers, labels)

    def state(self) -> JSON:
        """Return the spelling, the length of texts, and what the decoder is made from."""
        return {
            "spelling": self.spelling.state(),
            "longest": self.longest,
            "training_texts": self.training_texts,
            "architecture": self.architecture,
        }

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Generation:
        """Restore the task from its state; the head is still to be built."""
        return cls(
            config,
            spelling=Spelling.from_state(read_object(state["spelling"])),
            longest=read_as(int, state["longest"]),
            training_texts=read_as(list[list[int]], state.get("training_texts", state.get("seen"))),
            architecture=read_object(state["architecture"]),
        )


component = Generation
