"""Prompts as chat messages: what they must be, their plain text, and rows that give them."""

from __future__ import annotations

import pytest

from envs import TaskEnv
from envs.chat import checked_messages, own_messages, plain_text, user
from envs.contract import ContractError, read_reset


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


class Chats(TaskEnv):
    num_rows = 1

    def __init__(self, **row):
        super().__init__()
        self.given = row

    def row(self, index):
        return {"answer": "3", **self.given}

    def verify(self, row, completion):
        return completion.endswith(row["answer"])


CHAT = turns(("system", "Add."), ("user", "1 + 1"), ("assistant", "2"), ("user", "1 + 2"))


def test_a_row_may_be_a_chat():
    env = Chats(messages=CHAT)
    question, info = env.reset()
    assert question == "Add.\n\n1 + 1\n\n2\n\n1 + 2\n\n" and info == {"index": 0, "messages": CHAT}
    assert own_messages(question, info) == CHAT
    info["messages"][0]["content"] = "Subtract."
    assert env.reset()[1]["messages"] == CHAT, "a change to what is returned changes nothing in the row"
    assert env.step("3")[1] == 1.0


def test_a_row_is_text_or_a_chat_and_not_both():
    with pytest.raises(TypeError, match=r"Chats\.row\(0\) has a prompt and messages: give one of the two"):
        Chats(messages=CHAT, prompt="1 + 2").reset()
    with pytest.raises(TypeError, match=r"row\['prompt'\] must be a str"):
        Chats().reset()


@pytest.mark.parametrize(
    ("messages", "rule"),
    [
        ([], "it must be a list of messages"),
        ("1 + 2", "it must be a list of messages"),
        ([{"role": "user"}], "each with a role"),
        ([{"role": "tool", "content": "2"}], "system, user, assistant"),
        (turns(("user", "1 + 2"), ("assistant", "3")), "roles user, assistant: the last message must be the user's"),
        (turns(("user", "1"), ("system", "2"), ("user", "3")), "a system message the first"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_row(messages, rule):
    with pytest.raises(ValueError, match=r"Chats\.row\(0\)\['messages'\]") as error:
        Chats(messages=messages).reset()
    assert rule in str(error.value)
    with pytest.raises(ContractError, match=r'info\["messages"\]'):
        read_reset(("?", {"messages": messages}))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([user("1 + 2 = ")], "1 + 2 = "),
        (turns(("system", "Add."), ("user", "1 + 2")), "Add.\n\n1 + 2"),
        (turns(("user", "1 + 1 = "), ("assistant", "2"), ("user", "1 + 2 = ")), "1 + 1 = 2\n\n1 + 2 = "),
    ],
)
def test_plain_text(messages, text):
    assert plain_text(checked_messages(messages, "it")) == text
