"""The decoder of a pretrained network that turns text into text, as T5, BART or Marian do.

Here it writes from the tokens of any inputs.

B rows, M tokens of memory, L steps, V ids, `NOTHING` among them, D the network's width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from plait.errors import RecipeError
from plait.pretrained import architecture as architectures
from plait.pretrained import files as weights
from plait.pretrained.architecture import config_of
from plait.pretrained.files import Architecture
from plait.pretrained.network import quiet
from plait.tasks.writing.spelling import NOTHING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPOSSIBLE = -1e4  # logit of an id that is not written, within the range of half precision


class PretrainedDecoder(nn.Module):
    """A pretrained decoder with the interface of `decoder.TextDecoder`.

    Its ids are the network's own, shifted by one, and `NOTHING` is the network's end of a text. The
    network's encoder is left out. The memory has the width `width`. Parameters take `rate` of the recipe's
    learning rate. `kind` is the class of transformers that makes the network, and `expected` what an error
    says about it.

    Every text comes after the network's own ids `prefix`. If that is empty, it comes after the network's
    begin of a text. The ids `never` are not written.
    """

    kind = "AutoModelForSeq2SeqLM"
    expected = "turn text into text; expected a model as T5, BART or Marian are"

    def __init__(
        self, architecture: Architecture, rate: float, prefix: Sequence[int] = (), never: Iterable[int] = ()
    ) -> None:
        super().__init__()
        try:
            import transformers
        except ModuleNotFoundError:
            raise RecipeError(
                "a pretrained decoder needs transformers: pip install 'plait[pretrained]'"
            ) from None

        settings = config_of(architecture)
        self.architecture = architecture
        self.loader = getattr(transformers, self.kind)
        if not settings.is_encoder_decoder:
            raise RecipeError(f"a {architecture.get('model_type')} does not {self.expected}")
        network = self.loader.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        self.network = _without_encoder(network)
        self.width = int(settings.hidden_size)
        self.rate = rate

        self.prefix = list(prefix) or [settings.decoder_start_token_id]
        self.end = settings.eos_token_id
        marks = {
            self.end,
            settings.decoder_start_token_id,
            settings.pad_token_id,
            getattr(settings, "bos_token_id", None),
            *never,
        }
        self.never = sorted(mark for mark in marks if mark is not None)

    def load(self, folder: Path) -> None:
        """Load the weights of the model in a folder."""
        with quiet():
            pretrained, _ = architectures.load(self.loader, folder, self.architecture)
            pretrained = _without_encoder(pretrained)
        self.network.load_state_dict(pretrained.state_dict())

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Yield parameters with their share of the recipe's learning rate."""
        for parameter in self.network.parameters():
            yield parameter, self.rate

    def forward(self, ids_BL: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        """Return logits (B, L + 1, V): of the first id, of the one after the first id, and so on."""
        from transformers.modeling_outputs import BaseModelOutput

        network_ids_BL = torch.where(ids_BL == NOTHING, self.end, ids_BL - 1)
        prefix_1L = torch.tensor([self.prefix], device=ids_BL.device)
        prefix_BL = prefix_1L.expand(len(ids_BL), -1)
        output = self.network(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory_BMD),
            attention_mask=mask_BM.long(),
            decoder_input_ids=torch.cat([prefix_BL, network_ids_BL], 1),
            use_cache=False,
        )

        # The last id of the prefix predicts the first one of the text.
        logits_BLV: Tensor = output.logits[:, len(self.prefix) - 1 :]
        end_BL1 = logits_BLV[..., self.end : self.end + 1]
        never = torch.tensor(self.never, device=logits_BLV.device)
        written_BLV = logits_BLV.index_fill(2, never, IMPOSSIBLE)
        return torch.cat([end_BL1, written_BLV], 2)


def files(model: str) -> tuple[Architecture, Tokenizer]:
    """Return the architecture and the tokenizer of a model, from its folder, a package, or the hub's cache.

    Raises `RecipeError` if it has no tokenizer.
    """
    folder = weights.find(model)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RecipeError(f"'{model}' has no tokenizer.json, expected in {folder}")
    architecture = weights.read_json(folder, "config.json")
    return architecture, Tokenizer.from_file(str(path))


def _without_encoder(network: PreTrainedModel) -> PreTrainedModel:
    """Replace the network's encoder, wherever it is referred to, by a module without parameters."""
    encoder = network.get_encoder()
    for name, module in list(network.named_modules()):
        if module is not encoder:
            continue
        parent_name, _, attribute = name.rpartition(".")
        parent = network.get_submodule(parent_name) if parent_name else network
        setattr(parent, attribute, nn.Identity())
    return network
