"""From prompts to whole episodes, in tokens: the model speaks, the environment replies, until it is over.

A reply is appended to the context as the chat template would write it, and is foreign to the loss. What the model
sampled stays as it is, token by token: nothing is decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from envs import Completion

from .chat_format import ChatFormat
from .episode import Episode

GenerateFn = Callable[[list[list[int]], int], tuple[list[list[int]], list[list[float]] | None]]
"""``generate(contexts, room)``: tokens sampled for each context, and their log-probabilities where they are known;
``room`` is the most that any of them may still use"""

StepFn = Callable[[list[Episode], list[Completion]], list[str | None]]
"""``step(episodes, actions)``: every episode takes its action; the replies, None where it is over"""

SyncFn = Callable[[int, int], tuple[int, int]]
"""``sync(active, room)``: how many contexts to generate for and how much room to give, so that all processes that
generate together do it alike; nothing is left to say anywhere when the first is 0"""


@dataclass
class Transcript:
    """The tokens after a prompt, the model's own and the environment's."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for the model's own tokens, 0 for foreign ones"""
    logprobs: list[float] = field(default_factory=list)
    """of the sampling policy; 0 for foreign tokens; empty where they are not known"""
    cut: bool = False
    """ended for want of room, in the middle of a turn or before a reply"""

    @property
    def own(self) -> int:
        return sum(self.mask)

    def extend(self, ids: list[int], mask: int, logprobs: list[float] | None) -> None:
        self.ids += ids
        self.mask += [mask] * len(ids)
        self.logprobs += logprobs or []


def run_episodes(
    episodes: Sequence[Episode],
    prompts: Sequence[list[int]],
    generate: GenerateFn,
    *,
    chat_format: ChatFormat,
    limit: int,
    sync: SyncFn = lambda active, room: (active, room),
    step: StepFn | None = None,
) -> list[Transcript]:
    """Play every episode to its end; their outcomes are then in them.

    Args:
        episodes: new ones, ``n``.
        prompts: the tokens of their prompts, ``n``.
        generate: how the model speaks.
        chat_format: how text becomes tokens.
        limit: most tokens of an episode after its prompt, replies included.
        sync: what several processes sync on before each turn. One with less to say than that generates along with a
            prompt of its own, and forgets it: models that are spread over processes only speak all together.
        step: how the environment takes its turns; None: one after another. See `judging.EnvPool`.
    """
    transcripts = [Transcript() for _ in episodes]
    active = list(range(len(episodes)))
    while True:
        count, room = sync(len(active), max((limit - len(transcripts[i].ids) for i in active), default=0))
        if count == 0:
            return transcripts
        contexts = [prompts[i] + transcripts[i].ids for i in active]
        sampled, logprobs = generate(contexts + [prompts[0]] * (count - len(contexts)), room)
        actions = []
        for place, i in enumerate(active):
            left = limit - len(transcripts[i].ids)
            ids = sampled[place][:left]
            transcripts[i].extend(ids, 1, None if logprobs is None else logprobs[place][:left])
            actions.append(chat_format.completion(ids, contexts[place]))
        speaking = [episodes[i] for i in active]
        replies = step(speaking, actions) if step else [c.step(a) for c, a in zip(speaking, actions, strict=True)]
        going_on = []
        for i, action, reply in zip(active, actions, replies, strict=True):
            transcripts[i].cut = action.finish_reason == "length"
            if reply is not None and _goes_on(episodes[i], transcripts[i], chat_format.reply_ids(reply), limit):
                going_on.append(i)
        active = going_on


def _goes_on(episode: Episode, transcript: Transcript, reply: list[int], limit: int) -> bool:
    """Append the reply, if that leaves the model room to speak; else the episode ends here."""
    if len(transcript.ids) + len(reply) >= limit:
        transcript.cut = True
        episode.truncate()
        return False
    transcript.extend(reply, 0, [0.0] * len(reply) if transcript.logprobs else None)
    return True
