"""OpenEnv, both ways: ours on its server, and servers of others here."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

import envs
from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.rollout.environments import make_env
from dapo_trl.rollout.episode import Episode
from envs import Completion, OverlongPenalty
from envs.interop.foreign import ForeignWarning, RuleError
from envs.interop.openenv_server import application, facts
from envs.rejudge import repeat_turns

from ...conftest import ROOT
from ...support.attack_answers import attack_answers
from ...support.turns_run import Paid
from . import commands, shown

pytest.importorskip("openenv.core", reason="openenv-core is not installed: pip install 'dapo-trl[openenv]'")
import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

PAGE_PORT = 8000


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def running(app):
    """The address of an application that is served while the block lasts."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize(
    ("env", "rows"),
    [
        ("math/Arithmetic-v0", 100),
        ("math/WordProblems-v0", 12),
        ("math/Countdown-v0", 12),
        ("text/Instructions-v0", 6),
    ],
)
def test_ours_scores_the_same_through_a_server_to_the_last_digit(env, rows):
    ours = envs.make(env, wrong_reward=-0.3)
    with running(application(ours)) as url:
        theirs = envs.make(f"openenv:{url}")
        assert (theirs.unwrapped.num_rows, theirs.unwrapped.max_turns) == (ours.unwrapped.num_rows, 1)
        count = 0
        for index in range(rows):
            for answer in attack_answers(ours, index):
                text = Completion(answer, n_tokens=len(answer), finish_reason=("stop", "length")[count % 7 == 6])
                assert theirs.reset(options={"index": index}) == ours.reset(options={"index": index})
                assert theirs.step(text) == ours.step(text)
                count += 1
        theirs.close()
    assert count > 20 * rows


def test_many_turns_through_a_server_with_fewer_sessions_than_episodes():
    ours = envs.make("math/Calculator-v0")
    script = ["<calc>2*3</calc>", "<calc>x</calc>", " \n", "Answer: 5"]
    with running(application(ours, sessions=2)) as url:
        theirs = envs.make(f"openenv:{url}")
        started = []
        for index in range(6):
            assert theirs.reset(options={"index": index}) == ours.reset(options={"index": index})
            theirs.step(script[0])
            started.append(copy.deepcopy(theirs))
        for index, episode in enumerate(started):
            turns = script if index % 2 else [script[0], ours.unwrapped.solution(index)]
            expected = repeat_turns(ours, index, tuple(turns))
            for turn in turns[1:]:
                step = episode.step(turn)
                if step[2]:
                    break
            assert (step[4]["accuracy"], step[4]["verdict"]) == (expected.accuracy, expected.verdict)
        cut = theirs.reset(options={"index": 1}) and theirs.step(Completion("", n_tokens=0, finish_reason="length"))
        ours.reset(options={"index": 1})
        assert cut == ours.step(Completion("", n_tokens=0, finish_reason="length"))
        theirs.close()


@pytest.mark.parametrize("turns", [("1?", "2?", "R"), ("1?", "2?"), ("R",), ("1?", "2?", "3?", "4?")])
def test_rewards_of_turns_pass_through_a_server(turns):
    def outcome(env):
        episode = Episode(env, 5)
        replies = [episode.step(Completion(turn, n_tokens=len(turn), finish_reason="stop")) for turn in turns]
        episode.truncate()  # no room after the last reply, where there was one
        return replies, episode.outcome

    ours = OverlongPenalty(Paid(), max_length=2, coefficient=1.0)
    with running(application(ours)) as url:
        theirs = envs.make(f"openenv:{url}")
        expected, found = outcome(ours), outcome(theirs)
        theirs.close()
    assert found == expected and len(found[1].turns) == len(turns)


def test_a_program_that_is_served_keeps_its_limits():
    rows = [{"prompt": "Print 1.", "tests": {"kind": "stdin", "inputs": [""], "outputs": ["1"]}}]
    ours = envs.make("code/Program-v0", rows=rows, limits={"cpu_seconds": 1.0, "wall_seconds": 3.0})
    with running(application(ours)) as url:
        theirs = envs.make(f"openenv:{url}")
        for program in ("print(1)", "while True: pass", "raise ValueError", "import os; os.kill(os.getppid(), 9)"):
            answer = f"```python\n{program}\n```"
            assert repeat_turns(theirs, 0, (answer,)).verdict == repeat_turns(ours, 0, (answer,)).verdict
        theirs.close()


class GuessAction(Action):
    guess: str
    note: str = ""


class GuessObservation(Observation):
    hint: str
    left: int = 3


class Guess(Environment):
    """Three guesses of a number that the seed hides, as OpenEnv's own environments are written."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    broken = False
    slow = 0.0

    def reset(self, seed=None, episode_id=None, **_):
        self.secret, self.turns = (seed or 0) % 10, 0
        return GuessObservation(hint=f"Guess number {seed}.")

    def step(self, action, timeout_s=None, **_):
        if action.guess == "boom":
            raise ValueError("boom")
        time.sleep(self.slow)
        self.turns += 1
        right = action.guess == str(self.secret)
        done = right or self.turns == 3
        return GuessObservation(hint="" if done else "no", left=3 - self.turns, done=done, reward=1.0 if right else 0.1)

    @property
    def state(self):
        return State(step_count=self.turns)


class Unseeded(Guess):
    count = 0

    def reset(self, **_):
        type(self).count += 1
        return super().reset(seed=type(self).count)


def test_theirs_scores_the_same_here_as_when_it_is_called_directly():
    with running(create_fastapi_app(Guess, GuessAction, GuessObservation, max_concurrent_envs=4)) as url:
        env = envs.make(f"openenv:{url}")
        direct = Guess()
        for seed in range(100):
            assert env.reset(options={"index": seed})[0] == direct.reset(seed=seed).hint
            for guess in ("", "4", str(seed % 10)):
                expected, step = direct.step(GuessAction(guess=guess)), env.step(guess)
                assert (step[1], step[2]) == (expected.reward, expected.done)
                if step[2]:
                    break
        env.close()


def test_what_a_server_does_to_an_answer_and_what_it_means():
    with running(create_fastapi_app(Guess, GuessAction, GuessObservation, max_concurrent_envs=4)) as url:
        env = envs.make(f"openenv:{url}", action_field="json", timeout=0.5, num_rows=50)
        verdicts = {}
        for text in ('{"guess": "3"}', "no JSON", "[1]", '{"gues": "3"}', '{"guess": "boom"}'):
            env.reset(options={"index": 3})
            step = env.step(text)
            verdicts[text] = step[4]["verdict"]
        assert list(verdicts.values()) == ["correct", "no_answer", "no_answer", "no_answer", "infra_failure"]
        try:
            Guess.slow = 1.5
            env.reset(options={"index": 3})
            slow = env.step('{"guess": "3"}')
        finally:
            Guess.slow = 0.0
        assert slow[4]["verdict"] == "infra_failure" and "did not answer within 0.5 s" in slow[4]["cause"]
        env.reset(options={"index": 4})
        assert env.step('{"guess": "4"}')[4]["verdict"] == "correct"
        env.close()


def test_rules_that_a_server_breaks_are_named_at_once():
    with running(create_fastapi_app(Unseeded, GuessAction, GuessObservation, max_concurrent_envs=4)) as url:
        with pytest.raises(RuleError, match="a row always shows the same prompt"):
            envs.make(f"openenv:{url}")
        with pytest.raises(ConfigError, match="follows no seed"):
            make_env(f"openenv:{url}")
    with running(create_fastapi_app(Guess, GuessAction, GuessObservation)) as url:
        with pytest.warns(ForeignWarning, match="episodes go on side by side: the server holds 1 at a time"):
            env = envs.make(f"openenv:{url}")
        first = env.reset(options={"index": 1}) and env.step("5") and copy.deepcopy(env)
        env.reset(options={"index": 2})
        env.step("5")
        assert first.step("1")[4]["verdict"] == "correct"
        env.close()

    class TwoTexts(GuessAction):
        note: str

    app = create_fastapi_app(Guess, TwoTexts, GuessObservation)
    with running(app) as url, pytest.raises(ValueError, match="has the fields guess, note: name the one"):
        envs.make(f"openenv:{url}")


def test_no_server_is_one_line():
    for url in (f"http://127.0.0.1:{free_port()}", "ftp://x", "http://"):
        with pytest.raises(ConfigError) as caught:
            make_env(f"openenv:{url}", timeout=1.0, patience=0.1)
        assert url in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_serves_and_its_death_costs_one_answer(capsys):
    port = free_port()
    command = [sys.executable, "-m", "dapo_trl", "envs", "serve", "math/Arithmetic-v0", "--port", str(port)]
    changes = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(
        [*command, "--env_kwargs", "{levels: [2]}"], env={**os.environ, **changes}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        while server.poll() is None:
            try:
                assert httpx.get(f"{url}/metadata").json()["name"] == "math/Arithmetic-v0"
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        ours = envs.make("math/Arithmetic-v0", levels=[2])
        assert main(["envs", "show", f"openenv:{url}", "--index", "3"]) == 0
        assert ours.reset(options={"index": 3})[0] in capsys.readouterr().out
        env = envs.make(f"openenv:{url}", patience=0.1)
        env.reset(options={"index": 3})
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        assert env.step(ours.unwrapped.solution(3))[4]["verdict"] == "infra_failure"
        env.close()
    finally:
        server.kill()
        server.wait(30)


def test_the_program_of_the_page(capsys):
    (program,) = (block for block in shown("python") if "GenericEnvClient" in block)
    assert f"envs serve math/Arithmetic-v0 --env_kwargs '{{levels: [2]}}' --port {PAGE_PORT}" in "".join(commands())
    with running(application(envs.make("math/Arithmetic-v0", levels=[2]))) as url:
        exec(program.replace(f"http://127.0.0.1:{PAGE_PORT}", url), {})
    prompt, judged = capsys.readouterr().out.splitlines()
    assert prompt.startswith("Compute") and judged.startswith(("0.0 True", "1.0 True"))


def test_a_server_says_what_a_client_needs():
    assert facts(envs.make("math/Calculator-v0")) == {
        "id": "math/Calculator-v0",
        "num_rows": None,
        "max_turns": envs.make("math/Calculator-v0").unwrapped.max_turns,
        "judging_seconds": 5.0,
    }
