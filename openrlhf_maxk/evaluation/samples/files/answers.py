"""The completions in a value of a file: text, a chat message, a choice of an API, or lists of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ASSISTANT = ("assistant", "gpt", "model", "bot", "ai")


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion as a file has it."""

    text: str | None  # None: it was not generated, which is not the same as an empty text
    finish: str = "stop"
    tokens: int = -1
    logprob: float | None = None


def answers_of(value: Any) -> list[Answer]:
    """The completions in ``value``, in order; a list may be nested.

    A conversation is one completion, its last message of the assistant; messages of the assistant alone are one each.

    Raises:
        ValueError: there is something else in it.
    """
    if value is None or isinstance(value, str):
        return [Answer(value)]
    if isinstance(value, Mapping):
        return [_answer(value)]
    if not isinstance(value, list):
        raise ValueError(f"{type(value).__name__} is no completion")
    if value and all(isinstance(item, Mapping) for item in value):
        if all(_role(item) is not None for item in value):
            return _of_messages(value)
        if all("type" in item for item in value):  # the parts of one message
            return [Answer(content_text(value))]
    return [answer for item in value for answer in answers_of(item)]


def content_text(content: Any) -> str:
    """The text of a message: its content as text, or the parts of it that are text.

    Raises:
        ValueError: it is neither.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, str | Mapping) for part in content):
        texts = [part if isinstance(part, str) else part.get("text") for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    raise ValueError(f"the content of a message must be text or parts, not {type(content).__name__}")


def last_message(messages: Any, *, assistant: bool) -> str | None:
    """The text of the last message of the assistant, or of the user; None if there is none."""
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        if isinstance(message, Mapping) and (role := _role(message)) is not None:
            if assistant and role in _ASSISTANT:
                return content_text(message.get("content", message.get("value")))
            if not assistant and role in ("user", "human"):
                return content_text(message.get("content", message.get("value")))
    return None


def _of_messages(messages: Sequence[Mapping[str, Any]]) -> list[Answer]:
    if all(_role(message) in _ASSISTANT for message in messages):
        return [_answer(message) for message in messages]
    return [Answer(last_message(messages, assistant=True))]


def _answer(value: Mapping[str, Any]) -> Answer:
    """A message, or a choice of an API that holds one."""
    if isinstance(message := value.get("message"), Mapping):
        reason = value.get("finish_reason") or value.get("stop_reason") or "stop"
        return Answer(_answer(message).text, "length" if reason == "max_tokens" else str(reason))
    for name in ("content", "value", "text", "completion", "code"):
        if name in value:
            text = value[name]
            return Answer(None if text is None and _role(value) is None else content_text(text))
    raise ValueError(f"an object with {', '.join(map(repr, value)) or 'nothing'} is no completion")


def _role(message: Mapping[str, Any]) -> str | None:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else None
