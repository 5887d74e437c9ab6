"""Where each token of a batch stands when equal prompts are computed once: data and index arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Lengths:
    """Parts of a flat sequence of tokens, one behind the other, and how they lie in a padded matrix.

    Attributes:
        starts: where each part begins, int64, shape (N,).
        sizes: its number of tokens, int64, shape (N,).
        longest: the largest of them.
        padded: for each place of the matrix (N, longest) the token that stands there, counted from the first of all
            parts, flattened; padding repeats the part's last token (a part of no tokens: token 0).
        flat: for each token, in order, its place in the flattened matrix.
    """

    starts: torch.Tensor
    sizes: torch.Tensor
    longest: int
    padded: torch.Tensor
    flat: torch.Tensor

    @property
    def full(self) -> bool:
        """Whether all parts have the same size, so that nothing is padded."""
        return self.flat.shape == self.padded.shape

    @classmethod
    def of(cls, sizes: torch.Tensor, offset: int = 0) -> Lengths:
        """Parts of these sizes, the first of which begins at ``offset``."""
        starts = offset + sizes.cumsum(0) - sizes
        longest = int(sizes.max()) if len(sizes) else 0
        columns = torch.arange(longest)
        within = torch.minimum(columns, (sizes - 1).clamp(min=0)[:, None])
        padded = torch.where((sizes > 0)[:, None], starts[:, None] - offset + within, 0)
        flat = torch.nonzero((columns < sizes[:, None]).flatten()).squeeze(-1)
        return cls(starts, sizes, longest, padded.flatten(), flat)


@dataclass(frozen=True, slots=True)
class RowLayout:
    """A padded batch of B sequences as one row of T tokens: every distinct prompt, then every completion.

    A sequence's prompt is all of it before its first action token; neighbours with the same prompt share it. The
    completion is the rest, tokens between the actions of several turns included. A token sees the tokens of its own
    sequence up to itself, in either part.

    Attributes:
        tokens: int64, shape (T,).
        positions: of each token in its own sequence, int64, shape (T,).
        uses: the number of sequences that a token belongs to, int64, shape (T,): 1 in completions.
        prompts: the G distinct prompts, in the row's first tokens.
        completions: the B completions, behind them; some may have no tokens.
        owner: the prompt of each completion, int64, shape (B,).
        groups: the tokens of all completions of each prompt, as parts, G of them.
        sources: the token in the row from which each action token is predicted, int64, shape (M,).
        targets: the action tokens, int64, shape (M,).
        places: the place of each action token in a matrix (B, A), flattened, int64, shape (M,).
        shape: (B, A).
        kept: what attention makes of it, kept by the first layer for the others.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    uses: torch.Tensor
    prompts: Lengths
    completions: Lengths
    owner: torch.Tensor
    groups: Lengths
    sources: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor
    shape: tuple[int, int]
    kept: dict[int | str | None, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sequences: torch.Tensor, attention_mask: torch.Tensor, action_mask: torch.Tensor) -> RowLayout:
        """Lay out a batch, on the CPU.

        Args:
            sequences: token ids, shape (B, L), padded on either side.
            attention_mask: 1 for tokens, 0 for padding, shape (B, L).
            action_mask: 1 for the tokens whose log-probs are wanted, of the last A columns of the batch, shape (B, A).

        Raises:
            ValueError: if a sequence begins with an action token, which nothing predicts.
        """
        present, wanted = attention_mask.cpu().bool(), action_mask.cpu().bool()
        rows, width = present.shape
        actions = torch.zeros_like(present)
        actions[:, width - wanted.shape[1] :] = wanted
        actions &= present
        sizes = present.sum(1)
        # The sequences without their padding, on the left of matrices (B, longest).
        order = (~present).long().argsort(dim=1, stable=True)[:, : int(sizes.max())]
        ids, acts = sequences.cpu().gather(1, order), actions.gather(1, order)
        columns = torch.arange(ids.shape[1])
        prompt_sizes = torch.where(acts.any(1), acts.long().argmax(1), sizes)
        if bool((prompt_sizes < 1).any()):
            raise ValueError("a sequence begins with an action token: there is nothing that it is predicted from")
        differs = ((ids[1:] != ids[:-1]) & (columns < prompt_sizes[1:, None])).any(1)
        first = torch.ones(rows, dtype=torch.bool)
        first[1:] = differs | (prompt_sizes[1:] != prompt_sizes[:-1])
        owner = first.long().cumsum(0) - 1

        prompts = Lengths.of(prompt_sizes[first])
        offset = int(prompts.sizes.sum())
        completions = Lengths.of(sizes - prompt_sizes, offset)
        together = torch.zeros_like(prompts.sizes).index_add_(0, owner, completions.sizes)
        in_prompt = first[:, None] & (columns < prompt_sizes[:, None])
        in_completion = (columns >= prompt_sizes[:, None]) & (columns < sizes[:, None])
        position = columns.expand(rows, -1)
        sharing = torch.bincount(owner, minlength=len(prompts.sizes))
        total = int(completions.sizes.sum())

        row, column = torch.nonzero(acts, as_tuple=True)
        at_prompt = column == prompt_sizes[row]
        last_of_prompt = (prompts.starts + prompts.sizes - 1)[owner[row]]
        before = completions.starts[row] + column - prompt_sizes[row] - 1
        places = torch.nonzero(actions[:, width - wanted.shape[1] :].flatten()).squeeze(-1)
        return cls(
            torch.cat([ids[in_prompt], ids[in_completion]]),
            torch.cat([position[in_prompt], position[in_completion]]),
            torch.cat([sharing.repeat_interleave(prompts.sizes), torch.ones(total, dtype=torch.long)]),
            prompts,
            completions,
            owner,
            Lengths.of(together, offset),
            torch.where(at_prompt, last_of_prompt, before),
            ids[row, column],
            places,
            (rows, wanted.shape[1]),
        )

    def to(self, device: torch.device | int | str) -> RowLayout:
        """The same on a device."""
        return _moved(self, device)


def _moved(part: Any, device: torch.device | int | str) -> Any:
    values = []
    for column in fields(part):
        value = getattr(part, column.name)
        if isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=True)
        elif isinstance(value, Lengths):
            value = _moved(value, device)
        values.append(value)
    return type(part)(*values)
