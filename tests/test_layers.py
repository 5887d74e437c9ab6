"""Imports point one way: each room may use those above it in the list; nothing reaches up or goes in circles."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import openrlhf_maxk

PACKAGE = Path(openrlhf_maxk.__file__).parent
MOST_FILES = 15

# Each line may import from the lines above it. Rooms on one line do not know each other.
LAYERS = """
objectives   platform   machine   console   problems.record   problems.verdict   problems.atomic   rewards.sandbox
problems.store
problems.mini
problems.sources.options
problems.sources.source
problems.sources.reading
problems.sources.conversion
problems.sources.formats
problems.sources.datasets
problems.sources.preparation   problems.sources
rewards.request   rewards.judging
rewards.execution
rewards.scoring
rewards.serving
rewards.check   rewards.serve   best_of   upstream
options   cpu
rows
experience
rollout   evaluation.samples   evaluation.statistics
evaluation.scoring
evaluation.reports
evaluation.pipeline   evaluation.during_training
learner
installation
experiment
cli
"""
RANKS = {room: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for room in line.split()}


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """What each module imports of the package, at its top or inside a function; names without the package's own."""
    files = {".".join(file.relative_to(package).with_suffix("").parts): file for file in package.rglob("*.py")}
    return {module: set(_imported(module, file, files)) for module, file in files.items()}


def _imported(module: str, file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("openrlhf_maxk."))
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            full = ".".join([*above, *([node.module] if node.module else [])])
            if not node.level and full.partition(".")[0] != "openrlhf_maxk":
                continue
            base = full if node.level else full.partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield next((name for name in (inner, f"{inner}.__init__", base) if name in files), f"{base}.__init__")


def room_of(module: str) -> str:
    """The longest name in the list that the module belongs to."""
    parts = module.removesuffix(".__init__").split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in RANKS), "")


def upward(found: Mapping[str, set[str]]) -> list[str]:
    """The imports that do not go to a room above in the list, or stay in the same one."""
    return [
        f"{module} imports {other}"
        for module, others in found.items()
        for other in others
        if room_of(module)
        and room_of(other)
        and room_of(module) != room_of(other)
        and RANKS[room_of(other)] >= RANKS[room_of(module)]
    ]


def test_every_module_has_its_room():
    doors = {"__init__", "rewards.__init__", "problems.__init__", "evaluation.__init__"}  # nothing but a docstring
    assert {module for module in imports() if not room_of(module)} == doors


def test_nothing_reaches_up():
    assert upward(imports()) == []


def test_no_circles():
    TopologicalSorter(imports()).prepare()


@pytest.fixture
def with_line(tmp_path: Path) -> Callable[[str, str], dict[str, set[str]]]:
    """The imports of the package when a line is added to one of its files."""

    def add(file: str, line: str) -> dict[str, set[str]]:
        copy = shutil.copytree(PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
        with (copy / file).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
        return imports(copy)

    return add


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("problems/store.py", "from openrlhf_maxk.rewards.execution.executor import Executor"),
        ("rewards/serving/pool.py", "def late():\n    from openrlhf_maxk.options import maxk"),
        ("rewards/sandbox/lane.py", "import openrlhf_maxk.rewards.judging.jobs"),
        ("rewards/judging/jobs.py", "from ..execution import executor"),
        ("evaluation/statistics/scores.py", "from openrlhf_maxk.evaluation.reports.tables import table"),
    ],
)
def test_an_import_that_reaches_up_is_found(with_line, file, line):
    (found,) = upward(with_line(file, line))
    assert found.startswith(file.removesuffix(".py").replace("/", "."))


def test_a_circle_inside_a_room_is_found(with_line):
    found = with_line("rewards/judging/comparators.py", "def late():\n    from . import judge")
    assert upward(found) == []
    with pytest.raises(CycleError, match=r"rewards\.judging\.judge"):
        TopologicalSorter(found).prepare()


def test_no_room_is_crowded():
    folders = [folder for folder in PACKAGE.rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    files = {folder: [file for file in folder.iterdir() if file.is_file()] for folder in (PACKAGE, *folders)}
    assert {str(folder): len(inside) for folder, inside in files.items() if len(inside) > MOST_FILES} == {}
