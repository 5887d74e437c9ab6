"""The problem store gives back what was written, reads no more than it must, and says what is wrong."""

import json
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, ReferenceSolution, Test
from openrlhf_maxk.problems.store import (
    FILES,
    INDEX,
    PROBLEMS,
    TESTS,
    ProblemStore,
    ProblemWriter,
    StoreError,
    write_problems,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # all of Unicode but lone surrogates
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
tests = st.lists(st.builds(Test, text, text), min_size=1, max_size=5).map(tuple)
size = st.integers(1, 2**40)


@st.composite
def problems(draw) -> Problem:
    cases = draw(tests)
    return Problem(
        id=draw(text),
        statement=draw(text),
        tests=cases,
        mode=draw(st.sampled_from(Mode)),
        entry_point=draw(st.none() | text),
        setup_code=draw(text),
        starter_code=draw(text),
        program_prefix=draw(text),
        limits=Limits(draw(st.floats(0.01, 100)), draw(size), draw(size)),
        judge=Judge(draw(st.sampled_from(Comparison)), draw(st.floats(0, 1)), draw(st.none() | text)),
        public_tests=draw(st.integers(0, len(cases))),
        source=draw(text),
        difficulty=draw(text),
        provenance=draw(st.dictionaries(text, json_value, max_size=3)),
    )


def simple(name: str, **fields) -> Problem:
    return Problem(
        **{"id": name, "statement": f"solve {name}", "tests": (Test(f"{name}\n", "1\n"), Test("é", "2"))} | fields
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


SOLUTIONS_GIVEN = [
    ReferenceSolution("p/3", "print(1)"),
    ReferenceSolution("p/3", "print(2)"),
    ReferenceSolution("p/0", "é"),
]


def write_six_hundred(path: Path) -> None:
    write_problems(path, (simple(f"p/{i}") for i in range(600)), SOLUTIONS_GIVEN)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "store"
    write_six_hundred(path)
    return path


@pytest.fixture
def folder(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "store"))


@given(st.lists(problems(), max_size=6, unique_by=lambda p: p.id))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_problem_comes_back(tmp_path, given_problems):
    path = tmp_path / "store"
    write_problems(path, given_problems)
    store = ProblemStore(path)
    assert store.ids() == tuple(p.id for p in given_problems)
    assert [store[p.id] for p in given_problems] == given_problems
    store.verify()


def test_tests_may_all_be_empty_texts(tmp_path):
    problem = Problem("p/1", "Print nothing.", (Test("", ""),))
    write_problems(tmp_path / "store", [problem])
    store = ProblemStore(tmp_path / "store")
    assert store["p/1"] == problem
    store.verify()


def test_it_is_a_mapping_in_the_order_of_writing(folder):
    store = ProblemStore(folder)
    assert len(store) == 600
    assert list(store) == [f"p/{i}" for i in range(600)]
    assert store["p/599"] == simple("p/599")
    assert "p/600" not in store
    assert store.get("p/600") is None
    with pytest.raises(KeyError):
        store["p/600"]
    assert [p.id for p in store.values()] == list(store)


def test_solutions_are_apart(folder):
    programs = [(s.problem_id, s.program) for s in ProblemStore(folder).solutions()]
    assert programs == [("p/3", "print(1)"), ("p/3", "print(2)"), ("p/0", "é")]
    for name in (PROBLEMS, TESTS, INDEX):
        assert b"print(" not in (folder / name).read_bytes()


def test_it_can_be_sent_to_another_process(folder):
    store = ProblemStore(folder)
    assert store["p/1"]  # tables and memory maps are open
    assert pickle.loads(pickle.dumps(store))["p/1"] == store["p/1"]


def test_same_problems_same_bytes(folder, tmp_path):
    program = (
        "import sys; from tests.problems import test_store\n"
        "test_store.write_six_hundred(test_store.Path(sys.argv[1]))\n"
    )
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-c", program, str(again)], check=True, cwd=Path(__file__).parents[2])
    assert bytes_of(again) == bytes_of(folder)


def test_ids_are_read_without_the_tests(folder):
    store = ProblemStore(folder)
    damage(folder / TESTS)
    assert len(store.ids()) == 600


def test_writing_streams(tmp_path):
    """400 MB of tests pass through a process that may not hold 150 MB more than when it started."""
    program = (
        "import resource, sys\n"
        "from openrlhf_maxk.problems.record import Problem, Test\n"
        "from openrlhf_maxk.problems.store import ProblemStore, write_problems\n"
        "write_problems(sys.argv[1] + '/first', [Problem('p', '', (Test('1'),))])\n"  # imports are not counted
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "write_problems(sys.argv[1] + '/big',"
        " (Problem(str(i), 'x' * 1000, (Test(chr(97 + i % 26) * 1_000_000),)) for i in range(400)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "store = ProblemStore(sys.argv[1] + '/big')\n"
        "assert all(store[str(i)].tests[0].input[:3] == chr(97 + i % 26) * 3 for i in range(0, 400, 40))\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 150 * 1024


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tests": ()}, "problem 'bad' has no tests"),
        ({"public_tests": 3}, "public_tests is 3, and it has 2 tests"),
        ({"public_tests": -1}, "public_tests is -1"),
        ({"statement": "\ud800"}, "statement is not valid Unicode"),
        ({"tests": (Test("\udfff"),)}, "tests is not valid Unicode"),
        ({"judge": Judge(checker="\ud800")}, "checker is not valid Unicode"),
        ({"provenance": {"a": {1, 2}}}, "provenance must be JSON"),
        ({"provenance": {"a": float("nan")}}, "provenance must be JSON"),
        ({"provenance": {"a": "\ud800"}}, "provenance is not valid Unicode"),
    ],
)
def test_a_problem_that_cannot_be_stored_is_named_and_nothing_is_written(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        write_problems(tmp_path / "store", [simple("good"), simple("bad", **fields)])
    assert "'bad'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_ids_are_unique(tmp_path):
    with pytest.raises(ValueError, match="'p' is already in the store"):
        write_problems(tmp_path / "store", [simple("p"), simple("p")])


def test_a_solution_needs_its_problem(tmp_path):
    with pytest.raises(ValueError, match="'q', which is not in the store"):
        write_problems(tmp_path / "store", [simple("p")], [ReferenceSolution("q", "")])


def test_an_error_of_the_iterator_keeps_the_old_store(folder):
    def broken():
        yield simple("new")
        raise RuntimeError("source is gone")

    with pytest.raises(RuntimeError, match="source is gone"):
        write_problems(folder, broken())
    assert len(ProblemStore(folder)) == 600


def test_no_disk_space_is_an_error_and_leaves_nothing(tmp_path):
    program = (
        "import resource, signal, sys\n"
        "from openrlhf_maxk.problems.record import Problem, Test\n"
        "from openrlhf_maxk.problems.store import write_problems\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_problems(sys.argv[1], (Problem(str(i), '', (Test('x' * 9999),)) for i in range(100)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no problem store at .*nowhere: store.json is missing. Prepare"):
        ProblemStore(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"no problem store at .*file"):
        ProblemStore(tmp_path / "file")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is damaged: it is missing. Remove the folder"):
        ProblemStore(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(StoreError, match=f"{name} is damaged: it has {len(data) - 1} bytes instead of {len(data)}"):
        ProblemStore(folder)


@pytest.mark.parametrize("index", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "problems": "x", "files": {}}'])
def test_a_broken_index_is_named(folder, index):
    (folder / INDEX).write_text(index)
    with pytest.raises(StoreError, match=r"store.json is damaged"):
        ProblemStore(folder)


def test_another_format_is_refused(folder):
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"format": 99}))
    with pytest.raises(StoreError, match="has format 99, this version reads 1"):
        ProblemStore(folder)


def damage(path: Path, position: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 0xFF
    path.write_bytes(bytes(data))


def test_damaged_tests_are_found_when_they_are_read(folder):
    damage(folder / TESTS, 0)
    store = ProblemStore(folder)
    assert store["p/599"] == simple("p/599")
    with pytest.raises(StoreError, match=r"tests.bin is damaged: the tests of problem 'p/0' are not those"):
        store["p/0"]
    with pytest.raises(StoreError, match=r"tests.bin is damaged: its SHA-256"):
        store.verify()


def test_no_damage_to_the_table_goes_unnoticed(folder):
    """Bytes changed at random, many of them in the footer: the same problems are read, or an error is raised."""
    rng = random.Random(0)
    length = (folder / PROBLEMS).stat().st_size
    found = 0
    for _ in range(60):
        position = rng.choice([rng.randrange(length), length - 1 - rng.randrange(4000)])
        damage(folder / PROBLEMS, position)
        message = read_everything(folder)
        assert message is None or "problems.parquet is damaged: " in message
        found += message is not None
        with pytest.raises(StoreError, match=r"problems.parquet is damaged: its SHA-256"):
            ProblemStore(folder).verify()
        damage(folder / PROBLEMS, position)
    assert found > 20
    ProblemStore(folder).verify()


def read_everything(folder: Path) -> str | None:
    store = ProblemStore(folder)
    try:
        problems = [store[name] for name in store]
    except StoreError as error:
        return str(error)
    assert problems == [simple(f"p/{i}") for i in range(600)]
    return None


def test_other_files_may_lie_beside_it(folder, tmp_path):
    from openrlhf_maxk.problems.atomic import new_folder

    with new_folder(tmp_path / "both") as work:
        with ProblemWriter(work) as writer:
            writer.add(simple("p"))
        (work / "train.jsonl").write_text("{}\n")
    ProblemStore(tmp_path / "both").verify()
    assert (tmp_path / "both" / "train.jsonl").exists()
