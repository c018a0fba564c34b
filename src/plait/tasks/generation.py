"""Text about a row's cells: a caption, a name, the answer to a question. B rows, M tokens of all
inputs, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import module_key
from plait.pretrained import files
from plait.table.values import distinct, is_text, words_a_cell
from plait.tasks.base import masked_mean
from plait.tasks.base_text import TextOptions, TextTask
from plait.tasks.writing import decoder, pretrained_decoder
from plait.tasks.writing.ctc import padded
from plait.tasks.writing.decoder import TextDecoder, positions
from plait.tasks.writing.metrics import OverlapRows, bleu, chrf, exact_match
from plait.tasks.writing.pretrained_decoder import PretrainedDecoder
from plait.tasks.writing.spelling import NOTHING, Spelling

UNGIVEN = 0.05  # of the rows in training that are written about without any input


class Config(TextOptions):
    """Texts are searched for with a `beam`, longer ones held against shorter ones by `length_penalty`;
    at most `limit` units are written, half as many again as in the longest training text if 0. No
    `no_repeat` units in a row are written twice. `answers`: any text (`free`), only those of the
    training rows (`seen`), or only the ones that are listed.

    `model` is a pretrained network that turns text into text (a folder, or a name on the hub): its
    decoder, with its own pieces of words, then takes the place of the one that is made here, and is
    trained with `rate` of the learning rate.
    """

    model: str = ""
    rate: float = Field(0.05, gt=0, description="of a pretrained decoder, times the recipe's learning rate")
    width: int = Field(128, ge=2)
    heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    beam: int = Field(4, ge=1)
    length_penalty: float = Field(0.6, ge=0)
    no_repeat: int = Field(0, ge=0)
    limit: int = Field(0, ge=0)
    answers: Literal["free", "seen"] | tuple[str, ...] = "free"

    @model_validator(mode="after")
    def _divides(self) -> Any:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads} and of 2")
        return self


class Generation(TextTask):
    """A transformer decoder that attends to the tokens of all inputs. It learns each unit from those
    before it (teacher forcing).

    The output is this memory, (B, 1 + M, D): a learned token first, so that there always is one, and
    zeros where there is none. In a few rows of training it is all that is there, so that a row without
    any input gets a likely text, and no babble.
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
        seen: list[list[int]] | None = None,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(config, spelling)
        self.config: Config = config
        self.longest, self.seen, self.architecture = longest, seen or [], architecture or {}
        listed = config.answers if isinstance(config.answers, tuple) else ()
        given = self.seen if config.answers == "seen" else [spelling.encode(text) for text in listed]
        self.allowed = decoder.only(given) if given else None

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        if not is_text(cells):
            return None
        words, different = words_a_cell(cells), distinct(cells)
        if words < 2 or different <= max(20, len(cells) / 2):
            return None
        return Match(0.95, f"{different:,} different texts of {words:.0f} words: too many for classes")

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Generation:
        if not config.model:
            return cast(Generation, super().fit(config, cells, name))
        architecture, tokenizer = pretrained_decoder.files(config.model)
        made = cls(config, Spelling.pretrained(tokenizer, config.form), architecture=architecture)
        made.study(made.spelled(cells, name))
        return made

    def study(self, texts: list[list[int]]) -> None:
        self.longest = max(map(len, texts), default=1)
        for text in self.config.answers if isinstance(self.config.answers, tuple) else ():
            if self.spelling.unknown in self.spelling.encode(text):
                raise TrainingError(
                    f"the answer '{text}' has letters that no training text has: it cannot be written"
                )
        if self.config.answers == "seen":
            self.seen = sorted({tuple(ids): ids for ids in texts}.values())
            self.allowed = decoder.only(self.seen)

    def build_head(self, widths: dict[str, int]) -> None:
        config = self.config
        self.columns = list(widths)
        self.decoder: TextDecoder | PretrainedDecoder
        if config.model:
            self.decoder = PretrainedDecoder(self.architecture, config.rate)
        else:
            self.decoder = TextDecoder(
                len(self.spelling) + 1, config.width, config.heads, config.layers, config.dropout
            )
        self.into = nn.ModuleDict(
            {module_key(c): nn.Linear(width, self.decoder.width) for c, width in widths.items()}
        )
        self.first_D = nn.Parameter(torch.randn(self.decoder.width) * 0.02)
        self.norm = nn.LayerNorm(self.decoder.width)

    def load_pretrained(self) -> None:
        if isinstance(self.decoder, PretrainedDecoder):
            self.decoder.load(files.find(self.config.model))

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        first = next(iter(tokens.values())).x_BLD
        rows, device = len(first), first.device
        parts, masks = (
            [self.first_D.expand(rows, 1, -1)],
            [torch.ones(rows, 1, dtype=torch.bool, device=device)],
        )
        given_B1 = masks[0] if not self.training else torch.rand(rows, 1, device=device) >= UNGIVEN
        for c in self.columns:
            x_BLD = self.into[module_key(c)](tokens[c].x_BLD)
            parts.append(x_BLD + positions(x_BLD.shape[1], x_BLD.shape[2], device))
            masks.append(tokens[c].mask_BL & given_B1)
        return self.norm(torch.cat([part.float() for part in parts], 1)) * torch.cat(masks, 1)[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        ids_BL = target[:, : max(int((target != NOTHING).sum(1).max()), 1)].long()
        logits_BLV = self.decoder(ids_BL, output, (output != 0).any(-1))
        return masked_mean(decoder.surprise(logits_BLV, ids_BL, self.config.label_smoothing), labelled_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        mask_BM = (output != 0).any(-1)
        longest = self.config.limit or self.longest * 3 // 2

        def next_of(ids_NL: Tensor, row_N: Tensor) -> Tensor:
            logits = self.decoder(ids_NL, output[row_N], mask_BM[row_N])[:, -1].float()
            if self.spelling.unknown is not None:  # it cannot be written
                logits[:, self.spelling.unknown] = -torch.inf
            return logits.log_softmax(-1)

        beam = self.config.beam if thorough else 1
        found = decoder.search(
            next_of,
            len(output),
            longest,
            beam,
            self.config.length_penalty,
            self.config.no_repeat,
            self.allowed,
            output.device,
        )
        return padded(found, torch.zeros(len(output), dtype=torch.bool), NOTHING)

    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        return OverlapRows.of(answers, labels)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "longest": self.longest,
            "seen": self.seen,
            "architecture": self.architecture,
        }

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Generation:
        return cls(
            config,
            Spelling.from_state(state["spelling"]),
            state["longest"],
            state["seen"],
            state["architecture"],
        )


component = Generation
