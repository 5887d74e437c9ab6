"""What a row of a file of samples means. A format is a name, what its rows look like, and how one of them is read.

The first format that fits a file's first row reads the file. Sources: the writers of evalplus, LiveCodeBench, the
bigcode harness, lm-evaluation-harness, lighteval, inspect, verl and OpenRLHF, and OpenAI's batch API.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openrlhf_maxk.evaluation.samples.files.answers import Answer, answers_of, last_message
from openrlhf_maxk.evaluation.samples.files.containers import Row

ID_FIELDS = (
    *("problem", "problem_id", "task_id", "question_id", "label", "custom_id", "instance_id"),
    *("problem_name", "task_name", "slug", "name", "id"),
)
COMPLETION_FIELDS = (
    *("completion", "completions", "response", "responses", "output", "outputs", "code_list", "output_list"),
    *("generation", "generations", "generated_text", "solution", "solutions", "samples", "prediction", "predictions"),
)
PROMPT_FIELDS = ("prompt", "input", "question", "query", "problem", "instruction", "question_content")
CHAT_FIELDS = ("messages", "conversation", "conversations")
_LONGEST_ID = 300  # characters


@dataclass(frozen=True)
class Fields:
    """The names of the two fields, as the user gave them; ``a.b`` is the field ``b`` of the object ``a``."""

    id: str | None = None
    completion: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a row says: some completions, and all that can tell of which problem they are."""

    answers: list[Answer]
    names: Mapping[str, str | int] = field(default_factory=dict)  # by field, the likeliest first
    prompt: str | None = None  # text that the problem's statement stands in
    position: int | None = None  # in the order of the data set
    skipped: str = ""  # why the row counts for nothing


class NoField(ValueError):
    """A row without a field that it must have."""

    def __init__(self, what: str, expected: str, option: str, row: Mapping[str, Any]) -> None:
        has = ", ".join(map(repr, list(row)[:12])) or "nothing"
        super().__init__(f"has no field for {what} ({expected}), but {has}; name it with {option}")


@dataclass(frozen=True)
class Format:
    """One way to write samples. ``read`` gets the row, the file's first row, and the fields that the user named."""

    name: str
    fits: Callable[[Row], bool]
    read: Callable[[Any, Any, Fields], Entry]


def recognise(first: Row, fields: Fields) -> Format:
    """The format of a file, by its first row. Named fields mean rows of these fields, whoever wrote them."""
    if fields.id is not None or fields.completion is not None:
        by_name = isinstance(first, dict) and {"resps", "filtered_resps"} & {fields.completion}
        return next(f for f in FORMATS if f.name == ("lm-eval" if by_name else "rows"))
    return next(format for format in FORMATS if format.fits(first))


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: isinstance(row, dict) and all(name in row for name in names)


def scalar(value: Any) -> str | int | None:
    """A value that can be the name of a problem."""
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as tables write numbers beside gaps
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return value if isinstance(value, int) or 0 < len(value) <= _LONGEST_ID else None


def names_of(row: Any) -> dict[str, str | int]:
    """The fields of a row that may name its problem."""
    if not isinstance(row, Mapping):
        return {}
    found = {name: scalar(row[name]) for name in ID_FIELDS if name in row}
    return {name: value for name, value in found.items() if value is not None}


def _prompt_of(row: Mapping[str, Any]) -> str | None:
    for name in (*PROMPT_FIELDS, *CHAT_FIELDS):
        value = row.get(name)
        text = value if isinstance(value, str) else last_message(value, assistant=False)
        if text:
            return text
    return None


def look_up(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """A field by its name, or by a path of names; and whether it is there."""
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _rows(row: Row, first: Row, fields: Fields) -> Entry:
    """Rows with a problem's id and a completion, or a list of them: human-eval, evalplus, LiveCodeBench, anybody."""
    if not isinstance(row, dict):
        raise ValueError(f"must be a JSON object, not {type(row).__name__}")
    prompt = _prompt_of(row)
    names = names_of(row)
    if fields.id is not None:
        there, value = look_up(row, fields.id)
        name = scalar(value)
        if not there or name is None:
            raise NoField("the problem's id", repr(fields.id), "--id-field", row)
        names, prompt = {fields.id: name}, None
    elif not names and prompt is None:
        raise NoField("the problem's id", ", ".join(ID_FIELDS), "--id-field", row)
    chosen, value = _completion(row, first if isinstance(first, dict) else row, fields)
    try:
        answers = answers_of(value)
    except ValueError as error:
        raise ValueError(f"{chosen!r} must be text or a list of texts: {error}") from None
    return Entry(_with_measures(row, answers), names, prompt)


def _completion(row: Mapping[str, Any], first: Mapping[str, Any], fields: Fields) -> tuple[str, Any]:
    """The field of the completion: the one given, the first known one of the file's first row, or a conversation."""
    if fields.completion is not None:
        there, value = look_up(row, fields.completion)
        if not there:
            raise NoField("the completion", repr(fields.completion), "--completion-field", row)
        return fields.completion, value
    for known in (first, row):
        for name in (*COMPLETION_FIELDS, *CHAT_FIELDS):
            if name in known and name in row:
                return name, row[name]
    raise NoField("the completion", ", ".join(COMPLETION_FIELDS), "--completion-field", row)


def _with_measures(row: Mapping[str, Any], answers: list[Answer]) -> list[Answer]:
    """Length, log-probability and ending of a completion; of a list of completions none is known."""
    if len(answers) != 1 or answers[0].text is None:
        return answers
    tokens, logprob, finish = row.get("tokens"), row.get("logprob"), row.get("finish") or row.get("finish_reason")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0):
        raise ValueError(f"'tokens' must be a number of tokens, not {str(tokens)[:40]!r}")
    if logprob is not None and (not isinstance(logprob, int | float) or not logprob <= 0):
        raise ValueError(f"'logprob' must be a log-probability (at most 0), not {str(logprob)[:40]!r}")
    if logprob is not None and tokens is None:
        raise ValueError("'logprob' needs 'tokens' beside it, for the entropy of a token")
    ending = answers[0].finish if finish is None else str(finish)
    return [Answer(answers[0].text, ending, -1 if tokens is None else tokens, logprob)]


def _list(row: Row, first: Row, fields: Fields) -> Entry:
    """bigcode: a list of completions a problem, in the order of the problems; its position is that of the row."""
    if not isinstance(row, list):
        raise ValueError(f"must be a list of completions, as the rows before it, not {type(row).__name__}")
    return Entry(answers_of(row))


def _lm_eval(row: Any, first: Any, fields: Fields) -> Entry:
    """A document a row, once for each filter. Filtered answers are taken, which the harness itself judges, unless the
    filter kept fewer than were generated. The harness writes a null as the text "None"."""
    if row.get("filter") != first.get("filter"):
        return Entry([], skipped=f"of another filter than {first.get('filter')!r}")
    answers = {name: answers_of(row[name]) for name in ("filtered_resps", "resps") if name in row}
    name = fields.completion
    if name is None:
        few = len(answers.get("filtered_resps", ())) < len(answers.get("resps", ()))
        name = "resps" if few else "filtered_resps"
    if name not in answers:
        raise NoField("the completion", repr(name), "--completion-field", row)
    arguments = row.get("arguments")
    asked = arguments.get("gen_args_0", {}).get("arg_0") if isinstance(arguments, Mapping) else None
    if fields.id is not None:
        names, asked = {fields.id: scalar(look_up(row, fields.id)[1]) or ""}, None
    else:
        names = names_of(row.get("doc"))
    return Entry(
        [Answer(None) if answer.text == "None" else answer for answer in answers[name]],
        names,
        asked if isinstance(asked, str) else _prompt_of(row.get("doc") or {}),
        row.get("doc_id") if isinstance(row.get("doc_id"), int) else None,
    )


def _lighteval(row: Any, first: Any, fields: Fields) -> Entry:
    """The details of lighteval: what was asked (``doc``) and what came back (``model_response``)."""
    doc, response = row["doc"] or {}, row["model_response"] or {}
    texts = response.get("text_post_processed")
    position = doc.get("id")
    return Entry(
        answers_of(response.get("text") if texts is None else texts),
        prompt=doc.get("query"),
        position=int(position) if isinstance(position, str) and position.isdecimal() else None,
    )


def _old_lighteval(row: Any, first: Any, fields: Fields) -> Entry:
    """lighteval before its version 0.11: lists are text, as Python shows them."""
    value = row["predictions"]
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("'predictions' is not a list of texts") from None
    return Entry(answers_of(value), prompt=row.get("full_prompt") or row.get("example"))


def _inspect(row: Any, first: Any, fields: Fields) -> Entry:
    """A sample of inspect: the choices of its output. One that ended in an error was not generated."""
    output = row.get("output") or {}
    choices = output.get("choices") or []
    if row.get("error") or (output.get("error") and not choices):
        answers = [Answer(None)]
    elif choices:
        answers = answers_of(choices)
    else:
        answers = [Answer(last_message(row.get("messages"), assistant=True))]
    kept = row.get("attachments") or {}
    answers = [Answer(_attached(answer.text, kept), answer.finish) for answer in answers]
    asked = row.get("input")
    prompt = asked if isinstance(asked, str) else last_message(asked, assistant=False)
    name = scalar(row.get("id"))
    return Entry(
        answers,
        names_of(row.get("metadata")) | ({} if name is None else {"id": name}),
        _attached(prompt, kept),
    )


def _attached(text: str | None, attachments: Any) -> str | None:
    """A text that the log keeps in another place."""
    if text is None or not text.startswith("attachment://") or not isinstance(attachments, Mapping):
        return text
    return attachments.get(text.removeprefix("attachment://"), text)


def _rollout(row: Any, first: Any, fields: Fields) -> Entry:
    """A rollout dump of verl: what was asked and what came back, as text."""
    return Entry(answers_of(row["output"]), names_of(row), _prompt_of(row))


def _verl_generation(row: Any, first: Any, fields: Fields) -> Entry:
    """What verl generates for a data set: the data set's own columns, and ``responses``."""
    extra = row.get("extra_info") if isinstance(row.get("extra_info"), Mapping) else {}
    index = scalar(extra.get("index"))
    return Entry(
        answers_of(row["responses"]),
        names_of(row) | names_of(extra),
        _prompt_of(row),
        index if isinstance(index, int) else None,
    )


def _batch_api(row: Any, first: Any, fields: Fields) -> Entry:
    """The output of OpenAI's batch API, and of vLLM's ``run-batch``."""
    body = (row.get("response") or {}).get("body") or {}
    choices = body.get("choices")
    return Entry(answers_of(choices) if choices else [Answer(None)], {"custom_id": row["custom_id"]})


FORMATS = (
    Format("lists in the order of the problems", lambda row: isinstance(row, list), _list),
    Format(
        "lm-eval", lambda row: _has("doc_id")(row) and (_has("resps")(row) or _has("filtered_resps")(row)), _lm_eval
    ),
    Format("lighteval", _has("doc", "model_response"), _lighteval),
    Format("lighteval", _has("predictions", "full_prompt"), _old_lighteval),
    Format("inspect", _has("id", "epoch"), _inspect),
    Format("batch API", _has("custom_id", "response"), _batch_api),
    Format("verl", _has("responses", "data_source"), _verl_generation),
    Format("verl", _has("input", "output", "gts"), _rollout),
    Format("verl", _has("input", "output", "score", "step"), _rollout),
    Format("OpenRLHF", _has("input", "output"), _rows),
    Format("LiveCodeBench", _has("question_id", "code_list"), _rows),
    Format("LiveCodeBench", _has("question_id", "output_list"), _rows),
    Format("evalplus", _has("task_id", "solution"), _rows),
    Format("rows", lambda row: True, _rows),
)
