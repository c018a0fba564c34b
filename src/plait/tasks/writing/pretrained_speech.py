"""The decoder of a pretrained network that generates text from speech, as Whisper does, to be trained
further.

B rows, M tokens of memory, D the network's width.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from plait.errors import RecipeError, nearest
from plait.pretrained import files as weights
from plait.pretrained.files import Architecture
from plait.tasks.writing.pretrained_decoder import PretrainedDecoder, files
from plait.tasks.writing.spelling import Form, Spelling


def aligns(model: str) -> bool:
    """Whether a network that writes what is said is one for CTC (as Wav2Vec2ForCTC), or generates text
    (as Whisper). Raises `RecipeError` where it is neither.
    """
    kind = (weights.read_json(weights.find(model), "config.json").get("architectures") or ["?"])[0]
    if not kind.endswith(("ForCTC", "ForConditionalGeneration", "ForSpeechSeq2Seq")):
        raise RecipeError(
            f"'{model}' is a {kind}; expected one for CTC, or one that generates text from speech, as "
            f"Whisper does"
        )
    return bool(kind.endswith("ForCTC"))


class SpeechDecoder(PretrainedDecoder):
    """What `PretrainedDecoder` is, over the tokens of the network's own encoder."""

    kind = "AutoModelForSpeechSeq2Seq"
    expected = "generate text from speech; expected a model as Whisper is"

    def write(self, memory_BMD: Tensor, beam: int, limit: int) -> list[list[int]]:
        """Ids of each row by transformers' own search (whose keys and values are kept from id to id),
        `limit` of them at most.
        """
        from transformers import GenerationConfig, GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        prefix = torch.tensor([self.prefix], device=memory_BMD.device).expand(len(memory_BMD), -1)
        asked = GenerationConfig(
            num_beams=beam,
            do_sample=False,
            max_new_tokens=limit,
            suppress_tokens=[i for i in self.never if i != self.end] or None,
            eos_token_id=self.end,
            pad_token_id=self.end,
            decoder_start_token_id=self.prefix[0],
        )
        memory, mask_BM = (
            BaseModelOutput(last_hidden_state=memory_BMD),
            memory_BMD.new_ones(memory_BMD.shape[:2], dtype=torch.long),
        )
        # Whisper's own `generate` reads whole recordings; this is what it calls for each stretch
        given = {"encoder_outputs": memory, "attention_mask": mask_BM, "decoder_input_ids": prefix}
        found = GenerationMixin.generate(self.network, generation_config=asked, **given)
        texts = found[:, len(self.prefix) :].tolist()
        return [[i + 1 for i in (ids[: ids.index(self.end)] if self.end in ids else ids)] for ids in texts]


def files_for(model: str, language: str, form: Form) -> tuple[Architecture, Spelling, list[int], list[int]]:
    """The form of a network that generates text from speech; how it spells; the ids that come before
    every text, those of the language among them where the network knows several; and those that are
    never written, marks of time and the like. Raises `RecipeError` where the network does not know the
    language, or needs to be told one.
    """
    architecture, tokenizer = files(model)
    says = weights.read_json(weights.find(model), "generation_config.json")
    known: dict[str, int] = {name.strip("<|>"): i for name, i in (says.get("lang_to_id") or {}).items()}
    if language and not known:
        raise RecipeError(f"'{model}' knows one language only: leave out language={language}")
    if known and language not in known:
        came = (
            f"no language '{language}': {nearest(language, known)}"
            if language
            else "say which one is spoken, as in language: en"
        )
        raise RecipeError(f"'{model}' knows {len(known)} languages; {came}")
    prefix = [says.get("decoder_start_token_id", architecture.get("decoder_start_token_id"))]
    prefix += [known[language], (says.get("task_to_id") or {}).get("transcribe")] if known else []
    prefix.append(says.get("no_timestamps_token_id", tokenizer.token_to_id("<|notimestamps|>")))
    added = tokenizer.get_added_tokens_decoder()
    never = [i for i, token in added.items() if token.special or token.content.startswith("<|")]
    return (
        architecture,
        Spelling.pretrained(tokenizer, form, _begun(tokenizer)),
        [i for i in prefix if i is not None],
        never,
    )


def _begun(tokenizer: Tokenizer) -> str:
    """What such a network writes before a text's first word: a blank, where words begin with one."""
    return (
        " "
        if tokenizer.encode(" a", add_special_tokens=False).ids
        != tokenizer.encode("a", add_special_tokens=False).ids
        else ""
    )
