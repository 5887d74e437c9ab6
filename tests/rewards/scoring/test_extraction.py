"""Finding the program in a completion."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.scoring.extraction import extract_program
from openrlhf_maxk.rewards.scoring.fences import INVISIBLE

PROGRAM = "import sys\nfor line in sys.stdin:\n    print(line)"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        # one block
        (f"Here it is:\n```python\n{PROGRAM}\n```\nDone.", PROGRAM),
        (f"```\n{PROGRAM}\n```", PROGRAM),
        (f"```py\n{PROGRAM}\n```", PROGRAM),
        (f"```Python3\n{PROGRAM}\n```", PROGRAM),
        (f"```{{.python}}\n{PROGRAM}\n```", PROGRAM),
        (f"```python title='a.py'\n{PROGRAM}\n```", PROGRAM),
        (f"```solution.py\n{PROGRAM}\n```", PROGRAM),
        (f"~~~python\n{PROGRAM}\n~~~", PROGRAM),
        (f"````python\n{PROGRAM}\n````", PROGRAM),
        (f"```python\r\n{PROGRAM}\r\n```\r\n", PROGRAM),
        (f"```python   \n\n\n{PROGRAM}\n\n```  ", PROGRAM),
        # several: the last one, Python before unmarked before nothing
        (f"```python\nfirst()\n```\nBetter:\n```python\n{PROGRAM}\n```", PROGRAM),
        (f"```python\n{PROGRAM}\n```\nOutput:\n```\n3\n```", PROGRAM),
        (f"```python\n{PROGRAM}\n```\nRun it:\n```bash\npython a.py\n```", PROGRAM),
        (f"```bash\npip install x\n```\n```\n{PROGRAM}\n```", PROGRAM),
        ("```\nfirst()\n```\n```\nsecond()\n```", "second()"),
        ("```cpp\nint main() {}\n```", None),
        # cut off
        (f"Here it is:\n```python\n{PROGRAM}", PROGRAM),
        (f"```python\nfirst()\n```\nBetter:\n```python\n{PROGRAM}", PROGRAM),
        ("```python\nfirst()\n```\nBetter:\n```python\n", "first()"),
        ("```python", None),
        ("```python\n\n  \n```", None),
        # the prompt opened the block
        (f"{PROGRAM}\n```\nThis reads every line.", PROGRAM),
        (f"{PROGRAM}\n```", PROGRAM),
        (f"{PROGRAM}\n```\nThe same, shorter:\n```python\nshort()\n```", "short()"),
        # in a list, or quoting fences
        (f"1. First:\n   ```python\n   {PROGRAM.replace(chr(10), chr(10) + '   ')}\n   ```", PROGRAM),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''"),
        ("```python\nprint('```')\n```", "print('```')"),
        # reasoning
        (f"<think>\n```python\ndraft()\n```\n</think>\n```python\n{PROGRAM}\n```", PROGRAM),
        ("<think>\n```python\ndraft()\n```", None),
        (f"draft\n</think>\n{PROGRAM}", PROGRAM),
        # no fence at all
        (PROGRAM, PROGRAM),
        (f"\n\n{PROGRAM}\n\n", PROGRAM),
        ("print(sum(map(int, input().split())))", "print(sum(map(int, input().split())))"),
        ("a, b = map(int, input().split())\nprint(a + b)", "a, b = map(int, input().split())\nprint(a + b)"),
        ("x[0] += 1", "x[0] += 1"),
        ("class Solution:\n    pass", "class Solution:\n    pass"),
        ("    n = int(input())\n    print(n)", "    n = int(input())\n    print(n)"),
        # nothing
        ("", None),
        ("   \n\n", None),
        ("I do not know.", None),
        ("The answer is 3.", None),
        ("if you ask me", None),
        ("Let a == b hold.", None),
    ],
)
def test_rule(completion: str, program: str | None) -> None:
    assert extract_program(completion) == program


@given(st.text(alphabet=st.sampled_from(list("`~ \n\tpythonx=(")), max_size=60))
def test_any_text_gets_an_answer_that_stands_in_it(text: str) -> None:
    program = extract_program(text)
    assert program is None or (program.strip() and all(line.strip() in text for line in program.split("\n")))


@given(st.text(max_size=200))
def test_any_unicode_gets_an_answer(text: str) -> None:
    assert extract_program(text) is None or isinstance(extract_program(text), str)


@given(
    st.text(
        alphabet=st.characters(exclude_characters="`~\r" + INVISIBLE, exclude_categories=["Cs"]),
        min_size=1,
        max_size=100,
    )
)
def test_a_fenced_program_comes_back_unchanged(program: str) -> None:
    text = program.strip("\n")
    if text.strip() and "think>" not in text:
        assert extract_program(f"Some words.\n```python\n{text}\n```\nMore words.") == text


def test_long_lines_and_many_fences_are_no_trouble() -> None:
    assert extract_program("`" * 10**6) is None
    assert extract_program("```\n" * 10**5) is None
    assert extract_program("x" * 10**6 + "(") is None
    assert extract_program("a," * 10**6) is None
    assert extract_program("```python\n" + "x = 1\n" * 10**5 + "```") == ("x = 1\n" * 10**5).strip()


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(cores=1) as executor:
        yield executor


def _listed() -> list[object]:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    from completions import COMPLETIONS

    del sys.path[0]
    return [pytest.param(*listed, id=str(number)) for number, listed in enumerate(COMPLETIONS)]


@pytest.mark.parametrize(("problem", "completion"), _listed())
def test_the_program_of_a_listed_completion_is_found(problem, completion: str, executor: Executor) -> None:
    """The completions of ``benchmarks/extraction.py``: what is found passes the tests."""
    program = extract_program(completion, bool(problem and problem.program_prefix))
    if problem is None:
        assert program is None
        return
    assert program is not None
    assert executor.run(program, problem).all_passed == 1.0, program


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("    return sorted(x)", "    return sorted(x)"),
        ("    return sorted(x)<|im_end|>", "    return sorted(x)"),
        ("x", "x"),
        ("\n\n", None),
        ("    return x\n```\nwords", "    return x"),
    ],
)
def test_text_is_code_where_the_prompt_holds_the_beginning(completion: str, program: str | None) -> None:
    assert extract_program(completion, continues=True) == program


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" + '"""\n' * 50_001 + "```",
        "```python\n" + "'''\"\"\"" * 50_001,
        "```python\nx\n" * 30_000,
        "word word word\n" * 50_000 + "x = 1",
        "'" * 200_000,
        "<answer>\n" * 50_000,
        "``` " + "a" * 10**6 + "`",
        "``` a" * 50_000,
        "> " * 100_000 + "```python\nprint(1)\n```",
        "a, " * 100_000 + "\n```\n",
        "```python\ndef f():\n```\n" * 5_000,
    ],
    ids=range(11),
)
def test_time_is_linear(text: str) -> None:
    start = time.process_time()
    extract_program(text)
    assert time.process_time() - start < 10.0
