"""Files of samples as other tools write them: read alike, and what is not a sample is counted and said."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
from openrlhf_maxk.evaluation.samples.files.formats import Fields
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError, load_problem_set
from openrlhf_maxk.evaluation.samples.records import missing_requests
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems

from .foreign import ANSWERS, WRITERS, flat, lines, live_code_bench_rows, lm_eval_rows, prompt

STATEMENTS = [f"Read a number and print it {word} times over, in one line." for word in ("two", "three", "four")]
WANTED = {f"set/{i:03d}": answers for i, answers in enumerate(ANSWERS)}


def problem(name: str, statement: str = "Print the number that you read.", source: str = "set") -> Problem:
    return Problem(name, statement, (Test("1", "1"),), source=source)


@pytest.fixture
def problems(tmp_path):
    write_problems(tmp_path / "problems", [problem(f"set/{i:03d}", text) for i, text in enumerate(STATEMENTS)])
    return load_problem_set(tmp_path / "problems")


def store(folder, *names: str) -> ProblemSet:
    write_problems(folder, [problem(name) for name in names])
    return load_problem_set(folder)


def read(source: CompletionsFile) -> dict[str, list[str]]:
    """All completions of a file, by problem, in the order of their numbers."""
    requests = missing_requests(dict.fromkeys(source.counts, ""), {}, source.counts, 0, 64)
    samples = sorted((s for batch in source.sample(requests) for s in batch), key=lambda s: (s.problem, s.index))
    found: dict[str, list[str]] = {}
    for sample in samples:
        assert sample.index == len(found.setdefault(sample.problem, []))
        found[sample.problem].append(sample.completion)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_samples(problems, tmp_path, name):
    (tmp_path / "given").mkdir()
    path = WRITERS[name](tmp_path / "given", STATEMENTS)
    source = CompletionsFile.open(path, problems)
    assert read(source) == WANTED
    assert source.missing() == []
    assert ("passed over" in "\n".join(source.report())) == (name == "lm_eval")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("evalplus", "JSON lines (evalplus), problems by task_id: 6 completions of 3 problems"),
        ("live_code_bench", "JSON (LiveCodeBench), problems by question_id"),
        ("bigcode", "JSON (lists in the order of the problems), problems by position"),
        ("lm_eval", "passed over: 3 of another filter than 'create_test'"),
        ("light_eval", "Parquet (lighteval), problems by the prompt"),
        ("inspect_eval", "log archive (inspect), problems by id"),
        ("verl_rollouts", "JSON lines (verl), problems by the prompt"),
        ("evalplus_folder", "folder of programs (evalplus), problems by task_id"),
    ],
)
def test_what_was_recognised_is_said(problems, tmp_path, name, said):
    (tmp_path / "given").mkdir()
    source = CompletionsFile.open(WRITERS[name](tmp_path / "given", STATEMENTS), problems)
    assert said in "\n".join(source.report())


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open, "zstd"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_compressed_files(problems, tmp_path, opener, suffix):
    plain = tmp_path / f"plain.{suffix}"
    rows = flat(lambda i: f"set/{i:03d}", "completion", "task_id")
    if suffix == "csv":
        write_csv(plain, rows, csv.QUOTE_ALL)
    else:
        plain.write_text(json.dumps(rows, indent=1) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    packed = tmp_path / "packed"  # a name that says nothing
    if opener == "zstd":
        with pa.output_stream(str(packed), compression="zstd") as file:
            file.write(plain.read_bytes())
    else:
        with opener(packed, "wb") as file:
            file.write(plain.read_bytes())
    assert read(CompletionsFile.open(packed, problems)) == WANTED
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ProblemSetError, match=r"cut short or damaged|cannot be read|is not JSON|not whole CSV"):
        CompletionsFile.open(packed, problems)


def write_csv(path, rows, quoting, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=quoting, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_tables_as_text(problems, tmp_path, delimiter):
    rows = flat(lambda i: f"set/{i:03d}", "completion", "task_id")
    source = CompletionsFile.open(write_csv(tmp_path / "s.csv", rows, csv.QUOTE_ALL, delimiter), problems)
    assert read(source) == WANTED
    (tmp_path / "s.csv").write_text('task_id,completion\nset/0,""\nset/0,\nset/1,"a, ""b""\nc"\nset/2,x\n')
    source = CompletionsFile.open(tmp_path / "s.csv", problems)
    assert read(source) == {"set/000": [""], "set/001": ['a, "b"\nc'], "set/002": ["x"]}
    assert "1 null: not generated ('set/0')" in "\n".join(source.report())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(problems, tmp_path, encoding):
    text = "\n".join(map(json.dumps, flat(lambda i: f"set/{i}", "completion", "task_id")))
    (tmp_path / "s.jsonl").write_text(text, encoding=encoding)
    assert read(CompletionsFile.open(tmp_path / "s.jsonl", problems)) == WANTED


def test_parquet_and_indented_objects_one_after_the_other(problems, tmp_path):
    rows = flat(lambda i: float(i), "completion", "task_id")  # as tables write numbers beside gaps
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    assert read(CompletionsFile.open(tmp_path / "s.parquet", problems)) == WANTED
    (tmp_path / "s.json").write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    assert read(CompletionsFile.open(tmp_path / "s.json", problems)) == WANTED


def test_a_value_longer_than_what_is_read_at_once(problems, tmp_path):
    long = "x = '" + 'é"\\\n' * 60_000 + "'"
    (tmp_path / "s.json").write_text(json.dumps([{"task_id": i, "completion": long} for i in range(3)], indent=1))
    assert read(CompletionsFile.open(tmp_path / "s.json", problems)) == {problem: [long] for problem in WANTED}


@pytest.mark.parametrize("null", ["in a row", "in a list", "for a problem", "in bigcode", "an error", "lm-eval's"])
def test_a_null_was_not_generated_and_an_empty_text_was(problems, tmp_path, null):
    def chosen(i):
        return [{"message": {"role": "assistant", "content": ""}}] if i else []

    rows = {
        "in a row": [{"task_id": i, "completion": text} for i in range(3) for text in ("", None if not i else "")],
        "in a list": [{"task_id": i, "code_list": ["", None] if not i else ["", ""]} for i in range(3)],
        "for a problem": [{"task_id": i, "completions": None if not i else ["", ""]} for i in range(3)],
        "in bigcode": [["", None], ["", ""], ["", ""]],
        "an error": [
            {
                "id": f"set/{i}",
                "epoch": e,
                "output": {"choices": chosen(i or e)},
                "error": None if i or e else {"m": ""},
            }
            for i in range(3)
            for e in range(2)
        ],
        "lm-eval's": [row | {"filtered_resps": [["", "None" if not i else ""]]} for i, row in enumerate(lm_rows())],
    }[null]
    path = lines(tmp_path / "s.jsonl", rows)
    source = CompletionsFile.open(path, problems)
    first = [] if null == "for a problem" else [""]
    assert read(source) == ({"set/000": first} if first else {}) | {"set/001": ["", ""], "set/002": ["", ""]}
    assert re.search(r"passed over: 1 null: not generated \(", "\n".join(source.report()))
    assert source.missing() == ([] if first else ["set/000"])


def lm_rows():
    return lm_eval_rows(STATEMENTS)


@pytest.mark.parametrize(
    ("ids", "given", "found"),
    [
        (("mbpp/full/11", "mbpp/full/12"), 11, "mbpp/full/11"),
        (("mbpp/full/11", "mbpp/full/12"), "12", "mbpp/full/12"),
        (("mbpp/full/11", "mbpp/full/12"), "Mbpp/11", "mbpp/full/11"),
        (("mbpp/full/11", "humaneval/HumanEval/11"), "HumanEval/11", "humaneval/HumanEval/11"),
        (("mbpp/full/11", "humaneval/11"), "MbppPlus/11", "mbpp/full/11"),
        (("livecodebench/abc301_a", "livecodebench/3"), "abc301_a", "livecodebench/abc301_a"),
        (("livecodebench/abc301_a", "livecodebench/LiveCode/3"), "livecode/3", "livecodebench/LiveCode/3"),
        (("codeforces/1575/A", "codeforces/1575/B"), "1575_A", "codeforces/1575/A"),
        (("toy/007", "toy/008"), 7, "toy/007"),
        (("a", "b"), "a", "a"),
    ],
)
def test_ids_as_other_tools_write_them(tmp_path, ids, given, found):
    problems = store(tmp_path / "problems", *ids)
    path = lines(tmp_path / "s.jsonl", [{"task_id": given, "completion": "x"}])
    assert read(CompletionsFile.open(path, problems)) == {found: ["x"]}


def test_another_data_sets_number_is_not_ours(tmp_path):
    problems = store(tmp_path / "problems", "mbpp/full/11")
    path = lines(tmp_path / "s.jsonl", [{"task_id": "HumanEval/11", "completion": "x"}])
    message = "holds no completion .* its first is 'HumanEval/11', the first of 1 problems is 'mbpp/full/11'"
    with pytest.raises(ProblemSetError, match=message):
        CompletionsFile.open(path, problems)


def test_an_id_that_may_be_two_problems_is_refused(tmp_path):
    problems = store(tmp_path / "problems", "mbpp/11", "toy/11", "toy/12")
    path = lines(tmp_path / "s.jsonl", [{"task_id": 12, "completion": "x"}, {"task_id": 11, "completion": "x"}])
    with pytest.raises(ProblemSetError, match="line 2: 11 may be 'mbpp/11' or 'toy/11'"):
        CompletionsFile.open(path, problems)
    chosen = ProblemSet(problems.problems, {"toy/11": "", "toy/12": ""})
    assert read(CompletionsFile.open(path, chosen)) == {"toy/11": ["x"], "toy/12": ["x"]}


def test_a_field_of_other_numbers_does_not_name_the_problem(problems, tmp_path):
    """Logs number their samples; the prompt tells which problem it is."""
    rows = [{"id": 2 - i, "prompt": prompt(STATEMENTS[i]), "completion": f"{i}"} for i in range(3)]
    source = CompletionsFile.open(lines(tmp_path / "s.jsonl", rows), problems)
    assert read(source) == {"set/000": ["0"], "set/001": ["1"], "set/002": ["2"]}
    rows = [{"problem": STATEMENTS[i], "label": f"set/{i}", "completion": f"{i}"} for i in range(3)]
    assert read(CompletionsFile.open(lines(tmp_path / "s.jsonl", rows), problems))["set/002"] == ["2"]


def test_the_last_statement_of_a_prompt_with_examples_counts(problems, tmp_path):
    shots = f"Example: {STATEMENTS[2]} Answer: no.\n" + prompt(STATEMENTS[0])
    path = lines(tmp_path / "s.jsonl", [{"input": shots, "output": "x"}])
    assert read(CompletionsFile.open(path, problems)) == {"set/000": ["x"]}


def test_what_is_skipped_is_counted(problems, tmp_path):
    rows = [
        *({"task_id": f"set/{i}", "completion": "x"} for i in (0, 0, 1, 2)),
        *({"task_id": f"set/{i}", "completion": "x"} for i in (7, 8, 8)),
    ]
    path = lines(tmp_path / "s.jsonl", rows)
    chosen = ProblemSet(problems.problems, {"set/000": "", "set/001": ""})
    assert CompletionsFile.open(path, chosen).report() == [
        f"{path}: read as JSON lines (rows), problems by task_id: 3 completions of 2 problems",
        "  passed over: 1 of problems outside the split or the limit ('set/2')",
        "  passed over: 3 of problems that are not in the problem store (of 2 problems, such as 'set/7')",
    ]


def test_lists_need_as_many_problems_or_their_ids(problems, tmp_path):
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([["a"], ["b"]]))
    with pytest.raises(ProblemSetError, match=r"holds 2 lists .* there are 3 problems: .* --ids FILE"):
        CompletionsFile.open(path, problems)
    for name, text in (
        ("ids.txt", "set/2\nset/000\n"),
        ("ids.json", '["set/2", 0]'),
        ("ids.jsonl", '{"task_id": "set/2", "prompt": ""}\n{"task_id": "set/0", "prompt": ""}\n'),
    ):
        (tmp_path / name).write_text(text)
        source = CompletionsFile.open(path, problems, ids=tmp_path / name)
        assert read(source) == {"set/002": ["a"], "set/000": ["b"]}
        assert "ids" in source.identity()
    limited = problems.first(1)
    with pytest.raises(ProblemSetError, match="there are 1 problems"):
        CompletionsFile.open(path, limited)
    path.write_text(json.dumps([["a"], ["b"], ["c"]]))
    assert read(CompletionsFile.open(path, limited, order=problems.ids)) == {"set/000": ["a"]}


def test_a_given_order_counts_more_than_what_the_samples_name(problems, tmp_path):
    (tmp_path / "given").mkdir()
    path = WRITERS["light_eval"](tmp_path / "given", STATEMENTS)  # with prompts, and places in its data set
    others = [f"other/{i}" for i in range(5)]  # before the three
    (tmp_path / "ids.txt").write_text("\n".join([*others, *reversed(problems.ids)]))
    found = read(CompletionsFile.open(path, problems, ids=tmp_path / "ids.txt"))
    assert found == {name: WANTED[other] for name, other in zip(problems.ids, reversed(problems.ids), strict=True)}


def test_named_fields(problems, tmp_path):
    path = WRITERS["live_code_bench"](tmp_path, STATEMENTS)
    source = CompletionsFile.open(path, problems, Fields(completion="output_list"))
    assert read(source)["set/000"][0] == f"Thoughts. {ANSWERS[0][0]}"
    path = lines(tmp_path / "s.jsonl", lm_rows())
    source = CompletionsFile.open(path, problems, Fields("doc.task_id", "resps"))
    assert read(source)["set/002"][1] == f"raw {ANSWERS[2][1]}"
    rows = [row | {"filtered_resps": row["filtered_resps"][0][:1]} for row in lm_rows()]  # "take first"
    assert read(CompletionsFile.open(lines(path, rows), problems))["set/002"][1] == f"raw {ANSWERS[2][1]}"


def test_heavy_columns_are_read_where_they_are_named(problems, tmp_path):
    rows = [{"task_id": i, "completion": "x", "specific": "y"} for i in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    source = CompletionsFile.open(tmp_path / "s.parquet", problems, Fields(completion="specific"))
    assert read(source)["set/000"] == ["y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.jsonl", b"", "is empty"),
        ("s.jsonl", b" \n\n", "is empty"),
        ("s.json", b"[]", "holds no completion"),
        ("s.pkl", b"\x80\x04\x95abc", "is a pickle, .* write JSON lines"),
        ("s.jsonl", b"version https://git-lfs.github.com/spec/v1\noid x\n", "is a Git LFS pointer.*git lfs pull"),
        ("s.txt", b"def f():\n    return 1\n", "neither JSON, JSON lines, CSV nor Parquet: it begins with 'def f"),
        ("s.parquet", b"PAR1" + b"x" * 50, "is not a whole Parquet file"),
        ("s.json", b'[{"task_id": 1, "completion": "x"}, {"task', "line 1 is not JSON"),
        ("s.json", b'[\n{"task_id": 1, "completion": "x"}\n{"task_id": 2}\n]', "line 3 is not JSON"),
        ("s.json", b'[{"task_id": 1, "completion": "x"}, 7]', "line 1 must be a JSON object"),
        ("s.jsonl", b'{"task_id": 1, "answer": "x"}\n', "no field for the completion .* but 'task_id', 'answer'; name"),
        ("s.jsonl", b'{"a": 1}\n', "no field for the problem's id .* --id-field"),
        ("s.jsonl", b'{"task_id": 1, "completion": "\xff"}\n', "is not text in UTF-8"),
        ("s.jsonl", b'{"custom_id": "0", "response": {}}\n{"x": 1}\n', "line 2 is not as the first row.*batch API"),
        ("s.csv", b"task_id,task_id,completion\n1,2,3\n", "names the column 'task_id' twice"),
        ("s.csv", b"task_id,completion\n1,2,3\n", "is not whole CSV"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(problems, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProblemSetError, match=message) as error:
        CompletionsFile.open(tmp_path / name, problems)
    assert "\n" not in str(error.value)


def test_folders_and_archives_that_are_none(problems, tmp_path):
    import zipfile

    (tmp_path / "empty").mkdir()
    with pytest.raises(ProblemSetError, match="is a folder without samples"):
        CompletionsFile.open(tmp_path / "empty", problems)
    lines(tmp_path / "empty" / "1.jsonl", [{"task_id": 0, "completion": "x"}])
    assert read(CompletionsFile.open(tmp_path / "empty", problems)) == {"set/000": ["x"]}
    lines(tmp_path / "empty" / "2.jsonl", [])
    with pytest.raises(ProblemSetError, match=r"is a folder of 2 files: name one of them, such as .*1\.jsonl"):
        CompletionsFile.open(tmp_path / "empty", problems)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("samples.jsonl", "{}")
    with pytest.raises(ProblemSetError, match=r"is a zip archive, and no log of inspect .*: unpack it"):
        CompletionsFile.open(tmp_path / "s.zip", problems)


def test_a_damaged_sample_of_an_archive_is_named(problems, tmp_path):
    path = WRITERS["inspect_eval_zstandard"](tmp_path, STATEMENTS)
    data = bytearray(path.read_bytes())
    place = data.index(b"\x28\xb5\x2f\xfd") + 40
    data[place : place + 4] = b"abcd"
    path.write_bytes(data)
    with pytest.raises(ProblemSetError, match=r"samples/set/000_epoch_1\.json cannot be read"):
        CompletionsFile.open(path, problems)


def test_what_was_generated_by_a_tool_of_live_code_bench_is_what_it_judges(tmp_path, problems):
    """Where a file has both, the programs that LiveCodeBench found are taken."""
    rows = live_code_bench_rows(STATEMENTS)
    rows[0]["code_list"] = ["", "print(1)"]
    path = lines(tmp_path / "s.jsonl", rows)
    assert read(CompletionsFile.open(path, problems))["set/000"] == ["", "print(1)"]
