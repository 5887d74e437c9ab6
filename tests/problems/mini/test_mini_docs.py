"""The example of docs/mini.md is a true one."""

import re
from pathlib import Path

from openrlhf_maxk.problems.mini.language import OPERATIONS, RESULTS, Task, statement

from .interpreter import printed


def test_the_example_of_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "mini.md").read_text()
    shown, program = (re.search(rf"```{kind}\n(given|a = )(.*?)```", page, re.S) for kind in ("", "python"))
    text, program = shown[1] + shown[2], (program[1] + program[2]).rstrip("\n")
    words = {word.text: word for word in OPERATIONS + RESULTS}
    task = Task((words["large"], words["shift"], words["spread"]), (0, 1, 0))
    assert program == task.program
    given, output = (line.split(" ", 1)[1] for line in text.splitlines()[1:])
    assert text == statement(task.words, 0, given, output)
    assert printed(program, given) == output
