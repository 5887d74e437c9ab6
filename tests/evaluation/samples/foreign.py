"""Small files in the formats of other tools, after the schemas of their sources, with texts of our own.

Each writer puts the same answers to the same problems: problem i (``set/000``, ``set/001``, …) has ``ANSWERS[i]``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

ANSWERS = (
    ["```python\nprint(11)\n```", "```python\nprint(3)\n```"],
    ["", "Let me think.\n```python\nprint(5)\n```"],
    ["```python\nprint(7)\n```", "I cannot."],
)
Writer = Callable[[Path, list[str]], Path]  # a folder and the statements; the path to give to the command
WRITERS: dict[str, Writer] = {}


def writes(writer: Writer) -> Writer:
    WRITERS[writer.__name__] = writer
    return writer


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def flat(name: Callable[[int], Any], text: str, key: str) -> list[dict[str, Any]]:
    return [{key: name(i), text: answer} for i, answers in enumerate(ANSWERS) for answer in answers]


def prompt(statement: str) -> str:
    return f"<|user|>You write Python.\n\n{statement}\n\nAnswer with one program.<|assistant|>"


@writes
def human_eval(folder: Path, statements: list[str]) -> Path:
    return lines(folder / "samples.jsonl", flat(lambda i: f"set/{i:03d}", "completion", "task_id"))


@writes
def evalplus(folder: Path, statements: list[str]) -> Path:
    return lines(folder / "m_temp_0.8.jsonl", flat(lambda i: f"Set/{i}", "solution", "task_id"))


@writes
def evalplus_folder(folder: Path, statements: list[str]) -> Path:
    for i, answers in enumerate(ANSWERS):
        (folder / "out" / f"Set_{i}").mkdir(parents=True)
        for j, answer in enumerate(answers):
            (folder / "out" / f"Set_{i}" / f"{j}.py").write_text(answer)
    return folder / "out"


@writes
def evalplus_results(folder: Path, statements: list[str]) -> Path:
    tasks = {
        f"Set/{i}": [{"task_id": f"Set/{i}", "solution": answer, "base_status": "fail"} for answer in answers]
        for i, answers in enumerate(ANSWERS)
    }
    path = folder / "m.eval_results.json"
    path.write_text(json.dumps({"date": "2026-01-01 00:00", "hash": "0", "eval": tasks, "pass_at_k": {}}))
    return path


def live_code_bench_rows(statements: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "question_title": "One of ours",
            "question_content": statements[i],
            "platform": "atcoder",
            "question_id": f"{i:03d}",
            "contest_id": "abc",
            "contest_date": "2024-01-01T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "output_list": [f"Thoughts. {answer}" for answer in answers],
            "code_list": answers,
        }
        for i, answers in enumerate(ANSWERS)
    ]


@writes
def live_code_bench(folder: Path, statements: list[str]) -> Path:
    path = folder / "Scenario.codegeneration_2_0.2.json"
    path.write_text(json.dumps(live_code_bench_rows(statements), indent=4))
    return path


@writes
def live_code_bench_custom(folder: Path, statements: list[str]) -> Path:
    path = folder / "custom.json"
    path.write_text(json.dumps([{"question_id": f"{i:03d}", "code_list": a} for i, a in enumerate(ANSWERS)]))
    return path


@writes
def bigcode(folder: Path, statements: list[str]) -> Path:
    path = folder / "generations_ours.json"
    path.write_text(json.dumps([*ANSWERS]))
    return path


def lm_eval_rows(statements: list[str], filter_name: str = "create_test", ids: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "doc_id": i,
            "doc": ({"task_id": f"set/{i}"} if ids else {}) | {"entry_point": "f", "test": "assert True"},
            "target": "check(f)",
            "arguments": {"gen_args_0": {"arg_0": prompt(statements[i]), "arg_1": {"until": ["\nclass"]}}},
            "resps": [[f"raw {answer}" for answer in answers]],
            "filtered_resps": [answers],
            "filter": filter_name,
            "metrics": ["pass@1"],
            "doc_hash": "0",
            "pass@1": 0.0,
        }
        for i, answers in enumerate(ANSWERS)
    ]


@writes
def lm_eval(folder: Path, statements: list[str]) -> Path:
    rows = lm_eval_rows(statements) + lm_eval_rows(statements, "another")
    return lines(folder / "samples_ours_2026-01-01T00-00-00.jsonl", rows)


@writes
def lm_eval_without_ids(folder: Path, statements: list[str]) -> Path:
    return lines(folder / "samples_ours_2026-01-01T00-00-00.jsonl", lm_eval_rows(statements, ids=False))


def light_eval_rows(statements: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "doc": {
                "query": prompt(statements[i]),
                "choices": [""],
                "gold_index": [0],
                "specific": {"inputs": ["1"], "outputs": ["2"], "fn_name": None},
                "id": str(i + 5),
                "task_name": "ours|0",
                "num_samples": 2,
            },
            "model_response": {
                "input": prompt(statements[i]),
                "input_tokens": [1, 2],
                "text": [f"<think>so</think>{answer}" for answer in answers],
                "output_tokens": [[3, 4], [5]],
                "text_post_processed": answers,
                "logprobs": [],
            },
            "metric": {"codegen_pass@1:16": 0.0},
        }
        for i, answers in enumerate(ANSWERS)
    ]


@writes
def light_eval(folder: Path, statements: list[str]) -> Path:
    path = folder / "details_ours|0_2026-01-01T00-00-00.parquet"
    parquet.write_table(pa.Table.from_pylist(light_eval_rows(statements)), path)
    return path


def inspect_samples(statements: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"set/{i:03d}",
            "epoch": epoch + 1,
            "input": prompt(statements[i]),
            "target": "",
            "messages": [
                {"role": "user", "content": prompt(statements[i]), "source": "input"},
                {"role": "assistant", "content": answer, "source": "generate"},
            ],
            "output": {
                "model": "m",
                "choices": [
                    {
                        "message": {
                            "role": "assistant",
                            "content": [{"type": "reasoning", "reasoning": "so"}, {"type": "text", "text": answer}],
                        },
                        "stop_reason": "stop",
                    }
                ],
                "usage": {"output_tokens": 3},
            },
            "scores": {"verify": {"value": float("nan")}},
            "metadata": {},
        }
        for i, answers in enumerate(ANSWERS)
        for epoch, answer in enumerate(answers)
    ]


@writes
def inspect_json(folder: Path, statements: list[str]) -> Path:
    path = folder / "2026-01-01T00-00-00_ours.json"
    log = {"version": 2, "status": "success", "eval": {"task": "ours"}, "plan": {}, "results": {"scores": []}}
    path.write_text(json.dumps(log | {"samples": inspect_samples(statements)}, indent=2))
    return path


def inspect_archive(path: Path, statements: list[str], *, zstandard: bool) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": {"task": "ours"}}))
        for sample in inspect_samples(statements):
            name, text = f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample).encode()
            if zstandard:
                put_zstandard(archive, name, text)
            else:
                archive.writestr(name, text)
        archive.writestr("header.json", json.dumps({"version": 2, "status": "success"}))
    return path


def put_zstandard(archive: zipfile.ZipFile, name: str, text: bytes) -> None:
    """A member of method 93, which Python's zipfile does not write before 3.14."""
    packed = pa.Codec("zstd").compress(text, asbytes=True)
    archive.writestr(zipfile.ZipInfo(name), packed)
    info = archive.getinfo(name)
    info.compress_type, info.CRC, info.file_size = 93, zipfile.crc32(text), len(text)
    archive.fp.seek(info.header_offset)
    archive.fp.write(info.FileHeader())
    archive.fp.seek(archive.start_dir)


@writes
def inspect_eval(folder: Path, statements: list[str]) -> Path:
    return inspect_archive(folder / "2026-01-01_ours.eval", statements, zstandard=False)


@writes
def inspect_eval_zstandard(folder: Path, statements: list[str]) -> Path:
    return inspect_archive(folder / "2026-01-01_ours.eval", statements, zstandard=True)


@writes
def verl_rollouts(folder: Path, statements: list[str]) -> Path:
    rows = [
        {"input": prompt(statements[i]), "output": answer, "gts": "{}", "score": 1.0, "step": 7, "acc": 1.0}
        for i, answers in enumerate(ANSWERS)
        for answer in answers
    ]
    return lines(folder / "7.jsonl", rows)


@writes
def verl_generation(folder: Path, statements: list[str]) -> Path:
    rows = [
        {
            "data_source": "ours",
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt(statements[i])}],
            "ability": "code",
            "reward_model": {"style": "rule", "ground_truth": "{}"},
            "extra_info": {"index": i + 40, "split": "test"},
            "responses": answers,
        }
        for i, answers in enumerate(ANSWERS)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "gen.parquet")
    return folder / "gen.parquet"


@writes
def openrlhf_batch_inference(folder: Path, statements: list[str]) -> Path:
    rows = [
        {"input": prompt(statements[i]), "output": answer, "reward": 0.5}
        for i, answers in enumerate(ANSWERS)
        for answer in answers
    ]
    return lines(folder / "generate.jsonl", rows)


@writes
def openrlhf_with_labels(folder: Path, statements: list[str]) -> Path:
    rows = [
        {"input": "a template without the statement", "output": answer, "label": f"set/{i:03d}"}
        for i, answers in enumerate(ANSWERS)
        for answer in answers
    ]
    return lines(folder / "generate.jsonl", rows)


@writes
def chats(folder: Path, statements: list[str]) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": prompt(statements[i])},
                {"role": "assistant", "content": answer},
            ]
        }
        for i, answers in enumerate(ANSWERS)
        for answer in answers
    ]
    return lines(folder / "chats.jsonl", rows)


@writes
def messages_as_completions(folder: Path, statements: list[str]) -> Path:
    rows = [
        {"problem_id": i, "completions": [[{"role": "assistant", "content": answer}] for answer in answers]}
        for i, answers in enumerate(ANSWERS)
    ]
    return lines(folder / "trl.jsonl", rows)


@writes
def openai_batch(folder: Path, statements: list[str]) -> Path:
    rows = [
        {
            "id": f"batch_req_{i}",
            "custom_id": f"set/{i:03d}",
            "response": {
                "status_code": 200,
                "body": {
                    "choices": [
                        {"index": j, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
                        for j, answer in enumerate(answers)
                    ]
                },
            },
            "error": None,
        }
        for i, answers in enumerate(ANSWERS)
    ]
    return lines(folder / "batch_output.jsonl", rows)


@writes
def by_problem(folder: Path, statements: list[str]) -> Path:
    path = folder / "answers.json"
    path.write_text(json.dumps({f"set/{i}": answers for i, answers in enumerate(ANSWERS)}))
    return path
