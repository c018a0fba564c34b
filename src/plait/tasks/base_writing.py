"""Tasks that write their answer step by step, from the tokens of their inputs."""

from __future__ import annotations

from plait.tasks.base_tokens import TokenTask


class Writing(TokenTask):
    """A text or speech.

    `forward` gives what the loss and `decode` need: (B, ...), and zeros where there is nothing. `decode`
    writes the answer from it.
    """

    writes = True
    sorts_by_length = True
