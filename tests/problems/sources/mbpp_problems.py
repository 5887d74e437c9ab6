"""Problems in MBPP's original form, written for these tests: every shape of assert that the data set's own have.

``CONVERTIBLE`` must become programs whose reference solutions pass; ``REJECTED`` must be rejected for the reason given.
"""

from __future__ import annotations

from typing import Any


def problem(text: str, code: str, *tests: str, setup: str = "") -> dict[str, Any]:
    return {"text": text, "code": code, "test_list": list(tests), "test_setup_code": setup, "challenge_test_list": []}


CONVERTIBLE = [
    problem(
        "Write a function to add two whole numbers.",
        "def add(a, b):\n    return a + b",
        "assert add(2, 3) == 5",
        "assert add(-4, 1) == -3",
        "assert add(10**20, 1) == 100000000000000000001",
    ),
    problem(
        "Write a function to find the area of a circle.",
        "import math\r\ndef area(r):\r\n  return math.pi * r * r",
        "assert area(1) == 3.141592653589793",
        "assert area(2.5) == 19.634954084936208",
        "assert area(0) == 0.0",
    ),
    problem(
        "Write a function to reverse the words of a sentence.",
        "def flip(s):\n    return ' '.join(reversed(s.split()))",
        "assert flip('one two three') == 'three two one'",
        'assert flip("it\'s") == "it\'s"',
        "assert flip('a  b') == 'b a'",
    ),
    problem(
        "Write a function to keep the spaces and swap the case.",
        "def swap(s):\n    return s.swapcase()",
        "assert swap('a  B') == 'A  b'",
        "assert swap('') == ''",
        "assert swap('x\\ty') == 'X\\tY'",
    ),
    problem(
        "Write a function to sort a list in place and return it.",
        "def order(xs):\n    xs.sort()\n    return xs",
        "assert order([3, 1, 2]) == [1, 2, 3]",
        "assert order([]) == []",
        "assert order([0] * 3 + [-1]) == [-1, 0, 0, 0]",
    ),
    problem(
        "Write a function to pair neighbours.",
        "def neighbours(xs):\n    return list(zip(xs, xs[1:]))",
        "assert neighbours([1, 2, 3]) == [(1, 2), (2, 3)]",
        "assert neighbours((4, 5)) == [(4, 5)]",
        "assert neighbours([7]) == []",
    ),
    problem(
        "Write a function to return the smallest and the largest.",
        "def ends(xs):\n    return min(xs), max(xs)",
        "assert ends([3, 1, 2]) == (1, 3)",
        "assert ends([5]) == (5, 5)",
    ),
    problem(
        "Write a function to find what two lists share.",
        "def shared(a, b):\n    return set(a) & set(b)",
        "assert shared([1, 2, 3], [2, 3, 4]) == {2, 3}",
        "assert shared(['x', 'y', 'z'], ['z', 'y']) == {'y', 'z'}",
        "assert shared([1], [2]) == set()",
    ),
    problem(
        "Write a function to list what two tuples share.",
        "def common(a, b):\n    return tuple(x for x in a if x in b)",
        "assert set(common((3, 4, 5, 6), (5, 7, 4, 10))) == set((4, 5))",
        "assert set(common((1, 2), (2, 1))) == set([1, 2])",
        "assert set(common((1,), ())) == set(())",
    ),
    problem(
        "Write a function to count the letters of a word.",
        "from collections import Counter\ndef letters(word):\n    return Counter(word)",
        "assert letters('noon') == {'n': 2, 'o': 2}",
        "assert letters('a') == {'a': 1}",
        "assert letters('') == {}",
    ),
    problem(
        "Write a function to group words by length.",
        "def by_length(words):\n    d = {}\n    for w in words:\n"
        "        d.setdefault(len(w), []).append(w)\n    return d",
        "assert by_length(['a', 'bb', 'c']) == {2: ['bb'], 1: ['a', 'c']}",
        "assert by_length([]) == dict()",
    ),
    problem(
        "Write a function to look a key up.",
        "def look(d, key):\n    return d.get(key)",
        "assert look({'a': [1, {'b': 2}]}, 'a') == [1, {'b': 2}]",
        "assert look({'a': 1}, 'z') == None",
        "assert look({}, 0) is None",
    ),
    problem(
        "Write a function to tell whether a number is even.",
        "def even(n):\n    return n % 2 == 0",
        "assert even(4) == True",
        "assert even(7) == False",
        "assert even(-2) is True",
    ),
    problem(
        "Write a function to check whether a word is a palindrome.",
        "def palindrome(w):\n    return w == w[::-1]",
        "assert palindrome('level')",
        "assert not palindrome('levels')",
        "assert palindrome('')",
    ),
    problem(
        "Write a function to find a match in a text.",
        "import re\ndef has_digit(s):\n    return re.search(r'[0-9]', s)",
        "assert has_digit('a1')",
        "assert not has_digit('ab')",
    ),
    problem(
        "Write a function to tell one from zero, as a number.",
        "def positive(n):\n    return 1 if n > 0 else 0",
        "assert positive(4) == True",
        "assert positive(-4) == False",
    ),
    problem(
        "Write a function to find the mean, which may be whole.",
        "def mean(xs):\n    return sum(xs) / len(xs)",
        "assert mean([1, 2, 3]) == 2",
        "assert mean([1, 2]) == 1.5",
        "assert mean([-4]) == -4",
    ),
    problem(
        "Write a function to find the volume of a cube.",
        "def volume(a):\n    return a * a * float(a)",
        "assert volume(3) == 27",
        "assert volume(5) == 125",
    ),
    problem(
        "Write a function to find the golden ratio's power.",
        "import math\ndef power(n):\n    return ((1 + math.sqrt(5)) / 2) ** n",
        "assert math.isclose(power(2), 2.618033988749895, rel_tol=0.001)",
        "assert math.isclose(power(10), 122.99186938124426, rel_tol=0.001)",
        setup="import math",
    ),
    problem(
        "Write a function to find a root near a number.",
        "def root(x):\n    return x ** 0.5",
        "assert abs(root(2) - 1.41421356) < 1e-6",
        "assert abs(root(9) - 3) <= 0.001",
    ),
    problem(
        "Write a function to divide, to two digits.",
        "def share(a, b):\n    return a / b",
        "assert round(share(1, 3), 2) == 0.33",
        "assert round(share(2, 3), 2) == 0.67",
    ),
    problem(
        "Write a function to repeat a text.",
        "def repeat(text, times=2, sep=''):\n    return sep.join([text] * times)",
        "assert repeat('ab', times=3) == 'ababab'",
        "assert repeat('x', times=1) == 'x'",
    ),
    problem(
        "Write a function to sum up to three numbers.",
        "def total(a, b=0, c=0):\n    return a + b + c",
        "assert total(1) == 1",
        "assert total(1, 2) == 3",
        "assert total(1, 2, 3) == 6",
    ),
    problem(
        "Write a function to sum any numbers.",
        "def total(*numbers):\n    return sum(numbers)",
        "assert total(*[1, 2, 3]) == 6",
        "assert total() == 0",
    ),
    problem(
        "Write a function to return the answer.",
        "def answer():\n    return 42",
        "assert answer() == 42",
        "assert answer() == 6 * 7",
    ),
    problem(
        "Write a function to double a list.",
        "def double(xs):\n    return [2 * x for x in xs]",
        'assert double([1, 2]) == [2, 4], "doubles"',
        "assert [6] == double([3])",
        "assert double(list(range(4))) == [2 * i for i in range(4)]",
    ),
    problem(
        "Write a function to name a value as Python names its types.",
        "def tuple(x):\n    return 'pair'\ndef print(x):\n    return 'shown'\ndef isinstance(x, y):\n    return False\n"
        "def list(x):\n    return [x, tuple(x), print(x)]",
        "assert list(1) == [1, 'pair', 'shown']",
        "assert list('a') == ['a', 'pair', 'shown']",
    ),
    problem(
        "Write a function to count letters word by word.",
        "from collections import Counter, OrderedDict, namedtuple\nWord = namedtuple('Word', 'text letters')\n"
        "def letters(words):\n    return [Word(w, OrderedDict(sorted(Counter(w).items()))) for w in words]",
        "assert letters(['aba']) == [('aba', {'a': 2, 'b': 1})]",
        "assert letters(['a', 'b']) == [('a', Counter('a')), ('b', {'b': 1})]",
    ),
    problem(
        "Write a function to return the first number above a bound; what follows the comma is a message.",
        "def above(xs, bound):\n    return next(x for x in xs if x > bound)",
        "assert above([1, 5, 7], 3) == 5, 7",
        "assert above([9], 0) == 9",
    ),
    problem(
        "Write a function to use a list made before.",
        "def last(xs):\n    return xs[-1]",
        "assert last(numbers) == 9",
        "assert last(words) == 'b'",
        setup="numbers = [1, 5, 9]\nwords = ['a', 'b']",
    ),
    problem(
        "Write a function to walk a tree given as nested lists.",
        "class Node:\n    def __init__(self, value):\n        self.value = value\n\n"
        "def depth(tree):\n    node = Node(tree)\n"
        "    return 1 + max(map(depth, node.value), default=0) if isinstance(node.value, list) else 0",
        "assert depth([1, [2, [3]]]) == 3",
        "assert depth([]) == 1",
    ),
    problem(
        "Write a function to transpose a matrix of mixed values.",
        "def transpose(rows):\n    return [list(row) for row in zip(*rows)]",
        "assert transpose([[1, 2.5], ['a', None]]) == [[1, 'a'], [2.5, None]]",
        "assert transpose([[True]]) == [[True]]",
    ),
    problem(
        "Write a function to scale numbers.",
        "def scale(xs):\n    return [x * 0.1 for x in xs]",
        "assert scale([1, 2]) == [0.1, 0.2]",
        "assert scale([3]) == [0.30000000000000004]",
    ),
    problem(
        "Write a function to sort the keys of a dictionary in any way.",
        "def keys(d):\n    return d.keys()",
        "assert sorted(keys({'b': 1, 'a': 2})) == ['a', 'b']",
        "assert sorted(keys({1: 1})) == sorted([1])",
    ),
    problem(
        "Write a function to list squares lazily.",
        "def squares(n):\n    return (i * i for i in range(n))",
        "assert list(squares(4)) == [0, 1, 4, 9]",
        "assert list(squares(0)) == []",
    ),
    problem(
        "Write a function to name a sign, or give the number.",
        "def sign(n):\n    return n if n > 0 else 'not positive'",
        "assert sign(3) == 3",
        "assert sign(-3) == 'not positive'",
        "assert (sign(0)) == ('not positive')",
    ),
    problem(
        "Write a function that talks while it works.",
        "print('loading')\ndef noisy(n):\n    print('working on', n)\n    return n + 1",
        "assert noisy(1) == 2",
        "assert noisy(5) == 6",
    ),
    problem(
        "Write a function to compare two things at once.",
        "def bigger(a, b):\n    return a if a > b else b",
        "assert bigger(1, 2) == 2 and bigger(5, 3) == 5",
        "assert bigger(0, -1) == 0",
    ),
    problem(
        "Write a function to find the largest possible number.",
        "def top(xs):\n    return max(xs, default=float('inf'))",
        "assert top([]) == float('inf')",
        "assert top([2.5, 1.0]) == 2.5",
    ),
    problem(
        "Write a function to freeze a list.",
        "def freeze(xs):\n    return frozenset(xs)",
        "assert freeze([1, 2, 1]) == frozenset([1, 2])",
        "assert freeze([]) == set()",
    ),
    problem(
        "Write a lambda to increment.",
        "increment = lambda n: n + 1",
        "assert increment(1) == 2",
        "assert increment(-1) == 0",
    ),
    problem(
        "Write a function to look into bytes.",
        "def first(data):\n    return data[0]",
        "assert first(b'abc') == 97",
        "assert first(b'\\n') == 10",
    ),
    problem(
        "Write a function to multiply complex numbers.",
        "def times(a, b):\n    return a * b",
        "assert times(1j, 1j) == -1",
        "assert times(1 + 2j, 2) == (2 + 4j)",
    ),
    problem(
        "Write a function to split a text into lines.",
        "from __future__ import annotations\ndef lines(text):\n    return text.split('\\n')",
        "assert lines('a\\nb') == ['a', 'b']",
        "assert lines('') == ['']",
    ),
]

REJECTED = {
    "argument_not_a_value": [
        problem(
            "Write a function to find the height of a tree.",
            "class Node:\n    def __init__(self, v):\n        self.left = self.right = None\n"
            "def height(n):\n    return 0 if n is None else 1 + max(height(n.left), height(n.right))",
            "assert height(root) == 1",
            setup="root = Node(1)",
        ),
        problem("Apply a function.", "def apply(f, x):\n    return f(x)", "assert apply(lambda x: x + 1, 2) == 3"),
        problem("Use a big number.", "def f(x):\n    return 1", "assert f(10 ** 10 ** 10) == 1"),
    ],
    "expected_not_a_value": [
        problem(
            "Make a date.",
            "import datetime\ndef f(y):\n    return datetime.date(y, 1, 1)",
            "assert f(2020) == datetime.date(2020, 1, 1)",
            setup="import datetime",
        ),
    ],
    "not_an_equality": [
        problem("Pick any.", "def f(xs):\n    return xs[0]", "assert f([1, 2]) in [1, 2]"),
        problem("Grow.", "def f(x):\n    return x + 1", "assert f(1) > 1"),
        problem("Differ.", "def f(x):\n    return x + 1", "assert f(1) != 1"),
    ],
    "both_sides_call": [problem("Same.", "def f(x):\n    return x % 3", "assert f(1) == f(4)")],
    "no_call": [problem("Nothing.", "def f(x):\n    return x", "assert 1 == 1")],
    "several_functions": [
        problem("Two.", "def f(x):\n    return x\ndef g(x):\n    return -x", "assert f(1) == 1", "assert g(1) == -1")
    ],
    "unsupported_wrapper": [
        problem("Count.", "def f(x):\n    return [x] * 3", "assert len(f(1)) == 3"),
        problem("First.", "def f(x):\n    return [x, x]", "assert f(1)[0] == 1"),
    ],
    "tests_an_object": [
        problem("Stack.", "class Stack:\n    def __init__(self, xs):\n        self.xs = xs", "assert Stack([1]) == 1"),
    ],
    "not_an_assert": [
        problem("Loop.", "def f(x):\n    return x", "for i in range(3):\n    assert f(i) == i"),
        problem("None.", "def f(x):\n    return x", "f(1)"),
    ],
    "not_python": [
        problem("Old.", "def f(x):\n    print x", "assert f(1) == None"),
        problem("Broken.", "def f(x):\n    return x", "assert f(1 == 1"),
    ],
    "mixed_forms": [problem("Mix.", "def f(x):\n    return [x]", "assert f(1) == [1]", "assert set(f(2)) == {2}")],
    "varying_keywords": [
        problem("Keys.", "def f(a, b=0, c=0):\n    return a", "assert f(1, b=2) == 1", "assert f(1, c=2) == 1")
    ],
    "contradictory_tests": [problem("Coin.", "def f(x):\n    return x", "assert f(1) == 1", "assert f(1) == 2")],
    "never_true": [problem("Never.", "def f(x):\n    return x", "assert set(f([1])) == [1]")],
    "no_tests": [problem("Untested.", "def f(x):\n    return x")],
    "empty_statement": [problem("  ", "def f(x):\n    return x", "assert f(1) == 1")],
}

# Converted, and then found out: the reference does not pass the asserts either.
FAILING = [
    problem("Wrong.", "def f(x):\n    return x + 1", "assert f(1) == 1"),
    problem("Crashes.", "def f(x):\n    return x[5]", "assert f([1]) == 1"),
]


def numbered(problems: list[dict[str, Any]], first: int = 11) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [{"task_id": first + i, **row} for i, row in enumerate(problems)]
