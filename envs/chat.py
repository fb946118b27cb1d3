"""Prompts as chat messages: what they must be, and their plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .text import brief

Message = dict[str, str]
"""A turn of a chat: `{"role": "user", "content": "17 + 17?"}`."""
ROLES = ("system", "user", "assistant")


def user(text: str) -> Message:
    """Return a user's turn."""
    return {"role": "user", "content": text}


def checked_messages(value: Any, place: str) -> list[Message]:
    """Return a prompt's messages as a new list.

    Args:
        value: A list of messages, of which the first may be the system's and the last is the user's.
        place: What they are, for messages.

    Raises:
        ValueError: They are something else.
    """
    messages = list(value) if isinstance(value, (list, tuple)) else []
    if not messages or not all(map(is_message, messages)):
        raise ValueError(
            f"{place} is {brief(value)}: it must be a list of messages, each with a role ({', '.join(ROLES)}) and a "
            'text, such as [{"role": "user", "content": "17 + 17?"}]'
        )
    roles = [message["role"] for message in messages]
    if roles[-1] != "user" or "system" in roles[1:]:
        raise ValueError(
            f"{place} has the roles {', '.join(roles)}: the last message must be the user's, and a system message "
            "the first"
        )
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def own_messages(prompt: str, info: Mapping[str, Any]) -> list[Message]:
    """Return what `reset` presented as messages: `info["messages"]`, or else the observation as a user's turn.

    Raises:
        ValueError: `info["messages"]` is no prompt.
    """
    return checked_messages(info["messages"], 'info["messages"]') if "messages" in info else [user(prompt)]


def plain_text(messages: Sequence[Message]) -> str:
    """Return a prompt as text, for a model without a chat template.

    The turns follow each other, with a blank line after each that does not end in white space itself. After the last
    one there is none, so that a single turn is its text alone; except that where earlier questions are answered, the
    model continues at the place at which their answers begin.
    """
    parts = [_spaced(message["content"]) for message in messages]
    if all(message["role"] != "assistant" for message in messages):
        parts[-1] = messages[-1]["content"]
    return "".join(parts)


def is_message(value: Any) -> bool:
    """Return whether a value is a turn of a chat with a text."""
    return isinstance(value, Mapping) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def _spaced(text: str) -> str:
    return text if text[-1:].isspace() else f"{text}\n\n"
