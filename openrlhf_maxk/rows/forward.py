"""OpenRLHF's ``Actor`` with the row in place of its padded batch, wherever both say the same."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from openrlhf_maxk.machine import has_flash_attn
from openrlhf_maxk.rows.attention import LAYOUT, register, without_masks
from openrlhf_maxk.rows.check import Verdict, few, verdict
from openrlhf_maxk.rows.head import in_place_of, token_scores
from openrlhf_maxk.rows.layout import RowLayout
from openrlhf_maxk.upstream.seams import Upstream


class GroupRows(Upstream):
    """In front of OpenRLHF's ``Actor``: log-probs of completions from rows (see :mod:`openrlhf_maxk.rows.layout`).

    The first batch is computed both ways. A model for which they differ, or that has no such attention, is computed
    upstream's way from then on.

    Attributes:
        rows: what was found; None before the first batch. ``Verdict(False, ...)`` set from outside turns rows off.
        entropy_gradient: whether the entropy of the last pass is trained on.
    """

    def __init__(self, pretrain_or_model: Any, attn_implementation: str = "flash_attention_2", **kwargs: Any) -> None:
        # A row is packed. Upstream's own packing takes apart what a row shares, and chooses flash-attn for it.
        if kwargs.pop("packing_samples", False) and not has_flash_attn():
            attn_implementation = "sdpa"
        super().__init__(pretrain_or_model, attn_implementation, packing_samples=False, **kwargs)
        self.rows: Verdict | None = None
        self.entropy_gradient = True
        self._logits = False  # whether the output layer's logits are changed by the model, so that it must see them
        register()

    def forward(
        self,
        sequences: torch.Tensor,
        action_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_output: bool = False,
        return_entropy: bool = False,
        **options: Any,
    ) -> Any:
        """As upstream's: log-probs (B, A) of the actions, 0 elsewhere; with ``return_output`` the model's output too,
        whose ``entropy`` is (B, A). Its logits are not kept."""
        unlike = options.get("return_logprobs") or getattr(self, "is_vlm", False)  # all positions, or images
        if action_mask is not None and attention_mask is not None and not unlike:
            if self.rows is None:
                self.rows = self._compare(sequences, action_mask, attention_mask)
            if self.rows.agree:
                log_probs, output = self._row_forward(sequences, action_mask, attention_mask, return_entropy)
                return (log_probs, output) if return_output else log_probs
        return super().forward(
            sequences, action_mask, attention_mask, return_output, return_entropy=return_entropy, **options
        )

    def _row_forward(
        self, sequences: torch.Tensor, action_mask: torch.Tensor, attention_mask: torch.Tensor, entropy: bool = False
    ) -> tuple[torch.Tensor, Any]:
        layout = RowLayout.of(sequences, attention_mask, action_mask).to(sequences.device)
        head = self.model.get_output_embeddings()
        vocabulary = getattr(head.weight, "ds_shape", head.weight.shape)[0]  # ZeRO-3 keeps a part of it
        # A row without actions still goes through the output layer, so that ranks stay in step.
        none = len(layout.targets) == 0
        sources, targets = (layout.sources.new_zeros(1),) * 2 if none else (layout.sources, layout.targets)

        def scores(own: Any, hidden: torch.Tensor) -> torch.Tensor:
            found = token_scores(own, hidden[0], targets, self.temperature, entropy, self.entropy_gradient, vocabulary)
            return found[None]

        with without_masks(), nullcontext() if self._logits else in_place_of(head, scores):
            output = self.model(
                layout.tokens[None],
                attention_mask=layout.uses[None],
                position_ids=layout.positions[None],
                logits_to_keep=sources,
                **{LAYOUT: layout},
            )
        found = (scores(nn.Identity(), output["logits"]) if self._logits else output["logits"])[0].float()
        matrix = found.new_zeros(layout.shape[0] * layout.shape[1], 2)
        matrix = matrix + 0.0 * found.sum() if none else matrix.index_copy(0, layout.places, found)
        log_probs, spread = matrix.view(*layout.shape, 2).unbind(-1)
        output["logits"] = None
        if entropy:
            output.entropy = spread
        return log_probs, output

    @torch.no_grad()
    def _compare(self, sequences: torch.Tensor, action_mask: torch.Tensor, attention_mask: torch.Tensor) -> Verdict:
        """Both passes on a few sequences of the batch, on all ranks at the same time."""
        batch = few((sequences, action_mask, attention_mask))

        def padded(sequences: torch.Tensor, actions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
            return super(GroupRows, self).forward(sequences, actions, present)

        def in_a_row(sequences: torch.Tensor, actions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
            return self._row_forward(sequences, actions, present)[0]

        model = self.model
        while isinstance(inner := getattr(model, "module", None), nn.Module):
            model = inner
        training = self.training
        self.eval()
        try:
            for self._logits in (False, True):
                found = verdict(padded, in_a_row, batch, model.config, getattr(model, "dtype", torch.float32))
                if found.agree:
                    break
            return found
        finally:
            self.train(training)
