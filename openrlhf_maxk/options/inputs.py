"""What a run reads and where it writes: models, data, rewards, folders."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrlhf_maxk.options.maxk import MaxKOptions
from openrlhf_maxk.problems.store import INDEX, ProblemStore, StoreError
from openrlhf_maxk.rewards.execution.backends import SANDBOX, is_remote
from openrlhf_maxk.rewards.request import MATH

MIN_FREE_BYTES = 2**30


def inputs(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    """What is missing or malformed of what a run reads, one line each."""
    if not args.actor.model_name_or_path:
        yield "--actor.model_name_or_path is missing: a Hugging Face model folder or name"
    else:
        yield from _model(args.actor.model_name_or_path)
    problems: ProblemStore | None = None
    if maxk.problems and not Path(maxk.problems).is_dir():
        yield f"--maxk.problems {maxk.problems} is not a folder"
    elif maxk.problems and not (Path(maxk.problems) / INDEX).is_file():
        yield (
            f"--maxk.problems {maxk.problems} holds no problems: it has no {INDEX}; "
            "python -m openrlhf_maxk.cli.prepare makes such a folder"
        )
    elif maxk.problems:
        try:
            problems = ProblemStore(maxk.problems)
        except StoreError as error:
            yield f"--maxk.problems {maxk.problems}: {error}"
    if not args.data.prompt_dataset:
        yield "--data.prompt_dataset is missing: a JSONL or Parquet file, or a dataset's name"
    for option in (args.data.prompt_dataset, args.eval.dataset):
        for path in filter(None, (option or "").split(",")):
            yield from _data(path.strip(), args, problems)
    yield from _rewards(args, maxk)


def _rewards(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    sources = {
        "--maxk.problems": maxk.problems,
        "--maxk.reward math": maxk.reward == MATH,
        "--reward.remote_url": args.reward.remote_url,
        "--reward.model_name_or_path": args.reward.model_name_or_path,
        "--train.agent_func_path": args.train.agent_func_path,
    }
    given = [option for option, value in sources.items() if value]
    if not given:
        yield (
            "nothing gives rewards: set --maxk.problems (run programs against tests), --reward.remote_url "
            "(a reward_func file or URLs), --maxk.reward math or --reward.model_name_or_path"
        )
    if len(given) > 1:
        yield f"{' and '.join(given)} all give rewards: choose one"
    if not maxk.problems:
        for option, set_ in (
            (f"--maxk.reward {maxk.reward}", maxk.reward == "binary"),
            (f"--maxk.runner {maxk.runner}", maxk.runner != SANDBOX and maxk.reward != MATH),
            ("--maxk.format_reward", maxk.format_reward and maxk.reward != MATH),
            ("--maxk.length_penalty", maxk.length_penalty and maxk.reward != MATH),
        ):
            if set_:
                yield f"{option} changes nothing without --maxk.problems: leave it out"
    if maxk.reward == MATH:
        yield from _golds(args, maxk)
    if args.train.agent_func_path:
        yield from _python("--train.agent_func_path", args.train.agent_func_path, "AgentExecutor")
    if args.reward.remote_url and args.reward.remote_url.endswith(".py"):
        yield from _python("--reward.remote_url", args.reward.remote_url, "reward_func")


def _python(option: str, file: str, name: str) -> Iterator[str]:
    """A Python file must be there, be Python, and seem to define ``name``; it is not run."""
    if not Path(file).is_file():
        yield f"{option} {file} does not exist"
        return
    try:
        nodes = list(ast.walk(ast.parse(Path(file).read_bytes())))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        yield f"{option} {file}{f', line {line}' * bool(line)}: not Python ({getattr(error, 'msg', error)})"
        return
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    defined |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {
        alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    if not defined & {name, "*"}:
        yield f"{option} {file} defines no {name}"


def _golds(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    """Labels of local JSON lines must be answers that can be read; those of other data are checked when first met."""
    if is_remote(maxk.runner):
        yield f"--maxk.runner {maxk.runner} runs programs of problems; --maxk.reward math needs sandbox or bubblewrap"
        return
    if not args.data.label_key:
        yield "--data.label_key is missing: with --maxk.reward math, it names the field of the gold answer"
        return
    from openrlhf_maxk.rewards.scoring.math_answers import unreadable_in

    files = [
        path.strip() for option in (args.data.prompt_dataset, args.eval.dataset) for path in (option or "").split(",")
    ]
    try:
        yield from unreadable_in([path for path in files if Path(path).is_file()], args.data.label_key, maxk.runner)
    except (ModuleNotFoundError, RuntimeError) as error:
        yield f"--maxk.reward math: {error}"


def _is_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or os.path.exists(name)


def _model(name: str) -> Iterator[str]:
    if not _is_local(name):
        if name.count("/") > 1:  # a hub name has at most one slash
            yield f"--actor.model_name_or_path {name} does not exist"
        return
    folder = Path(name)
    if not (folder / "config.json").is_file():
        yield f"--actor.model_name_or_path {name} is not a model folder: it has no config.json"


def _data(path: str, args: Any, problems: ProblemStore | None) -> Iterator[str]:
    """Every line of a JSON lines file must be a record with the fields that the options name, of a known problem."""
    file = Path(path)
    if not path.endswith((".jsonl", ".json")):
        named_as_file = _is_local(path) or path.count("/") > 1 or path.endswith((".parquet", ".csv", ".arrow"))
        if named_as_file and not file.exists():
            yield f"data {path} does not exist"
        return
    if not file.is_file():
        yield f"data {path} does not exist"
        return
    records = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            records += 1
            problem = _record_error(line, args, problems)
            if problem:
                yield f"data {path}, line {number}: {problem}"
                return
    if not records:
        yield f"data {path} is empty"


def _record_error(line: str, args: Any, problems: ProblemStore | None) -> str | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}); write one JSON object a line"
    if not isinstance(record, dict):
        return "not a JSON object"
    for option, key in (("--data.input_key", args.data.input_key), ("--data.label_key", args.data.label_key)):
        if key is not None and key not in record:
            return f"no field {key!r} ({option}); it has {', '.join(map(repr, record))}"
    label = record.get(args.data.label_key)
    is_known = isinstance(label, str) and problems is not None and label in problems
    if problems is not None and args.data.label_key is not None and not is_known:
        return (
            f"{args.data.label_key!r} {str(label)[:80]!r} is not the id of a problem in --maxk.problems {problems.path}"
        )
    return None


def disk(args: Any) -> Iterator[str]:
    """Folders that cannot be written or have too little room, one line each."""
    for option, path in (("--ckpt.output_dir", args.ckpt.output_dir), ("--ckpt.path", args.ckpt.path)):
        folder = Path(path).absolute()
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield f"{option} {path} cannot be written: {existing} is not a writable folder"
        elif (free := shutil.disk_usage(existing).free) < MIN_FREE_BYTES:
            yield f"{option} {path}: only {free / 2**20:.0f} MiB are free there; at least 1024 are needed"
