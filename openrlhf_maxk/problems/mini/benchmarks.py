"""The embedded benchmarks: what each is made of. Tokenizer and base model are made the same way for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

from openrlhf_maxk.problems.mini import demonstrations, generator, language, shortcuts, splits, tokenizer
from openrlhf_maxk.problems.mini.demonstrations import Demonstration
from openrlhf_maxk.problems.mini.splits import ProblemSettings
from openrlhf_maxk.problems.mini.words import demonstrations as word_demonstrations
from openrlhf_maxk.problems.mini.words import generator as word_generator
from openrlhf_maxk.problems.mini.words import language as word_language
from openrlhf_maxk.problems.record import Problem, ReferenceSolution


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark. ``code`` is what its problems and demonstrations depend on."""

    name: str  # its data source
    generate: Callable[[ProblemSettings], Iterator[tuple[Problem, ReferenceSolution]]]
    demonstrations: Callable[[int], Iterator[Demonstration]]
    vocabulary: Callable[[], tuple[str, ...]]
    code: tuple[ModuleType, ...]


PROGRAMS = Benchmark(
    "mini",
    generator.generate,
    demonstrations.demonstrations,
    tokenizer.vocabulary,
    (splits, language, generator, demonstrations),
)
SHORTCUTS = Benchmark(
    "mini",
    generator.generate,
    shortcuts.demonstrations,
    tokenizer.vocabulary,
    (splits, language, generator, demonstrations, shortcuts),
)
WORDS = Benchmark(
    "mini_words",
    word_generator.generate,
    word_demonstrations.demonstrations,
    word_language.vocabulary,
    (splits, word_language, word_generator, word_demonstrations),
)
BENCHMARKS: Mapping[str, Benchmark] = {"programs": PROGRAMS, "shortcuts": SHORTCUTS, "words": WORDS}
