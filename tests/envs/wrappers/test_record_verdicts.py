"""Recording and replaying: nothing is lost, nothing is mixed up, and every difference is found."""

import copy
import dataclasses
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import gymnasium
import pytest

from envs import (
    Completion,
    FormatReward,
    Judgement,
    OverlongPenalty,
    RecordVerdicts,
    RepetitionPenalty,
    TaskEnv,
    Verdict,
)
from envs.description import describe, remake
from envs.rejudge import replay
from envs.wrappers.recording import RecordedEpisode, read_verdicts

from ...conftest import ROOT


class Talk(TaskEnv):
    """Two turns; right when the last says the row's number, unjudgeable when it says "?"."""

    num_rows = 9
    max_turns = 2

    def __init__(self, offset=0):
        super().__init__(wrong_reward=-1.0)
        self.offset = offset

    def row(self, index):
        return {"prompt": f"Say {index}.", "answer": str(index + self.offset)}

    def reply(self, row, turns):
        return None if turns[-1].startswith("now") else "Are you sure?"

    def verify(self, row, completion):
        if completion == "?":
            return Verdict.INFRA_FAILURE
        found = completion.endswith(row["answer"])
        return Judgement(Verdict.CORRECT if found else Verdict.WRONG, float(found), "" if found else "another number")


@pytest.fixture
def talk():
    """Registered by its class, as people do."""
    gymnasium.register("test/Talk-v0", Talk, disable_env_checker=True)
    yield "test/Talk-v0"
    gymnasium.registry.pop("test/Talk-v0")


def recorded(path, env):
    env = FormatReward(OverlongPenalty(RepetitionPenalty(env, ngram_size=1), max_length=5), form="...3", penalty=0.25)
    return RecordVerdicts(env, path)


def play(env, index, *turns):
    env.reset(options={"index": index})
    return [env.step(turn) for turn in turns]


EPISODES = [
    (3, [Completion("now 3", n_tokens=2, finish_reason="stop")]),
    (4, [Completion("4 4 4", n_tokens=4), Completion("5", n_tokens=4, finish_reason="length")]),
    (5, [Completion("数学\n\u2028\x00\ud800 \"'", n_tokens=9), Completion("?", n_tokens=1)]),
]


def test_what_is_recorded(tmp_path, talk):
    path = tmp_path / "new" / "verdicts.jsonl"
    env = recorded(path, gymnasium.make(talk))
    assert not path.parent.exists()
    steps = [play(env, index, *turns) for index, turns in EPISODES]
    lines = list(read_verdicts(path))
    assert [line.number for line in lines] == [2, 3, 4]
    for line, (index, turns), played in zip(lines, EPISODES, steps, strict=True):
        episode, last = line.episode, played[-1]
        assert (episode.index, episode.turns) == (index, tuple(turns))
        assert [(turn.n_tokens, turn.finish_reason) for turn in episode.turns] == [
            (turn.n_tokens, turn.finish_reason) for turn in turns
        ]
        assert episode.reward == pytest.approx(sum(step[1] for step in played), nan_ok=True)
        assert episode.rewards == pytest.approx(last[4]["rewards"], nan_ok=True)
        assert episode.accuracy == pytest.approx(last[4]["accuracy"], nan_ok=True)
        assert (episode.verdict, episode.cause) == (last[4]["verdict"], last[4]["cause"])
    assert [line.episode.verdict for line in lines] == ["correct", "wrong", "infra_failure"]
    for text in path.read_text(encoding="ascii").splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_replaying_finds_nothing_where_nothing_changed(tmp_path, talk):
    env = recorded(tmp_path / "verdicts-0.jsonl", gymnasium.make(talk))
    for index, turns in EPISODES:
        play(env, index, *turns)
    found = replay(tmp_path)
    assert (found.episodes, found.differences, found.unreadable, found.versions) == (3, [], 0, {})
    assert str(found) == "3 episodes judged again: 0 differ."
    assert replay(tmp_path / "verdicts-0.jsonl") == found
    assert len(list(read_verdicts(tmp_path / "verdicts-0.jsonl"))) == 3, "replaying does not record"


def tampered(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def raise_reward(lines):
    lines[1]["reward"] += 0.25


def forget_component(lines):
    del lines[2]["rewards"]["format"]


def excuse(lines):
    lines[2]["verdict"] = "timeout"


def no_nan(lines):
    lines[3]["reward"] = 0.0


def an_extra_turn(lines):
    lines[1]["turns"] *= 2


def another_row(lines):
    lines[1]["index"] = 99


def no_row(lines):
    lines[1]["index"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (raise_reward, ":2: index 3: reward 1.35, now 1.1"),
        (forget_component, ':3: index 4: rewards["format"] None, now -0.25'),
        (excuse, ":3: index 4: verdict timeout, now wrong"),
        (no_nan, ":4: index 5: reward 0.0, now nan"),
        (an_extra_turn, ":2: index 3: over after 2 turns, now after 1"),
        (another_row, ":2: index 99: IndexError: Talk.reset: index=99 is out of range"),
        (no_row, ':2: index None: ValueError: the environment gave no info["index"]'),
    ],
)
def test_every_kind_of_difference_is_found(tmp_path, talk, change, message):
    path = tmp_path / "verdicts-0.jsonl"
    env = recorded(path, gymnasium.make(talk))
    for index, turns in EPISODES:
        play(env, index, *turns)
    tampered(path, change)
    found = replay(path)
    assert found.episodes == 3 and len(found.differences) == 1
    assert str(found).startswith(f"{path}{message}") and str(found).endswith("3 episodes judged again: 1 differ.")


def test_another_environment_can_judge(tmp_path, talk):
    env = recorded(tmp_path / "verdicts.jsonl", gymnasium.make(talk))
    play(env, 3, EPISODES[0][1][0])
    (difference,) = replay(tmp_path / "verdicts.jsonl", gymnasium.make(talk, offset=1)).differences
    assert (difference.recorded.verdict, difference.replayed.verdict) == ("correct", "wrong")


def test_other_versions_are_named(tmp_path, talk):
    path = tmp_path / "verdicts.jsonl"
    play(recorded(path, gymnasium.make(talk)), 3, EPISODES[0][1][0])
    tampered(path, lambda lines: lines[0]["description"]["versions"].update({"math-verify": "0.0.1"}))
    found = replay(path)
    assert not found.differences and found.versions["math-verify"][0] == "0.0.1"
    assert "math-verify was 0.0.1, and is" in str(found)


def test_an_environment_without_a_spec_is_recorded_and_must_be_given(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    play(recorded(path, Talk()), 3, EPISODES[0][1][0])
    with pytest.raises(ValueError, match=r"environment Talk cannot be made again: .* pass it as env="):
        replay(path)
    env = FormatReward(
        OverlongPenalty(RepetitionPenalty(Talk(), ngram_size=1), max_length=5), form="...3", penalty=0.25
    )
    assert str(replay(path, env)) == "1 episodes judged again: 0 differ."


def test_a_run_without_records_says_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="record_verdicts: true"):
        replay(tmp_path)


def test_a_torn_line_is_passed_over_and_what_follows_is_kept(tmp_path, talk):
    path = tmp_path / "verdicts.jsonl"
    play(recorded(path, gymnasium.make(talk)), 3, EPISODES[0][1][0])
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 40, 30):
        path.write_bytes(whole[:size])
        play(recorded(path, gymnasium.make(talk)), *(4, *EPISODES[1][1]))
        found = replay(path)
        complete = json_ends(whole[:size])
        assert (found.episodes, found.unreadable, found.differences) == (1 + complete, 1 - complete, []), size


def json_ends(text):
    """1 if the last line, though without its line break, is all there."""
    try:
        json.loads(text.splitlines()[-1])
    except ValueError:
        return 0
    return 1


def test_copies_and_threads_write_to_the_same_file_under_one_description(tmp_path, talk):
    path = tmp_path / "verdicts.jsonl"
    env = recorded(path, gymnasium.make(talk))
    env.reset(options={"index": 3})
    copies = [copy.deepcopy(env) for _ in range(4)]
    play(env, 3, EPISODES[0][1][0])

    def work(twin):
        for _ in range(25):
            play(twin, 4, *EPISODES[1][1])

    threads = [threading.Thread(target=work, args=(twin,)) for twin in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text().count('"description"') == 1
    found = replay(path)
    assert (found.episodes, found.differences, found.unreadable) == (101, [], 0)


def test_it_pickles_in_the_middle_of_an_episode(tmp_path, talk):
    env = recorded(tmp_path / "verdicts.jsonl", gymnasium.make(talk))
    play(env, 4, EPISODES[1][1][0])
    pickle.loads(pickle.dumps(env)).step(EPISODES[1][1][1])
    (line,) = read_verdicts(tmp_path / "verdicts.jsonl")
    assert line.episode.turns == tuple(EPISODES[1][1])


WRITER = """
import sys, gymnasium, envs
env = envs.RecordVerdicts(gymnasium.make("math/Arithmetic-v0", levels=[2]), sys.argv[1])
for n in range(int(sys.argv[2])):
    env.reset(options={"index": n})
    env.step(env.unwrapped.solution(n) if n % 2 else "x" * 20_000)
"""


def writer(path, episodes):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(episodes)], cwd=ROOT)


def test_processes_may_share_a_file(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    for process in [writer(path, 100) for _ in range(3)]:
        assert process.wait(timeout=120) == 0
    found = replay(path)
    assert (found.episodes, found.differences, found.unreadable) == (300, [], 0)
    assert path.read_text().count('"description"') == 3


def test_what_was_written_survives_a_kill(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    process = writer(path, 10**9)
    deadline = time.monotonic() + 120
    while not path.exists() or path.stat().st_size < 500_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = replay(path)
    assert found.episodes >= 40 and found.unreadable <= 1 and not found.differences


def test_a_full_disk_is_an_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    env = RecordVerdicts(Talk(), "/dev/full")
    with pytest.raises(OSError, match="No space left"):
        play(env, 3, "now 3")


def test_recording_changes_nothing(tmp_path, talk):
    bare, env = gymnasium.make(talk), RecordVerdicts(gymnasium.make(talk), tmp_path / "verdicts.jsonl")
    for index, turns in EPISODES[:2]:
        assert play(bare, index, *turns) == play(env, index, *turns)
    assert env.spec.additional_wrappers[-1].kwargs == {"path": str(tmp_path / "verdicts.jsonl")}


def test_an_episode_survives_json():
    episode = RecordedEpisode(
        7, (Completion("a", n_tokens=1),), math.nan, {"correctness": math.nan}, math.nan, "infra_failure"
    )
    for one in (
        episode,
        dataclasses.replace(episode, turn_rewards=(math.nan,)),
    ):  # the first as older versions wrote it
        assert repr(RecordedEpisode.from_dict(json.loads(json.dumps(one.to_dict())))) == repr(one)


class PaidTalk(Talk):
    """Pays for the first turn, which is not always the last."""

    paid = 0.5

    def reply(self, row, turns):
        return super().reply(row, turns) and ("Are you sure?", self.paid)


def swap_the_turns_rewards(lines):
    one, two = lines[2]["turns"]
    one["reward"], two["reward"] = two["reward"], one["reward"]


def test_rewards_of_turns_are_recorded_and_judged_again(tmp_path):
    env = RecordVerdicts(PaidTalk(), tmp_path / "verdicts-0.jsonl")
    play(env, 3, "now 3")
    play(env, 4, "?", "4")
    play(env, 5, "5", "?")
    episodes = [line.episode for line in read_verdicts(tmp_path / "verdicts-0.jsonl")]
    assert [episode.turn_rewards[:1] for episode in episodes] == [(1.0,), (0.5,), (0.5,)]
    assert episodes[1].reward == 1.5 and episodes[1].rewards == {"correctness": 1.0, "turns": 0.5}
    assert replay(tmp_path, PaidTalk()).differences == []
    other = PaidTalk()
    other.paid = 0.25
    assert "reward of turn 1 0.5, now 0.25" in str(replay(tmp_path, other))
    tampered(tmp_path / "verdicts-0.jsonl", swap_the_turns_rewards)
    [difference] = replay(tmp_path, PaidTalk()).differences  # the same sum
    assert str(difference).endswith("index 4: reward of turn 1 1.0, now 0.5; reward of turn 2 0.5, now 1.0")


# --- environments as data


def test_a_class_that_was_registered_is_saved_by_its_name(talk):
    description = json.loads(json.dumps(describe(OverlongPenalty(gymnasium.make(talk, offset=2), max_length=5))))
    assert description["spec"]["entry_point"] == f"{__name__}:Talk"
    assert {"python", "dapo-trl", "gymnasium", "math-verify", "sympy"} <= set(description["versions"])
    env = remake(description)
    assert isinstance(env, OverlongPenalty) and env.unwrapped.offset == 2


class Unrecorded(gymnasium.Wrapper):
    pass


def test_what_cannot_be_made_again_says_why(talk):
    local = gymnasium.register("test/Local-v0", lambda: Talk(), disable_env_checker=True)
    assert local is None
    try:
        for env, reason in [
            (Talk(), "it was not made by gymnasium.make, so it has no spec"),
            (Unrecorded(gymnasium.make(talk)), "Unrecorded does not record its arguments"),
            (gymnasium.make("test/Local-v0"), "its spec is not JSON: Callable found"),
            (gymnasium.make(talk, offset=1j), "its spec is not JSON: Object of type complex"),
        ]:
            description = describe(env)
            assert description["spec"] is None and description["reason"].startswith(reason)
            with pytest.raises(ValueError, match="cannot be made again"):
                remake(description)
    finally:
        gymnasium.registry.pop("test/Local-v0")
