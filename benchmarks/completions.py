"""Completions as models write them, each for one of a few small problems, with what is right about them.

A completion is right for a rule if the program that the rule finds in it passes the problem's tests. Those for which no
program is right (``None`` stands for the problem) are right if nothing is found.
"""

from __future__ import annotations

from openrlhf_maxk.problems.record import Mode, Problem, Test

ADD = Problem("add", "", (Test("1 2\n", "3\n"), Test("4 5\n", "9\n")))
LINES = Problem("lines", "", (Test("3\n1\n2\n3\n", "6\n"), Test("1\n7\n", "7\n")))
TWICE = Problem("twice", "", (Test("[2]", "4"), Test("[5]", "10")), Mode.FUNCTION, "twice")
METHOD = Problem("method", "", (Test("[[3, 1, 2]]", "[1, 2, 3]"),), Mode.FUNCTION, "Solution.ordered")
BODY = Problem(
    "body",
    "",
    (Test("[[3, 1, 2]]", "[1, 2, 3]"), Test("[[]]", "[]")),
    Mode.FUNCTION,
    "ordered",
    program_prefix='from typing import List\n\n\ndef ordered(x: List[int]) -> List[int]:\n    """Return x in order."""',
)

A = "a, b = map(int, input().split())\nprint(a + b)"
A_MAIN = "def main():\n    a, b = map(int, input().split())\n    print(a + b)\n\nmain()"
A_GUARD = (
    "import sys\n\ndef solve(data):\n    return sum(map(int, data.split()))\n\n"
    "if __name__ == '__main__':\n    print(solve(sys.stdin.read()))"
)
A_ONE = "print(sum(map(int, input().split())))"
L = "n = int(input())\ntotal = 0\nfor _ in range(n):\n    total += int(input())\nprint(total)"
L_SYS = "import sys\ndata = sys.stdin.read().split()\nprint(sum(map(int, data[1:])))"
T = "def twice(x):\n    return 2 * x"
T_DOC = 'def twice(x):\n    """Twice x.\n\n    ```\n    >>> twice(2)\n    4\n    ```\n    """\n    return 2 * x'
T_LEFT = 'def twice(x):\n    """Twice x.\n\n```python\ntwice(2)\n```\n    """\n    return 2 * x'
T_IMPORT = "import math\n\ndef twice(x):\n    return math.prod([2, x])"
M = "class Solution:\n    def ordered(self, x):\n        return sorted(x)"
M_TYPES = (
    "from typing import List\n\nclass Solution:\n"
    "    def ordered(self, x: List[int]) -> List[int]:\n        x.sort()\n        return x"
)
T_UNIT = "import unittest\nclass Test(unittest.TestCase):\n    def test(self):\n        self.assertEqual(twice(2), 4)"
A_PART = "def add(a, b):\n    return a + b"
A_CALL = "a, b = map(int, input().split())\nprint(add(a, b))"
WRONG_A = "a, b = map(int, input().split())\nprint(a - b)"
WRONG_T = "def twice(x):\n    return x"
ORDERED = "def ordered(x):\n    return sorted(x)"


def fenced(program: str, language: str = "python", close: str = "```", open_: str = "```") -> str:
    return f"{open_}{language}\n{program}\n{close}"


def indented(program: str, by: int = 3) -> str:
    return "\n".join(" " * by + line if line else line for line in program.split("\n"))


_LANGUAGES = [
    "python",
    "py",
    "python3",
    "Python",
    "PYTHON",
    "Python3",
    "py3",
    "python3.11",
    "pypy3",
    "cpython",
    "{.python}",
    "{python}",
    "python=",
    "python=1",
    "python,linenos",
    "ipython3",
    "ipython",
    "python:main.py",
    "solution.py",
    "main.py",
    "language-python",
]

_INTRODUCTIONS = (
    "Here is the code: ", "**Solution:** ", "1. ", "- ", "Answer: ", "## Solution ", "Sure! ", "Code:", "### ",
)  # fmt: skip

_ENDS = (
    "<|im_end|>", "</s>", "<eos>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "<｜end▁of▁sentence｜>",
    ".", " ", " That is all.", " <|im_end|>", "<|im_end|>\n<|endoftext|>", "\n</s>", "\n<|im_end|>\n", ")", "**",
)  # fmt: skip

COMPLETIONS: list[tuple[Problem | None, str]] = [
    # one block, by its language
    *((ADD, f"Here it is.\n\n{fenced(A, language)}\n\nIt adds.") for language in _LANGUAGES),
    (ADD, fenced(A, "")),
    (ADD, fenced(A, "python title='add.py'")),
    (ADD, fenced(A, 'python {linenos=true, hl_lines=["1"]}')),
    (ADD, fenced(A, "Python 3")),
    (ADD, fenced(A, "{code-cell} ipython3")),
    (ADD, fenced(A, "code")),
    (ADD, fenced(A, "text")),
    (ADD, fenced(A, "solution")),
    (METHOD, fenced(M)),
    (METHOD, f"The idea is to sort.\n\n{fenced(M_TYPES)}\n\n- Time: O(n log n)\n- Space: O(1)"),
    (TWICE, f"**Approach**\n\nMultiply.\n\n{fenced(T_IMPORT)}\n"),
    # where it opens
    *((ADD, f"{introduction}{fenced(A_MAIN)}\n\nDone.") for introduction in _INTRODUCTIONS),
    (ADD, f"Here is the code: {fenced(A_ONE, '')}\nDone."),
    (ADD, f"1. Read.\n2. Add:\n\n   ```python\n{indented(A)}\n   ```\n"),
    (ADD, f"* Program:\n\n    ```python\n{indented(A, 4)}\n    ```\n"),
    (ADD, "> ```python\n" + "\n".join(f"> {line}" for line in A.split("\n")) + "\n> ```\n"),
    (ADD, f"\ufeff{fenced(A)}"),
    (ADD, f"\u200b{fenced(A)}"),
    (ADD, f"Look:\n\u200b{fenced(A)}"),
    (ADD, f"```python\n\ufeff{A}\n```"),
    (ADD, f"```python\n```python\n{A}\n```"),
    (ADD, f"```python\n```python\n{A}\n```\n```"),
    (ADD, f"```\n```python\n{A}\n```"),
    (ADD, f"```python import sys\n{A}\n```"),
    (ADD, f"```python {A_ONE}```"),
    (ADD, f"The whole of it is ```python {A_ONE}``` as one line."),
    (ADD, f"~~~python\n{A}\n~~~"),
    (ADD, f"````python\n{A}\n````"),
    (ADD, fenced(A).replace("\n", "\r\n")),
    (ADD, f"```python   \n\n\n{A}\n\n\n```   "),
    # where it closes
    *((ADD, fenced(A) + end) for end in _ENDS),
    *((LINES, L_SYS + end) for end in ("<|im_end|>", "</s>", "<|endoftext|>\n", "<eos>")),
    (ADD, f"```python\n{A}```"),
    (ADD, f"```python\n{A}```<|im_end|>"),
    (ADD, f"```python\n{A}``` This adds.\n"),
    (ADD, f"```python\n{A}  # done```"),
    (TWICE, f"```python\n{T}```\nHope this helps."),
    (ADD, f"```python\n{A}"),
    (ADD, f"Here:\n```python\n{A_GUARD}\n"),
    (ADD, f"```python\n{A}\n    ```\nThe fence is indented."),
    (ADD, f"```python\n{A}\n````"),
    # fences inside of the program
    (TWICE, fenced(T_DOC)),
    (TWICE, fenced(T_LEFT)),
    (TWICE, f"Some words.\n{fenced(T_DOC)}\nAnd others."),
    (ADD, fenced(A + "\nx = '```'")),
    (ADD, fenced("# no ``` ends this\n" + A)),
    (ADD, fenced(f"x = '''\n```\n'''\n{A}", open_="````", close="````")),
    (ADD, fenced(f"'''\nUsage:\n```\npython a.py\n```\n'''\n{A}")),
    (ADD, fenced("# don't worry about \"quotes\n" + A)),
    (ADD, fenced(A + "\nprint('', end='')  # \"\"\" in a comment")),
    # several blocks
    (ADD, f"First try:\n{fenced(WRONG_A)}\nThat subtracts. Better:\n{fenced(A)}"),
    (ADD, f"{fenced(A)}\nOutput:\n{fenced('3', '')}"),
    (ADD, f"{fenced(A)}\nOutput:\n{fenced('3', 'text')}"),
    (ADD, f"{fenced(A)}\nSample:\n{fenced('1 2', '')}\ngives\n{fenced('3', '')}"),
    (ADD, f"{fenced(A)}\nRun it:\n{fenced('python add.py', 'bash')}"),
    (ADD, f"{fenced('pip install numpy', 'bash')}\n{fenced(A, '')}"),
    (ADD, f"Input:\n{fenced('1 2', '')}\nOutput:\n{fenced('3', '')}\nProgram:\n{fenced(A)}"),
    (ADD, f"Input:\n{fenced('1 2', '')}\nOutput:\n{fenced('3', '')}\nProgram:\n{fenced(A, '')}"),
    (ADD, f"{fenced('int main() {{ return 0; }}', 'cpp')}\nIn Python:\n{fenced(A)}"),
    (ADD, f"{fenced(A)}\nIn C++:\n{fenced('int main() { return 0; }', 'cpp')}"),
    (ADD, f"{fenced('int x;', 'cpp')}\nIn Python:\n{fenced(A, '')}"),
    (ADD, f"{fenced(WRONG_A)}\nThe final program:\n{fenced(A_GUARD, '')}"),
    (ADD, f"{fenced(A)}\n{fenced('# that is all', 'python')}"),
    (TWICE, f"{fenced(T)}\nUsage:\n{fenced('print(twice(2))')}"),
    (TWICE, f"{fenced(T)}\nUsage:\n{fenced('# Example usage')}"),
    (TWICE, f"{fenced(T)}\nTests:\n{fenced('assert twice(2) == 4')}"),
    (TWICE, f"{fenced(T)}\nTests:\n{fenced('assert twice(2) == 4' + chr(10) + 'assert twice(0) == 0  # zero')}"),
    (TWICE, f"{fenced(T)}\nSession:\n{fenced('>>> twice(2)' + chr(10) + '4')}"),
    (TWICE, f"{fenced(T)}\nUsage:\n{fenced('result = twice(2)' + chr(10) + 'print(result)')}"),
    (
        TWICE,
        f"{fenced(T)}\n{fenced(T_UNIT)}",
    ),
    (TWICE, f"{fenced(WRONG_T)}\nNo:\n{fenced(T)}\nUsage:\n{fenced('twice(3)')}"),
    (TWICE, f"{fenced(T)}\nWith a loop:\n{fenced('for i in range(3):' + chr(10) + '    print(twice(i))')}"),
    (METHOD, f"{fenced(M)}\nUsage:\n{fenced('s = Solution()' + chr(10) + 'print(s.ordered([2, 1]))')}"),
    (METHOD, f"{fenced('def ordered(x): return x')}\nAs a class:\n{fenced(M)}"),
    (
        ADD,
        f"{fenced(A_PART)}\nCall it:\n{fenced(A_CALL)}",
    ),
    (ADD, f"{fenced(A_GUARD)}\nFor example:\n{fenced('print(solve(' + repr('1 2') + '))')}"),
    (ADD, f"```python\n{WRONG_A}\n\nOh no, that is wrong.\n```python\n{A}\n```"),
    (ADD, f"{fenced(A)}\n```python\n"),
    (ADD, f"{fenced(A)}\nIn short, use `print`, and ```a + b``` does it."),
    (LINES, f"Reads n:\n{fenced('n = int(input())')}\nIn all:\n{fenced(L)}"),
    (LINES, f"{fenced(L)}\n| n | time |\n|---|---|\n| 3 | 1 ms |"),
    (ADD, f"{fenced(A)}\n{fenced('{' + chr(34) + 'a' + chr(34) + ': 1}', 'json')}"),
    (ADD, f"{fenced(A)}\n{fenced('!pip install numpy')}"),
    (ADD, f"{fenced(A)}\n{fenced('flowchart LR' + chr(10) + 'a --> b', 'mermaid')}"),
    # the prompt opened the block
    (ADD, f"{A}\n```\nThis adds."),
    (ADD, f"{A}\n```"),
    (ADD, f"{A}```"),
    (ADD, f"{A}\n```<|im_end|>"),
    (ADD, f"{A}\n```\nOutput:\n```\n3\n```"),
    (ADD, f"{A_GUARD}\n```\n\nSample input:\n```\n1 2\n```\nSample output:\n```\n3\n```\n"),
    (ADD, f"{WRONG_A}\n```\nThat is wrong. Better:\n```python\n{A}\n```"),
    (TWICE, f"{T}\n```\n\nUsage:\n```python\nprint(twice(2))\n```"),
    (LINES, f"{L}\n```\nfor example:\n```\n3\n```"),
    # marked as the answer
    (ADD, f"[PYTHON]\n{A}\n[/PYTHON]"),
    (ADD, f"[PYTHON]\n{A}\n[/PYTHON]\n[TESTS]\nassert True\n[/TESTS]"),
    (ADD, f"Some words.\n[PYTHON]\n{fenced(A)}\n[/PYTHON]"),
    (ADD, f"<answer>\n{A}\n</answer>"),
    (ADD, f"<answer>\n{fenced(A)}\n</answer>"),
    (ADD, f"<answer>{fenced(A)}</answer>"),
    (ADD, f"{fenced(WRONG_A)}\n<answer>\n{fenced(A)}\n</answer>"),
    (ADD, f"<answer>\n{fenced(A)}\n</answer>\nA slower one:\n{fenced(WRONG_A)}"),
    (ADD, f"<answer>\n{fenced(A)}"),
    (ADD, f"{fenced(A)}\n<answer>see above</answer>"),
    (TWICE, f"<solution>\n{T}\n</solution>"),
    (ADD, f"<|begin_of_solution|>\n{fenced(A)}\n<|end_of_solution|>"),
    # reasoning
    (ADD, f"<think>\n{fenced(WRONG_A)}\n</think>\n{fenced(A)}"),
    (ADD, f"<think>Try {fenced(WRONG_A)}</think><answer>{fenced(A)}</answer>"),
    (ADD, f"words\n</think>\n\n{A}"),
    (ADD, f"<think>a</think>\n{fenced(A)}<|im_end|>"),
    (ADD, f"<thinking>\n{fenced(WRONG_A)}\n</thinking>\n{fenced(A)}"),
    (ADD, f"[THINK]{fenced(WRONG_A)}[/THINK]{fenced(A)}"),
    (
        ADD,
        f"<|channel|>analysis<|message|>{fenced(WRONG_A)}<|end|><|start|>assistant<|channel|>final<|message|>{fenced(A)}<|return|>",
    ),
    (None, f"<think>\n{fenced(A)}"),
    # no fence
    *((ADD, program) for program in (A, A_MAIN, A_GUARD, A_ONE)),
    (LINES, f"\n\n{L}\n\n"),
    (TWICE, T_DOC.replace("```", "===")),
    (METHOD, M_TYPES),
    (ADD, f"<|im_start|>assistant\n{A}<|im_end|>"),
    (ADD, f"Here is a program that adds two numbers:\n\n{A}\n"),
    (ADD, f"Here is a program that adds two numbers:\n\n{A_MAIN}\n\nIt reads two numbers and prints their sum."),
    (TWICE, f"Sure!\n\n{T}\n\nThis function returns twice its argument."),
    (
        LINES,
        f"To solve this, read all numbers and add them.\n\n{L_SYS}\n\nExplanation:\n\n- Read everything.\n- Add it.",
    ),
    (LINES, f"# Sum of lines\n{L}"),
    # the prompt holds the beginning
    (BODY, "    return sorted(x)"),
    (BODY, "    return sorted(x)\n"),
    (BODY, "\n    return sorted(x)<|endoftext|>"),
    (BODY, "    x = list(x)\n    x.sort()\n    return x\n"),
    (BODY, "    if not x:\n        return []\n    return sorted(x)"),
    (BODY, "    return sorted(x)\n```\nThis sorts."),
    (BODY, "    result = []\n    for v in x:\n        result.append(v)\n    result.sort()\n    return result\n```"),
    (BODY, fenced("    return sorted(x)")),
    (BODY, fenced(ORDERED)),
    (BODY, f"Here is the whole function:\n\n{fenced(ORDERED)}\n"),
    (BODY, ORDERED),
    (BODY, f"{fenced(ORDERED)}\nUsage:\n{fenced('print(ordered([2, 1]))')}"),
    (BODY, fenced(BODY.program_prefix + "\n    return sorted(x)")),
    # nothing
    (None, ""),
    (None, "I do not know how to solve this."),
    (None, "The answer is 3."),
    (None, "```cpp\nint main() {}\n```"),
    (None, "```python\n```"),
    (None, "First read the input, then add the numbers (both are small), and print the sum."),
]
