"""Mix rows, so that a model learns what lies between them. B rows, L tokens, D width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plait.nn.batch import Encoded, Tokens


@dataclass(frozen=True)
class Mixing:
    """Mixed rows: each row counts with `share`, its partner with `1 - share` (Zhang et al. 2018, "mixup")."""

    share: float
    partner_B: Tensor

    @classmethod
    def draw(cls, alpha: float, sizes: Iterable[int], device: torch.device) -> list[Mixing]:
        """Draw one share for a batch from Beta(alpha, alpha), and random partners (eq. 1 and its code).

        The batch comes in micro-batches of these sizes, and a row's partner is in its own micro-batch.
        """
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        mixings = []
        for rows in sizes:
            partner_B = torch.randperm(rows)
            mixings.append(cls(share, partner_B.to(device, non_blocking=True)))
        return mixings

    def mixed(self, encoded: Encoded) -> Encoded:
        """Mix all columns of each row with its partner's. A cell that only one of the two has stays."""
        tokens = {column: self._mixed_tokens(row) for column, row in encoded.tokens.items()}
        return Encoded(tokens, self.either(encoded.present), self.either(encoded.in_table))

    def _mixed_tokens(self, row: Tokens) -> Tokens:
        """Mix the tokens of a column. A token that only one of two rows has stays."""
        row_BLD, row_mask_BL = row.x_BLD, row.mask_BL
        partner_BLD = row_BLD[self.partner_B]
        partner_mask_BL = row_mask_BL[self.partner_B]

        has_both_BL = row_mask_BL & partner_mask_BL
        has_partner_only_BL = partner_mask_BL & ~row_mask_BL
        mean_BLD = self.share * row_BLD + (1 - self.share) * partner_BLD
        mixed_BLD = torch.where(has_both_BL[..., None], mean_BLD, row_BLD)
        mixed_BLD = torch.where(has_partner_only_BL[..., None], partner_BLD, mixed_BLD)
        return Tokens(mixed_BLD, row_mask_BL | partner_mask_BL)

    def either(self, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each column where a row or its partner has it."""
        return {column: mask_B | mask_B[self.partner_B] for column, mask_B in mask.items()}
