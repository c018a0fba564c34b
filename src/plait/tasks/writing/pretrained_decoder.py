"""The decoder of a pretrained network that turns text into text (as T5, BART or Marian), which writes
about other things here.

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
from plait.pretrained import files as weights
from plait.pretrained.files import Architecture
from plait.pretrained.network import NOT_FORM, quiet
from plait.tasks.writing.spelling import NOTHING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PretrainedDecoder(nn.Module):
    """What `decoder.TextDecoder` is, with the network's own ids shifted by one: `NOTHING` is its end of
    a text. Its encoder is left out. The width of the memory that it attends to is `width`; its
    parameters take `rate` of the recipe's learning rate. `kind` is the class of transformers that makes
    it; what it writes comes after the network's own ids `prefix`, its begin of a text if empty.
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
        settings = transformers.AutoConfig.for_model(
            **{k: v for k, v in architecture.items() if k not in NOT_FORM}
        )
        self.loader = getattr(transformers, self.kind)
        if not settings.is_encoder_decoder:
            raise RecipeError(f"a {architecture.get('model_type')} does not {self.expected}")
        self.network = _without_encoder(
            self.loader.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        )
        self.prefix, self.end = list(prefix) or [settings.decoder_start_token_id], settings.eos_token_id
        marks = {
            self.end,
            settings.decoder_start_token_id,
            settings.pad_token_id,
            getattr(settings, "bos_token_id", None),
            *never,
        }
        self.never = sorted(i for i in marks if i is not None)
        self.width, self.rate = int(settings.hidden_size), rate

    def load(self, folder: Path) -> None:
        """Takes the weights of a folder's model."""
        safely = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
        with quiet():
            given = _without_encoder(self.loader.from_pretrained(folder, dtype=torch.float32, **safely))
        self.network.load_state_dict(given.state_dict())

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        yield from ((parameter, self.rate) for parameter in self.network.parameters())

    def forward(self, ids_BL: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        """(B, L + 1, V)."""
        from transformers.modeling_outputs import BaseModelOutput

        own_BL = torch.where(ids_BL == NOTHING, self.end, ids_BL - 1)
        began_BL = torch.cat(
            [torch.tensor([self.prefix], device=ids_BL.device).expand(len(ids_BL), -1), own_BL], 1
        )
        memory = BaseModelOutput(last_hidden_state=memory_BMD)
        found = self.network(
            encoder_outputs=memory, attention_mask=mask_BM.long(), decoder_input_ids=began_BL, use_cache=False
        )
        logits_BLV: Tensor = found.logits[:, len(self.prefix) - 1 :]
        end_BL1 = logits_BLV[..., self.end : self.end + 1]
        kept_BLV = logits_BLV.index_fill(2, torch.tensor(self.never, device=logits_BLV.device), -1e4)
        return torch.cat([end_BL1, kept_BLV], 2)


def files(model: str) -> tuple[Architecture, Tokenizer]:
    """The form and the tokenizer of a model, from its folder, a package, or the hub's cache. Raises
    `RecipeError`.
    """
    folder = weights.find(model)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RecipeError(f"'{model}' has no tokenizer.json, in {folder}")
    return weights.read_json(folder, "config.json"), Tokenizer.from_file(str(path))


def _without_encoder(network: PreTrainedModel) -> PreTrainedModel:
    encoder = network.get_encoder()
    for name, part in list(network.named_modules()):
        if part is encoder:
            parent = network.get_submodule(name.rpartition(".")[0]) if "." in name else network
            setattr(parent, name.rpartition(".")[2], nn.Identity())
    return network
