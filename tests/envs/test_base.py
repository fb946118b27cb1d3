"""`TaskEnv` and the types around it: the contract that every environment shares."""

import copy
import math
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from envs import Completion, Judgement, TaskEnv, UnicodeText, Verdict


class Reverse(TaskEnv):
    """The example of the documentation, with public information."""

    words = ("stressed", "drawer", "parts")
    num_rows = len(words)

    def row(self, index):
        word = self.words[index]
        return {"prompt": f"Spell {word} backwards.", "gold": word[::-1], "info": {"tags": [word[0]]}}

    def verify(self, row, completion):
        return completion.strip() == row["gold"]


class Finding(TaskEnv):
    """Returns what it is told to find."""

    num_rows = 1

    def __init__(self, finding, **rewards):
        super().__init__(**rewards)
        self.finding = finding

    def row(self, index):
        return {"prompt": "?"}

    def verify(self, row, completion):
        return self.finding


def find(finding, **rewards):
    env = Finding(finding, **rewards)
    env.reset()
    return env.step("")


# --- Completion, Verdict, Judgement


def test_completion_is_a_string_that_remembers():
    completion = Completion("34", n_tokens=2, finish_reason="length")
    assert completion == "34" and isinstance(completion, str)
    assert (completion.n_tokens, completion.finish_reason) == (2, "length")
    assert (Completion("x").n_tokens, Completion("x").finish_reason) == (None, None)
    assert Completion("x", n_tokens=np.int64(3)).n_tokens == 3


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_completion_survives_pickle_and_copy(protocol):
    completion = Completion("34", n_tokens=2, finish_reason="stop")
    pickled = pickle.loads(pickle.dumps(completion, protocol))
    for twin in (pickled, copy.copy(completion), copy.deepcopy(completion)):
        assert type(twin) is Completion
        assert (twin, twin.n_tokens, twin.finish_reason) == ("34", 2, "stop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_tokens": -1}, r"n_tokens=-1 must be an integer of at least 0"),
        ({"n_tokens": 1.5}, r"n_tokens=1.5 must be an integer"),
        ({"n_tokens": True}, r"n_tokens=True must be an integer"),
        ({"finish_reason": "eos"}, r"finish_reason='eos' must be 'stop', 'length' or None"),
    ],
)
def test_bad_completion_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Completion("x", **arguments)


def test_verdicts_are_their_strings():
    assert [*Verdict] == ["correct", "wrong", "no_answer", "timeout", "crash", "infra_failure"]


@pytest.mark.parametrize(
    ("verdict", "accuracy"),
    [(Verdict.WRONG, math.nan), (Verdict.INFRA_FAILURE, 0.0), (Verdict.WRONG, 1.5), (Verdict.WRONG, -0.1)],
)
def test_contradictory_judgement_is_refused(verdict, accuracy):
    with pytest.raises(ValueError, match="accuracy"):
        Judgement(verdict, accuracy)


# --- scoring


@pytest.mark.parametrize(
    ("finding", "verdict", "accuracy"),
    [
        (True, "correct", 1.0),
        (np.bool_(False), "wrong", 0.0),
        (1, "correct", 1.0),
        (0.25, "wrong", 0.25),
        (np.float32(1.0), "correct", 1.0),
        (Verdict.CORRECT, "correct", 1.0),
        (Verdict.NO_ANSWER, "no_answer", 0.0),
        (Verdict.TIMEOUT, "timeout", 0.0),
        (Verdict.CRASH, "crash", 0.0),
        (Judgement(Verdict.WRONG, 0.5, "half"), "wrong", 0.5),
    ],
)
def test_what_verify_may_return(finding, verdict, accuracy):
    observation, reward, terminated, truncated, info = find(finding)
    assert (observation, reward, terminated, truncated) == ("", accuracy, True, False)
    assert type(info["verdict"]) is str and type(info["accuracy"]) is float and type(reward) is float
    assert info == {
        "index": 0,
        "verdict": verdict,
        "accuracy": accuracy,
        "cause": getattr(finding, "cause", ""),
        "rewards": {"correctness": accuracy},
    }


@pytest.mark.parametrize(("accuracy", "reward"), [(0.0, -1.0), (0.25, -0.5), (1.0, 1.0)])
def test_rewards_are_interpolated(accuracy, reward):
    assert find(accuracy, correct_reward=1.0, wrong_reward=-1.0)[1] == reward


def test_infrastructure_failure_is_not_scored():
    _, reward, terminated, _, info = find(Verdict.INFRA_FAILURE)
    assert math.isnan(reward) and math.isnan(info["accuracy"]) and math.isnan(info["rewards"]["correctness"])
    assert terminated and info["verdict"] == "infra_failure"


@pytest.mark.parametrize("finding", [None, "correct", [1.0]])
def test_other_findings_are_refused(finding):
    with pytest.raises(TypeError, match=r"verify returned .*: return a bool, an accuracy in \[0, 1\], a Verdict"):
        find(finding)


def test_accuracy_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"accuracy=2.0 must be in \[0, 1\]"):
        find(2)


@pytest.mark.parametrize("rewards", [{"correct_reward": 0.0}, {"wrong_reward": math.nan}, {"correct_reward": math.inf}])
def test_bad_rewards_are_refused(rewards):
    with pytest.raises(ValueError, match=r"correct_reward=.* must be above wrong_reward=.*, both finite"):
        Reverse(**rewards)


# --- episodes


def test_episode_by_index():
    env = Reverse()
    assert env.reset(options={"index": 1}) == ("Spell drawer backwards.", {"index": 1, "tags": ["d"]})
    _, reward, terminated, truncated, info = env.step("reward\n")
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["index"] == 1 and info["tags"] == ["d"] and "gold" not in info


def test_only_a_cut_off_answer_truncates():
    env = Reverse()
    outcomes = []
    for action in ("reward", Completion("reward"), Completion("reward", finish_reason="length")):
        env.reset(options={"index": 1})
        outcomes.append(env.step(action)[1:4])
    assert outcomes == [(1.0, True, False), (1.0, True, False), (1.0, False, True)]


def test_seeds_decide_the_rows_and_no_global_generator_is_touched():
    env, twin, state = Reverse(), Reverse(), np.random.get_state()[1].copy()
    indices = [env.reset(seed=7 if i == 0 else None)[1]["index"] for i in range(30)]
    assert indices == [twin.reset(seed=7 if i == 0 else None)[1]["index"] for i in range(30)]
    assert set(indices) == {0, 1, 2}
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("index", [3, -1, np.int64(99)])
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match=rf"Reverse.reset: index={index} is out of range: valid is 0 to 2"):
        Reverse().reset(options={"index": index})


@pytest.mark.parametrize("index", ["1", 1.0, None, True])
def test_index_of_a_wrong_type(index):
    with pytest.raises(ValueError, match=r"Reverse.reset: index=.* must be an integer"):
        Reverse().reset(options={"index": index})


def test_unknown_option():
    with pytest.raises(ValueError, match=r"unknown options \['idx'\]: the only option is 'index'"):
        Reverse().reset(options={"idx": 1})


def test_step_needs_a_reset_each_time():
    env = Reverse()
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step("x")
    env.reset()
    env.step("x")
    with pytest.raises(ResetNeeded, match="the episode is over"):
        env.step("x")


@pytest.mark.parametrize("action", [None, 34, b"34", ["34"]])
def test_actions_are_strings(action):
    env = Reverse()
    env.reset()
    with pytest.raises(ValueError, match="send the answer as a str or a Completion"):
        env.step(action)


def test_nothing_returned_is_shared():
    env = Reverse()
    infos = []
    for _ in range(2):
        infos.append(env.reset(options={"index": 0})[1])
        infos.append(env.step("x")[4])
    assert len({id(info) for info in infos}) == 4
    assert len({id(info["tags"]) for info in infos}) == 4
    assert infos[1]["rewards"] is not infos[3]["rewards"]


def test_the_methods_to_write_are_named():
    class Nothing(TaskEnv):
        num_rows = 1

    with pytest.raises(TypeError, match=r"abstract methods '?row'?, '?verify'?"):
        Nothing()


def test_a_new_environment_passes_the_checker_and_pickles(recwarn):
    env = Reverse()
    check_env(env, skip_render_check=True)
    assert not [warning for warning in recwarn if "spec" not in str(warning.message)]
    env.reset(options={"index": 2})
    assert pickle.loads(pickle.dumps(env)).step("strap")[1] == 1.0
    assert env.observation_space == env.action_space == UnicodeText()


def test_a_new_environment_registers():
    gymnasium.register("test/Reverse-v0", Reverse, disable_env_checker=True)
    try:
        env = gymnasium.make("test/Reverse-v0", wrong_reward=-1.0)
        env.reset(options={"index": 0})
        assert env.step("stressed")[1] == -1.0
    finally:
        gymnasium.registry.pop("test/Reverse-v0")


# --- many turns


class Twenty(TaskEnv):
    """Answers every turn but one that says so."""

    num_rows = 3
    max_turns = 3

    def row(self, index):
        return {"prompt": f"{index}?", "answer": index, "info": {"level": index}}

    def reply(self, row, turns):
        return None if turns[-1].startswith("Answer") else f"{len(turns)} of {row['prompt']}"

    def verify(self, row, completion):
        return completion == f"Answer: {row['answer']}"


def test_an_episode_of_many_turns():
    env = Twenty(wrong_reward=-1.0)
    env.reset(options={"index": 2})
    going_on = {"index": 2, "level": 2, "rewards": {"correctness": 0.0}}
    assert env.step("a") == ("1 of 2?", 0.0, False, False, going_on)
    assert env.step("b") == ("2 of 2?", 0.0, False, False, going_on)
    _, reward, terminated, truncated, info = env.step("Answer: 2")
    assert (reward, terminated, truncated, info["verdict"]) == (1.0, True, False, "correct")
    with pytest.raises(ResetNeeded):
        env.step("Answer: 2")


@pytest.mark.parametrize(
    ("turns", "truncated"),
    [(["a", "b", "c"], False), (["Answer: 7"], False), ([Completion("a", finish_reason="length")], True)],
)
def test_an_episode_ends_at_the_last_turn_with_none_and_when_cut_off(turns, truncated):
    env = Twenty()
    env.reset(options={"index": 2})
    *before, last = [env.step(turn) for turn in turns]
    assert [step[2:4] for step in before] == [(False, False)] * len(before)
    assert last[1:4] == (0.0, not truncated, truncated)


def test_reset_begins_anew():
    env = Twenty()
    env.reset(options={"index": 0})
    env.step("a")
    env.reset(options={"index": 1})
    assert env.step("a")[0] == "1 of 1?"


def test_a_reply_that_is_no_text_is_named():
    class Odd(Twenty):
        def reply(self, row, turns):
            return 3

    env = Odd()
    env.reset()
    with pytest.raises(
        TypeError, match=r"reply returned 3 \(int\): return a str, a pair \(str, reward\), or None to end"
    ):
        env.step("a")


class Paid(Twenty):
    """Pays a turn what it says."""

    max_turns = 9

    def reply(self, row, turns):
        return None if turns[-1] == "end" else ("on", eval(turns[-1]))

    def verify(self, row, completion):
        return True


def test_a_reply_may_reward_its_turn():
    env = Paid()
    env.reset(options={"index": 0})
    for said, reward in (("0.5", 0.5), ("-2", -2.0), ("__import__('numpy').float32(0.25)", 0.25)):
        reply, *rest, info = env.step(said)
        assert (reply, rest) == ("on", [reward, False, False])
        assert info["rewards"] == {"correctness": 0.0, "turns": reward}
        assert {type(part) for part in info["rewards"].values()} == {float}
    assert env.step("end")[4]["rewards"] == {"correctness": 1.0}


@pytest.mark.parametrize("said", ["float('nan')", "float('inf')", "True"])
def test_a_reward_of_a_turn_is_a_finite_number(said):
    env = Paid()
    env.reset()
    with pytest.raises(ValueError, match=r"reply returned the reward .*: give a finite number such as 0.5 or -0.1"):
        env.step(said)


@pytest.mark.parametrize("said", ["'1'", "None", "[1.0]"])
def test_a_pair_that_is_no_reply_is_named(said):
    env = Paid()
    env.reset()
    with pytest.raises(TypeError, match=r"reply returned \('on', .*\) \(tuple\): return a str, a pair"):
        env.step(said)


def test_a_copy_goes_on_with_the_episode_on_its_own():
    env = Twenty()
    env.reset(options={"index": 2}, seed=5)
    env.step("a")
    twin, picture = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    env.reset(options={"index": 0})
    for other in (twin, picture):
        assert other.step("b")[0] == "2 of 2?"
    assert [env.reset()[0] for _ in range(9)] == [twin.reset()[0] for _ in range(9)]


def test_a_copy_of_a_task_with_its_own_step_shares_nothing():
    class Own(Twenty):
        def reset(self, **kwargs):
            self.said = []
            return super().reset(**kwargs)

        def step(self, action):
            self.said.append(action)
            return super().step(action)

    env = Own()
    env.reset()
    twin = copy.deepcopy(env)
    env.step("a")
    assert (env.said, twin.said) == (["a"], [])


def test_a_solution_is_an_answer_line_where_the_row_has_an_answer():
    assert Twenty().solution(2) == "Answer: 2"
    assert Reverse().solution(0) is None


# --- what authors forget


class NoRows(TaskEnv):
    row, verify = Reverse.row, Reverse.verify


class Unasked(Reverse):
    def reply(self, row, turns):
        return "go on"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", r"row\(0\) returned 'text' \(str\): it must be a dict with a 'prompt'"),
        ({"question": "?"}, r"row\(0\) has the prompt None \(NoneType\): row\['prompt'\] must be a str"),
        ({"prompt": 7}, r"row\(0\) has the prompt 7 \(int\)"),
        ({"prompt": "?", "info": [1]}, r"row\(0\) has the info \[1\] \(list\): row\['info'\] must be a dict"),
    ],
)
def test_what_is_no_row_is_named(row, message):
    class Odd(Reverse):
        def row(self, index):
            return row

    with pytest.raises(TypeError, match=message):
        Odd().reset(options={"index": 0})


def test_missing_num_rows_and_a_reply_that_is_never_asked_are_named():
    with pytest.raises(TypeError, match="NoRows has no num_rows: set it to the number of rows"):
        NoRows().reset()
    with pytest.raises(TypeError, match="Unasked has a reply and max_turns=1"):
        Unasked().reset()


def test_the_index_is_not_overridden_by_public_information():
    class Own(Twenty):
        def row(self, index):
            return {**super().row(index), "info": {"index": "mine"}}

    env = Own()
    assert env.reset(options={"index": 1})[1]["index"] == env.step("a")[4]["index"] == 1
