"""verifiers, both ways: its tasksets here, and ours as tasksets there."""

from __future__ import annotations

import asyncio
import copy
import sys

import pytest

import envs
from envs.reward_check.probe_answers import worthless

from ...support.attack_answers import attack_answers
from . import commands, shown

vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'dapo-trl[verifiers]'")

LOOP, AGENT = asyncio.new_event_loop(), vf.AgentConfig()
TASKSETS = {
    "door_sums": """
import verifiers.v1 as vf


class Data(vf.TaskData):
    answer: str


class Task(vf.Task[Data]):
    @vf.reward(weight=0.7)
    async def right(self, trace):
        if "boom" in trace.last_reply:
            raise ValueError("boom")
        return float(trace.last_reply.endswith(self.data.answer))

    @vf.reward(weight=0.1)
    async def brief(self, trace):
        return 1 / (1 + len(trace.last_reply))


class Sums(vf.Taskset[Task, vf.TasksetConfig]):
    def load(self):
        for i in range(100):
            yield Task(Data(prompt=f"{i} + {i} = ?", system_prompt="Be brief.", answer=str(2 * i)), self.config.task)


__all__ = ["Sums"]
""",
    "door_guess": """
import random

import verifiers.v1 as vf


class Data(vf.TaskData):
    secret: int


class Task(vf.Task[Data]):
    @vf.stop
    async def loud(self, trace: vf.Trace) -> bool:
        return any("!!!" in (message.content or "") for message in trace.assistant_messages)


class Config(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class Guess(vf.Env[Config]):
    async def run(self, task, agents):
        reward = 0.0
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            for number in range(4):
                if segment.terminated:
                    break
                if segment.last_reply == str(task.data.secret):
                    reward = 1.0 - number * 0.1
                    break
                segment = await interaction.turn("no" + random.choice(".!?"))
        interaction.trace.record_reward("guess", reward)


class Guesses(vf.Taskset[Task, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        index = 0
        while True:
            yield Task(Data(prompt=f"Guess {index}", secret=index % 9), self.config.task)
            index += 1


__all__ = ["Guess", "Guesses"]
""",
    "door_ours": """
from envs.interop.verifiers_taskset import taskset

Tasks, Environment = taskset("math/Arithmetic-v0", wrong_reward=-0.3)
__all__ = ["Tasks", "Environment"]
""",
    "door_paid": """
from envs.interop.verifiers_taskset import taskset
from tests.support.turns_run import Paid

Tasks, Environment = taskset(Paid())
__all__ = ["Tasks", "Environment"]
""",
    "door_calculator": """
from envs.interop.verifiers_taskset import taskset

Tasks, Environment = taskset("math/Calculator-v0")
__all__ = ["Tasks", "Environment"]
""",
}


@pytest.fixture(scope="module", autouse=True)
def tasksets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasksets")
    for name, source in TASKSETS.items():
        (folder / f"{name}.py").write_text(source)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def scored(task, *texts):
    """The trace of these turns, with the rewards that verifiers' own scoring gives."""
    from verifiers.v1 import graph
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask

    trace = Trace(task=TraceTask(type=type(task).__name__, data=task.data), agent=AgentInfo(config=AGENT))
    messages = []
    for text in texts:
        messages.append(vf.UserMessage(content="?"))
        answer = vf.AssistantMessage(content=text)
        response = vf.Response(id="", created=0, model="", message=answer, finish_reason="stop")
        graph.prepare_turn(trace, list(messages)).commit(response)
        messages.append(answer)
    LOOP.run_until_complete(task.score(trace))
    return trace


def test_theirs_scores_the_same_here_as_its_own_rubric():
    env = envs.make("verifiers:door-sums")
    assert env.unwrapped.num_rows == 100 and env.spec.id == "verifiers:door-sums"
    hostile = list(worthless(0).values())
    for index, task in enumerate(env.unwrapped.tasks):
        answers = [f"It is {2 * index}", hostile[index % len(hostile)]] if index else [*hostile, "0"]
        for answer in answers:
            _, info = env.reset(options={"index": index})
            assert info["messages"][0] == {"role": "system", "content": "Be brief."}
            step, expected = env.step(answer), scored(task, answer)
            assert step[1] == expected.reward and step[2]
            assert step[4]["rewards"] == {name: reward.value for name, reward in expected.rewards.items()}
    env.close()


def test_a_reward_that_fails_is_no_wrong_answer():
    env = envs.make("verifiers:door-sums", num_rows=3)
    env.reset(options={"index": 1})
    step = env.step("boom")
    assert step[4]["verdict"] == "infra_failure" and "ValueError: boom" in step[4]["cause"]
    env.close()


def test_many_turns_of_their_environment_its_stops_and_its_random_numbers():
    env = envs.make("verifiers:door_guess", num_rows=20)

    def played(index, *actions):
        env.reset(options={"index": index})
        return [env.step(action) for action in actions]

    steps = played(5, "1", "2", "5")
    assert [step[1:4] for step in steps] == [(0.0, False, False), (0.0, False, False), (0.8, True, False)]
    assert all(step[0] in ("no.", "no!", "no?") for step in steps[:2])
    assert steps == played(5, "1", "2", "5")  # the index is the seed of what it draws
    assert [step[1] for step in played(3, "1", "1", "1", "1")] == [0.0] * 4
    for number in range(30):  # the model's turns cross from thread to thread
        assert played(number % 20, "no", "no", str(number % 20 % 9))[-1][1] == 0.8
    assert played(3, "hey !!!")[-1][1:3] == (0.0, True)
    env.reset(options={"index": 4})
    env.step("1")
    twin = copy.deepcopy(env)
    assert (twin.step("4")[1], env.step("4")[1]) == (0.9, 0.9)
    env.close()


def test_ours_scores_the_same_there_to_the_last_digit():
    ours = envs.make("math/Arithmetic-v0", wrong_reward=-0.3)
    from door_ours import Tasks

    count = 0
    for index, task in zip(range(100), Tasks(vf.TasksetConfig(id="door_ours")), strict=False):
        prompt, _ = ours.reset(options={"index": index})
        assert (task.data.prompt, task.data.row) == (prompt, index)
        assert set(task.data.model_dump(exclude_defaults=True)) == {"idx", "name", "prompt", "row"}
        for answer in attack_answers(ours, index):
            ours.reset(options={"index": index})
            expected, trace = ours.step(answer), scored(task, answer)
            assert trace.reward == expected[1] and trace.metrics["accuracy"] == expected[4]["accuracy"]
            assert trace.info["verdict"] == expected[4]["verdict"]
            count += 1
    assert count > 2_000


def test_ours_with_many_turns_is_played_by_their_environment():
    ours, there = envs.make("math/Calculator-v0"), envs.make("verifiers:door_calculator", num_rows=5)
    for index in range(5):
        turns = ["<calc>2*3</calc>", " \n", ours.unwrapped.solution(index), "Answer: 5"]
        assert ours.reset(options={"index": index})[0] == there.reset(options={"index": index})[0]
        for turn in turns:
            expected, step = ours.step(turn), there.step(turn)
            assert step[:4] == expected[:4]
            if step[2]:
                break
        assert step[4]["metrics"]["accuracy"] == expected[4]["accuracy"]
    there.close()


@pytest.mark.parametrize(
    ("turns", "reward", "accuracy"), [(("1?", "2?", "R"), 1.25, 1.0), (("1?", "W"), 0.5, 0.0), (("1?",), 0.5, 0.0)]
)
def test_rewards_of_turns_are_part_of_the_score_there(turns, reward, accuracy):
    """The last episode has no room for its second turn: what its first one earned is no correctness."""
    from door_paid import Tasks

    trace = scored(next(iter(Tasks(vf.TasksetConfig(id="door_paid")))), *turns)
    assert (trace.reward, trace.metrics["accuracy"]) == (reward, accuracy)
    assert trace.info["verdict"] == ("correct" if accuracy else "wrong")
    if len(turns) > 1:
        there = envs.make("verifiers:door_paid", num_rows=1)
        there.reset(options={"index": 0})
        assert sum(there.step(turn)[1] for turn in turns) == reward
        there.close()


def test_the_module_of_the_page(tmp_path, monkeypatch):
    (module,) = (block for block in shown("python") if "# my_arithmetic.py" in block)
    assert "vf-eval my-arithmetic" in "".join(commands())
    (tmp_path / "my_arithmetic.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    loaded = load_environment(resolve_env_config({"taskset": {"id": "my-arithmetic"}}))
    assert [task.data.row for task in loaded.taskset.take(3)] == [0, 1, 2] and not loaded.taskset.bounded


def test_what_cannot_be_played_is_refused_at_once():
    with pytest.raises(ModuleNotFoundError, match="no_such_taskset"):
        envs.make("verifiers:no-such-taskset")
    with pytest.raises(ValueError, match=r"agents assistant, user.*agent: NAME"):
        envs.make("verifiers:door_sums", environment={"id": "user-sim"})
    with pytest.raises(ValueError, match="further agents, user"):
        envs.make("verifiers:door_sums", environment={"id": "user-sim"}, agent="assistant")
