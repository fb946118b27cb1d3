"""Any `TaskEnv` as a taskset of the package verifiers.

verifiers finds a taskset by the name of an installed module that lists it in `__all__`; two lines make one:

    from envs.interop.verifiers_taskset import taskset

    Tasks, Environment = taskset("math/Arithmetic-v0", levels=[1, 2])
    __all__ = ["Tasks", "Environment"]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gymnasium

from ..base import Completion, TaskEnv
from ..chat import own_messages
from ..contract import Step, read_reset, read_step, reset_to_row
from ..text import one_line
from .doors import make, require


def taskset(env: str | gymnasium.Env, **kwargs: Any) -> tuple[type, type]:
    """Return a verifiers taskset with the rows of an environment, and the verifiers environment that plays them.

    Scores are the environment's own: the transcript's turns are given to it again, so that `vf-replay` scores too. An
    `infra_failure` is an error of the rollout there, never a reward.

    Args:
        env: Its id, or an environment; one that `TaskEnv` is the base of, because turns are judged again.
        kwargs: Arguments for an id.

    Returns:
        The subclasses of `vf.Taskset` and `vf.Env`, to be listed in a module's `__all__`.

    Raises:
        ModuleNotFoundError: verifiers is not installed.
        TypeError: It is no `TaskEnv`.
    """
    require("verifiers.v1", "verifiers")
    import verifiers.v1 as vf

    ours = make(env, **kwargs) if isinstance(env, str) else env
    if not isinstance(ours.unwrapped, TaskEnv):
        raise TypeError(f"taskset: {env} is no TaskEnv, so that its turns cannot be judged again from a transcript")
    size = ours.unwrapped.num_rows

    class RowData(vf.TaskData):
        """A row's number; the gold answer stays with the environment."""

        row: int

    class RowTask(vf.Task[RowData]):
        """A row of the environment."""

        @vf.reward
        async def reward(self, trace: Any) -> float:
            """Score the model's turns with the environment."""
            last, total = _judged(ours, self.data.row, trace, ended=True)
            trace.info |= {"verdict": last.verdict, "cause": last.cause, "answer": last.answer}
            if math.isnan(total):
                raise RuntimeError(f"the environment could not judge the answer: {last.cause}")
            trace.record_metric("accuracy", total if last.accuracy is None else last.accuracy)
            return total

    class Rows(vf.Taskset[RowTask, vf.TasksetConfig]):
        """The rows of the environment, in their order."""

        INFINITE = size is None

        def load(self) -> Iterator[RowTask]:
            """Yield every row."""
            index = 0
            while size is None or index < size:
                messages = own_messages(*read_reset(reset_to_row(ours, index)))
                system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
                prompt = messages[0]["content"] if len(messages) == 1 else messages
                name = ours.spec.id if ours.spec is not None else type(ours.unwrapped).__name__
                data = RowData(row=index, name=f"{name}#{index}", prompt=prompt, system_prompt=system)
                yield RowTask(data, self.config.task)
                index += 1

    class PlayerConfig(vf.EnvConfig):
        """One agent."""

        agent: vf.AgentConfig = vf.AgentConfig()

    class Player(vf.Env[PlayerConfig]):
        """The environment's replies are the user's turns."""

        async def run(self, task: Any, agents: Any) -> None:
            """Play one row to its end."""
            async with agents.agent.interaction(task) as interaction:
                segment = await interaction.turn()
                while not segment.terminated:
                    last, _ = _judged(ours, task.data.row, interaction.trace, ended=False)
                    if last.over:
                        break
                    segment = await interaction.turn(last.reply)

    return Rows, Player


def _judged(env: gymnasium.Env, row: int, trace: Any, *, ended: bool) -> tuple[Step, float]:
    """Give the turns of a transcript to the environment; return the last step, and the sum of the rewards.

    A transcript that has ended before its episode is cut off there, by an empty answer.
    """
    reset_to_row(env, row)
    last, total = Step(), 0.0
    for completion in [*_turns(trace), *([Completion(n_tokens=0, finish_reason="length")] if ended else [])]:
        try:
            last = read_step(env.step(completion))
        except Exception as error:
            raise RuntimeError(f"row {row}: {type(error).__name__}: {one_line(error)}") from error
        total += last.reward
        if last.over:
            break
    return last, total


def _turns(trace: Any) -> Iterator[Completion]:
    """Yield the model's turns of a transcript."""
    calls = {call.node: call for call in trace.calls if call.node is not None}
    for number, node in enumerate(trace.nodes):
        if node.sampled:
            call = calls.get(number)
            length = call is not None and call.finish_reason == "length"
            count = call.usage.completion_tokens if call is not None and call.usage is not None else None
            text = node.message.content or ""
            yield Completion(text, n_tokens=count, finish_reason="length" if length else "stop")
