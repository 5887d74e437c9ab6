"""The reference model of a learner rank."""

from __future__ import annotations

from typing import Any

from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.rows.check import OFF
from openrlhf_maxk.upstream.seams import Upstream


class GroupReference(Upstream):
    """In front of OpenRLHF's ``ReferenceModelActor``: it is told whether to compute groups as rows."""

    def init_model_from_pretrained(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """As upstream."""
        super().init_model_from_pretrained(strategy, *args, **kwargs)
        if options_of(strategy.args).rows == "off":
            self.model.rows = OFF
