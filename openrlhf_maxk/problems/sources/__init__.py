"""The data sets that problems come from: how each is found, read, converted, validated and written."""

from __future__ import annotations

from openrlhf_maxk.problems.sources.datasets.codecontests import CodeContests
from openrlhf_maxk.problems.sources.datasets.codeforces import CodeForces
from openrlhf_maxk.problems.sources.datasets.livebench import LiveBench
from openrlhf_maxk.problems.sources.datasets.livecodebench import LiveCodeBench
from openrlhf_maxk.problems.sources.datasets.mbpp import Mbpp
from openrlhf_maxk.problems.sources.datasets.mini import Mini
from openrlhf_maxk.problems.sources.datasets.own import Own
from openrlhf_maxk.problems.sources.source import Source

ALL = (CodeContests, LiveCodeBench, LiveBench, CodeForces, Mbpp, Mini, Own)
SOURCES: dict[str, type[Source]] = {s.name: s for s in ALL}
