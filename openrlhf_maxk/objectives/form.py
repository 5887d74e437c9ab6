"""The two surrogate losses that a weight can be made for."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """What the loss multiplies a weight with. Only one of the two carries the completion's own ratio ρ_i.

    ``RATIO``: Σ_i ρ_i · sg(A_i), as PPO does; its gradient is Σ_i ρ_i A_i ∇log π(y_i|x).
    ``SCORE``: Σ_i log π(y_i|x) · sg(g_i), as REINFORCE does; g_i = ρ_i A_i gives the same gradient.
    """

    RATIO = "ratio"
    SCORE = "score"

    @classmethod
    def named(cls, form: Form | str) -> Form:
        """Return the form of that name.

        Raises:
            ValueError: no such form.
        """
        if form not in tuple(cls):
            raise ValueError(f"form must be one of {', '.join(cls)}, got {form!r}")
        return cls(form)
