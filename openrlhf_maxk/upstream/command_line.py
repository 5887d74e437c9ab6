"""OpenRLHF's own command line, from its installed source: the parser to extend and the job to start.

Upstream builds its parser under ``if __name__ == "__main__"``. The statements up to ``parse_args`` are taken from
there, so that options can be checked before anything heavy is imported; the job is upstream's file, run as it is.
"""

from __future__ import annotations

import argparse
import ast
import copy
import runpy
from pathlib import Path
from unittest import mock

from openrlhf_maxk.upstream.seams import SeamError, source_file

MODULE = "openrlhf.cli.train_ppo_ray"


def upstream_parser() -> argparse.ArgumentParser:
    """OpenRLHF's parser of ``train_ppo_ray``, without importing anything of it.

    Raises:
        SeamError: if the installed source no longer has the expected shape.
    """
    file = source_file(MODULE)
    if file is None:
        raise SeamError(f"{MODULE} is not installed: pip install openrlhf==0.11.2")
    statements = _parser_statements(file)
    namespace: dict[str, object] = {}
    exec(compile(ast.Module(statements, type_ignores=[]), str(file), "exec"), namespace)
    parser = namespace.get("parser")
    if not isinstance(parser, argparse.ArgumentParser):
        raise SeamError(f"{file} no longer builds its parser as 'parser' before parse_args")
    return parser


def run_upstream(arguments: argparse.Namespace) -> None:
    """Run OpenRLHF's ``train_ppo_ray`` as a script, with ``arguments`` (flat, dotted names) as what it parses."""
    # Upstream changes the lists it is given.
    with mock.patch.object(argparse.ArgumentParser, "parse_args", return_value=copy.deepcopy(arguments)):
        runpy.run_module(MODULE, run_name="__main__")


def _parser_statements(file: Path) -> list[ast.stmt]:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom) and _is_light(node)]
    main = next((node for node in body if isinstance(node, ast.If)), None)
    if main is None:
        raise SeamError(f"{file} no longer has an 'if __name__' block that builds its parser")
    statements: list[ast.stmt] = []
    for node in main.body:
        if "parse_args" in ast.dump(node):
            return [*imports, *statements]
        statements.append(node)
    raise SeamError(f"{file} no longer calls parse_args in its 'if __name__' block")


def _is_light(node: ast.Import | ast.ImportFrom) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return all(name.partition(".")[0] in ("argparse", "os", "datetime") for name in names)
