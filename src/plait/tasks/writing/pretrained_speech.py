"""The decoder of a pretrained network that generates text from speech, as Whisper does.

It is trained further.

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
    """Return whether a network is for CTC (as Wav2Vec2ForCTC), and does not generate text (as Whisper).

    Raises `RecipeError` if it is neither.
    """
    config = weights.read_json(weights.find(model), "config.json")
    architectures = config.get("architectures") or ["?"]
    kind = architectures[0]
    if not kind.endswith(("ForCTC", "ForConditionalGeneration", "ForSpeechSeq2Seq")):
        raise RecipeError(
            f"'{model}' is a {kind}; expected one for CTC, or one that generates text from speech, as "
            f"Whisper does"
        )
    return bool(kind.endswith("ForCTC"))


class SpeechDecoder(PretrainedDecoder):
    """A pretrained decoder that reads the tokens of the network's own encoder."""

    kind = "AutoModelForSpeechSeq2Seq"
    expected = "generate text from speech; expected a model as Whisper is"

    def write(self, memory_BMD: Tensor, beam: int, limit: int) -> list[list[int]]:
        """Return the ids of each row, `limit` of them at most, by transformers' own beam search.

        That search caches keys and values from id to id, which `decoder.search` does not.
        """
        from transformers import GenerationConfig, GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        rows, tokens = memory_BMD.shape[:2]
        prefix_1L = torch.tensor([self.prefix], device=memory_BMD.device)
        prefix_BL = prefix_1L.expand(rows, -1)

        # The end of a text is among the ids that are never written, but this search needs it.
        suppressed = [mark for mark in self.never if mark != self.end]
        config = GenerationConfig(
            num_beams=beam,
            do_sample=False,
            max_new_tokens=limit,
            suppress_tokens=suppressed or None,
            eos_token_id=self.end,
            pad_token_id=self.end,
            decoder_start_token_id=self.prefix[0],
        )

        # Whisper's own `generate` expects whole recordings. It calls this method for each window.
        output_BL = GenerationMixin.generate(
            self.network,
            generation_config=config,
            encoder_outputs=BaseModelOutput(last_hidden_state=memory_BMD),
            attention_mask=memory_BMD.new_ones((rows, tokens), dtype=torch.long),
            decoder_input_ids=prefix_BL,
        )

        # Our ids are the network's plus one.
        texts = []
        for ids in output_BL[:, len(self.prefix) :].tolist():
            if self.end in ids:
                ids = ids[: ids.index(self.end)]
            texts.append([network_id + 1 for network_id in ids])
        return texts


def files_for(model: str, language: str, form: Form) -> tuple[Architecture, Spelling, list[int], list[int]]:
    """Return the architecture, the spelling, the ids before every text, and the ids that are never written.

    The model generates text from speech. The ids before a text name the language if the network knows
    several. The ids that are never written are time marks and the like. Raises `RecipeError` if the network
    does not know the language, or if it needs one and none is named.
    """
    architecture, tokenizer = files(model)
    settings = weights.read_json(weights.find(model), "generation_config.json")
    id_of_language: dict[str, int] = {}
    for mark, token_id in (settings.get("lang_to_id") or {}).items():
        id_of_language[mark.strip("<|>")] = token_id
    _check_language(model, language, id_of_language)

    # The order is Whisper's: begin, language, task, no time marks. Ids that the network lacks are None.
    begin = architecture.get("decoder_start_token_id")
    marks = [settings.get("decoder_start_token_id", begin)]
    if id_of_language:
        id_of_task = settings.get("task_to_id") or {}
        marks += [id_of_language[language], id_of_task.get("transcribe")]
    no_time_marks = tokenizer.token_to_id("<|notimestamps|>")
    marks.append(settings.get("no_timestamps_token_id", no_time_marks))
    prefix = [mark for mark in marks if mark is not None]

    never = []
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        if token.special or token.content.startswith("<|"):
            never.append(token_id)
    spelling = Spelling.pretrained(tokenizer, form, _first_blank(tokenizer))
    return architecture, spelling, prefix, never


def _check_language(model: str, language: str, languages: dict[str, int]) -> None:
    """Raise `RecipeError` if the network does not know the language, or needs one and none is named."""
    if language and not languages:
        raise RecipeError(f"'{model}' knows one language only: leave out language={language}")
    if not languages or language in languages:
        return
    if language:
        hint = f"no language '{language}': {nearest(language, languages)}"
    else:
        hint = "say which one is spoken, as in language: en"
    raise RecipeError(f"'{model}' knows {len(languages)} languages; {hint}")


def _first_blank(tokenizer: Tokenizer) -> str:
    """Return the blank before a text's first word, if the tokenizer's words begin with one."""
    with_blank = tokenizer.encode(" a", add_special_tokens=False).ids
    without_blank = tokenizer.encode("a", add_special_tokens=False).ids
    return " " if with_blank != without_blank else ""
