"""Everything that can be known to be wrong with a run before it starts, said with the fix."""

from __future__ import annotations

from typing import Any

from openrlhf_maxk.options.adapter import adapter
from openrlhf_maxk.options.counts import counts
from openrlhf_maxk.options.inputs import disk, inputs
from openrlhf_maxk.options.maxk import MaxKOptions, good_and_bad
from openrlhf_maxk.options.refusals.rule import Run
from openrlhf_maxk.options.table import RULES
from openrlhf_maxk.platform import is_cpu


class BadOptions(ValueError):
    """One line for each thing that is wrong."""


def validate(args: Any) -> MaxKOptions:
    """Check the nested arguments of a run (as OpenRLHF's ``hierarchize`` makes them).

    Raises:
        BadOptions: with all that is wrong, each with its fix.
    """
    maxk, bad = good_and_bad(args)
    run = Run(args, maxk, is_cpu())
    refused = (line for rule in RULES for line in rule.lines(run))
    wrong = [*bad, *counts(args, maxk), *refused, *inputs(args, maxk), *adapter(args), *disk(args)]
    if wrong:
        raise BadOptions("\n".join(wrong))
    return maxk
