"""From prompts to whole episodes, in tokens: the model speaks, the environment replies, until it is over.

A reply is appended to the context as the chat template would write it, and is foreign to the loss. What the model
sampled stays as it is, token by token: nothing is decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs import Completion

from .conversation import Conversation
from .errors import ConfigError

Generate = Callable[[list[list[int]], int], tuple[list[list[int]], list[list[float]] | None]]
"""``generate(contexts, room)``: tokens sampled for each context, and their log-probabilities where they are known;
``room`` is the most that any of them may still use"""


Hear = Callable[[list[Conversation], list[Completion]], list[str | None]]
"""``hear(conversations, actions)``: every conversation takes its action; the replies, None where it is over"""


@dataclass
class Transcript:
    """The tokens after a prompt, the model's own and the environment's."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for the model's own tokens, 0 for foreign ones"""
    logprobs: list[float] = field(default_factory=list)
    """of the sampling policy; 0 for foreign tokens; empty where they are not known"""

    @property
    def own(self) -> int:
        return sum(self.mask)

    def extend(self, ids: list[int], mask: int, logprobs: list[float] | None) -> None:
        self.ids += ids
        self.mask += [mask] * len(ids)
        self.logprobs += logprobs or []


def play(
    conversations: Sequence[Conversation],
    prompts: Sequence[list[int]],
    generate: Generate,
    *,
    tokenizer: Any,
    stop_ids: Collection[int],
    limit: int,
    anyone: Callable[[bool], bool] = bool,
    hear: Hear | None = None,
) -> list[Transcript]:
    """Play every conversation to its end; their outcomes are then in them.

    Args:
        conversations: new ones, ``n``.
        prompts: the tokens of their prompts, ``n``.
        generate: how the model speaks.
        stop_ids: last tokens that mean the model ended its turn by itself.
        limit: most tokens of an episode after its prompt, replies included.
        anyone: whether it is true of any process. A process without anything left to say then generates along, because
            models that are spread over processes only speak all together.
        hear: how the environment takes its turns; None: one after another. See `judging.Judges`.
    """
    transcripts = [Transcript() for _ in conversations]
    active = list(range(len(conversations)))
    while anyone(bool(active)):
        contexts = [prompts[i] + transcripts[i].ids for i in active]
        room = max((limit - len(transcripts[i].ids) for i in active), default=1)
        sampled, logprobs = generate(contexts or [prompts[0]], room)
        actions = []
        for place, i in enumerate(active):
            left = limit - len(transcripts[i].ids)
            ids = sampled[place][:left]
            transcripts[i].extend(ids, 1, None if logprobs is None else logprobs[place][:left])
            actions.append(as_completion(tokenizer, ids, stop_ids))
        speaking = [conversations[i] for i in active]
        replies = hear(speaking, actions) if hear else [c.say(a) for c, a in zip(speaking, actions, strict=True)]
        active = [
            i
            for i, reply in zip(active, replies, strict=True)
            if reply is not None
            and _goes_on(conversations[i], transcripts[i], reply_ids(tokenizer, reply, stop_ids), limit)
        ]
    return transcripts


def _goes_on(conversation: Conversation, transcript: Transcript, reply: list[int], limit: int) -> bool:
    """Append the reply, if that leaves the model room to speak; else the episode ends here."""
    if len(transcript.ids) + len(reply) >= limit:
        conversation.cut()
        return False
    transcript.extend(reply, 0, [0.0] * len(reply) if transcript.logprobs else None)
    return True


def as_completion(tokenizer: Any, ids: list[int], stop_ids: Collection[int]) -> Completion:
    """What the environment is given for the tokens that the model wrote. The text is decoded from the tokens: a chat
    parser may have split the reasoning off the message."""
    ended = bool(ids) and ids[-1] in stop_ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Completion(text, n_tokens=len(ids), finish_reason="stop" if ended else "length")


def reply_ids(tokenizer: Any, reply: str, stop_ids: Collection[int]) -> list[int]:
    """The tokens between the end of the model's turn and the beginning of its next: the text alone, or what the chat
    template writes around a user's message."""
    if not getattr(tokenizer, "chat_template", None):
        return tokenizer(reply, add_special_tokens=False)["input_ids"]
    before = [{"role": "user", "content": "-"}, {"role": "assistant", "content": "-"}]
    after = [*before, {"role": "user", "content": reply}]
    start = tokenizer.apply_chat_template(before, tokenize=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(after, tokenize=True, return_dict=True, add_generation_prompt=True)[
        "input_ids"
    ]
    ends = [place for place, token in enumerate(start) if token in stop_ids]
    start = (
        start[: ends[-1] + 1] if ends else start
    )  # what follows the end of a turn, such as a newline, is not said yet
    if whole[: len(start)] != start:
        raise ConfigError(
            "the chat template writes a conversation differently once it goes on, so a reply cannot be appended to it: "
            "use another chat template for environments of many turns."
        )
    return whole[len(start) :]
