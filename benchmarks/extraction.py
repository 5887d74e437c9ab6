"""How often the right program is found in a completion, by this package's rule and by those of other graders.

    python benchmarks/extraction.py [--show]

Every rule gets the same completions (``completions.py``); what it finds is run on the tests of the completion's
problem. The other rules are written here anew, from what these projects document and do:

- **open-r1**: the last block that begins with a fence directly followed by ``python`` and a new line, up to the next
  three backticks, wherever they are.
- **LiveCodeBench**: the lines between the last two lines that hold three backticks; for CodeLlama's style those that
  hold ``PYTHON]``; for base models the whole text. A completion counts if any of the three is right.
- **evalplus**: the longest run of lines that compiles; where a function is asked for, of that its imports and the
  definitions that the function needs. Counts if either is right.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future

from completions import COMPLETIONS

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.scoring.extraction import extract_program

TARGET = 0.97
Rule = Callable[[str, Problem | None], list[str]]


def ours(completion: str, problem: Problem | None) -> list[str]:
    program = extract_program(completion, bool(problem and problem.program_prefix))
    return [] if program is None else [program]


def open_r1(completion: str, problem: Problem | None) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", completion, re.DOTALL)
    return found[-1:]


def livecodebench(completion: str, problem: Problem | None) -> list[str]:
    lines = completion.split("\n")
    found = [completion.strip()] if "```" not in completion else []  # a base model's
    for mark in ("```", "PYTHON]"):
        at = [number for number, line in enumerate(lines) if mark in line]
        if len(at) >= 2:
            found.append("\n".join(lines[at[-2] + 1 : at[-1]]))
    return [program for program in found if program]


def evalplus(completion: str, problem: Problem | None) -> list[str]:
    before = problem.program_prefix + "\n" if problem and problem.program_prefix else ""
    longest = _longest_that_compiles(before + completion)
    if problem is None or problem.entry_point is None:
        return [longest] if longest.strip() else []
    return [longest, _needed(longest, problem.entry_point.split(".")[0])]


def _longest_that_compiles(text: str) -> str:
    lines = text.split("\n")
    best, most = "", 0
    for start in range(len(lines)):
        for end in range(len(lines), start, -1):
            filled = sum(1 for line in lines[start:end] if line.strip())
            if filled > most and _tree("\n".join(lines[start:end])) is not None:
                best, most = "\n".join(lines[start:end]), filled
    return best


def _tree(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _needed(source: str, entry: str) -> str:
    """Imports, and the definitions that ``entry`` reaches."""
    tree = _tree(source)
    body = tree.body if tree is not None else []
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    named: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            named.setdefault(node.name, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, node)
    reached, waiting = [], [entry]
    while waiting:
        name = waiting.pop()
        if name in named and name not in reached:
            reached.append(name)
            waiting += [node.id for node in ast.walk(named[name]) if isinstance(node, ast.Name)]
    return "\n".join(ast.unparse(node) for node in [*imports, *(named[name] for name in named if name in reached)])


RULES: dict[str, Rule] = {"ours": ours, "open-r1": open_r1, "LiveCodeBench": livecodebench, "evalplus": evalplus}


def judge() -> dict[str, list[bool]]:
    """Which completions each rule is right on."""
    pending: dict[str, list[list[Future[ProgramResult]] | bool]] = {name: [] for name in RULES}
    with Executor() as executor:
        for problem, completion in COMPLETIONS:
            for name, rule in RULES.items():
                found = rule(completion, problem)
                if problem is None:
                    pending[name].append(not found)
                else:
                    pending[name].append([executor.submit(program, problem) for program in found])
        return {
            name: [
                told if isinstance(told, bool) else any(run.result().all_passed == 1.0 for run in told)
                for told in of_rule
            ]
            for name, of_rule in pending.items()
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="the completions on which ours is wrong")
    options = parser.parse_args()
    warnings.simplefilter("ignore", SyntaxWarning)
    right = judge()
    print(f"{len(COMPLETIONS)} completions")
    for name, of_rule in right.items():
        print(f"  {name:14} {sum(of_rule):4}  {sum(of_rule) / len(of_rule):6.1%}")
    others = [any(right[name][i] for name in RULES if name != "ours") for i in range(len(COMPLETIONS))]
    behind = [i for i, of_others in enumerate(others) if of_others and not right["ours"][i]]
    print(f"another one is right, ours is not: {len(behind)}")
    if options.show:
        for i, (_, completion) in enumerate(COMPLETIONS):
            if not right["ours"][i]:
                print(f"--- {i}{' (another one is right)' if i in behind else ''}\n{completion}")
    reached = sum(right["ours"]) >= TARGET * len(COMPLETIONS) and not behind
    print(f"target {TARGET:.0%}, and never behind: {'reached' if reached else 'MISSED'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
