"""Write the text of a recording by a pretrained network that generates text, as Whisper does.

B rows, L units of a text, V ids, M tokens and D width of the network's encoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from plait.errors import RecipeError
from plait.nn.batch import Tokens
from plait.pretrained import files
from plait.pretrained.files import Architecture
from plait.table.json import JSON, read_as, read_object
from plait.tasks.base import masked_mean
from plait.tasks.writing import ctc
from plait.tasks.writing.decoder import surprise
from plait.tasks.writing.pretrained_speech import SpeechDecoder
from plait.tasks.writing.recording_writer import RecordingWriter
from plait.tasks.writing.spelling import ABSENT, NOTHING

# Ids of a text that a network can write, if its files state no limit. This is Whisper's.
MOST_IDS = 448


@dataclass(frozen=True)
class SpeechNetwork:
    """A pretrained `model`, the ids before every text (`prefix`), and those that are never written."""

    model: str
    architecture: Architecture
    prefix: list[int]
    never: list[int]

    @property
    def positions(self) -> int:
        """The number of units of a text that the network has positions for."""
        positions = int(self.architecture.get("max_target_positions", MOST_IDS))
        return positions - len(self.prefix)

    def state(self) -> JSON:
        """Return what the network's files say, as JSON."""
        return {"architecture": self.architecture, "prefix": self.prefix, "never": self.never}

    @classmethod
    def from_state(cls, model: str, state: JSON) -> SpeechNetwork:
        """Invert `state`."""
        return cls(
            model,
            architecture=read_object(state["architecture"]),
            prefix=read_as(list[int], state["prefix"]),
            never=read_as(list[int], state["never"]),
        )


class GeneratingWriter(RecordingWriter):
    """Let the pretrained network's decoder write each unit from the units before it.

    The output is what its encoder makes of a recording, (B, M, D), and zeros where there is none. A text
    has at most `most` units. `longest` is the number of units of the longest training text.
    """

    def __init__(
        self,
        network: SpeechNetwork,
        rate: float,
        beam: int,
        most: int,
        longest: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.rate = rate
        self.beam = beam
        self.most = min(most, network.positions)
        self.longest = longest

    def study(self, texts: list[list[int]]) -> None:
        """Measure the longest text."""
        self.longest = max(map(len, texts), default=0)

    def build(self, column: str, width: int) -> None:
        """Make the decoder. Raises `RecipeError` if it cannot read vectors of the encoder's width."""
        network = self.network
        self.decoder = SpeechDecoder(network.architecture, self.rate, network.prefix, network.never)
        if width != self.decoder.width:
            raise RecipeError(
                f"the decoder of '{network.model}' takes vectors of {self.decoder.width}, the encoder of "
                f"'{column}' makes {width}: leave the encoder out, or let it be pretrained with the "
                f"same model"
            )

    def load_pretrained(self) -> None:
        """Load the decoder's weights."""
        self.decoder.load(files.find(self.network.model))

    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Return the decoder's parameters with their share of the recipe's learning rate."""
        return self.decoder.rates()

    def forward(self, recording: Tokens) -> Tensor:
        """Return the encoder's tokens, (B, M, D), and zeros where there is none."""
        return recording.x_BLD * recording.mask_BL[..., None]

    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Leave out rows without a recording."""
        return labelled_B & _has_recording(output)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean cross-entropy of the next id over rows that have a recording."""
        usable_B = self.learnable(output, target, labelled_B)
        if not bool(usable_B.any()):
            return output.sum() * 0.0  # zero, with zero gradients
        units_B = (target != NOTHING).sum(1)
        longest = int(units_B.max())
        ids_BL = target[:, :longest].long()
        mask_BM = (output != 0).any(-1)
        logits_BLV = self.decoder(ids_BL, output, mask_BM)
        return masked_mean(surprise(logits_BLV, ids_BL), usable_B)

    def write(self, output: Tensor, thorough: bool) -> Tensor:
        """Return ids, at most half as many again as the longest training text has."""
        half_as_many_again = max(self.longest * 3 // 2, 1)
        limit = min(half_as_many_again, self.most)
        beam = self.beam if thorough else 1
        texts = self.decoder.write(output, beam, limit)
        return ctc.padded(texts, ~_has_recording(output), ABSENT)

    def state(self) -> JSON:
        """Return what the decoder is made from, and the length of texts."""
        return {**self.network.state(), "longest": self.longest}


def _has_recording(output: Tensor) -> Tensor:
    """Return True where a row has any token that is not zero, (B,)."""
    return (output != 0).flatten(1).any(1)
