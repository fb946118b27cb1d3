"""Wrappers named in the settings of a run: found, refused by name, and kept out of the measurement."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gymnasium
import pytest
import yaml

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.rollout.environments import has_overlong_penalty, wrap_env
from dapo_trl.run.settings import load_settings
from envs import Completion, RewardShaping
from envs.description import remake
from envs.rejudge import replay
from envs.wrappers.recording import read_verdicts

from ..cli.test_main import config_file
from ..conftest import ROOT
from ..support.warm_start import CPU_2, WarmStart

FLAGS = ["--model", "m", "--env", "math/Arithmetic-v0", "--use_cpu", "true"]
WRAPPERS = [
    {"OverlongPenalty": {"max_length": 12}},
    {"RepetitionPenalty": {"max_penalty": 0.5}},
    {f"{__name__}:Polite": None},
    f"{__name__}:Brevity",
]


class Polite(gymnasium.ObservationWrapper):
    """Changes what the model sees."""

    def observation(self, observation):
        return f"Please: {observation}"


class Brevity(RewardShaping):
    component = "brevity"

    def shape(self, turns):
        return 0.1


class Strict(RewardShaping):
    def __init__(self, env, *, needed):
        super().__init__(env, needed=needed)
        raise KeyError(needed)

    def shape(self, turns):
        return 0.0


NOTHING = None


def no_env(env):
    return 3


def task():
    return gymnasium.make("math/Arithmetic-v0", levels=[1])


def layers(env):
    found = []
    while isinstance(env, gymnasium.Wrapper):
        found.append(type(env).__name__)
        env = env.env
    return found[::-1]


def test_they_are_put_around_from_the_inside_out():
    env = wrap_env(task(), WRAPPERS)
    assert layers(env) == ["OrderEnforcing", "OverlongPenalty", "RepetitionPenalty", "Polite", "Brevity"]
    prompt, _ = env.reset(options={"index": 0})
    *_, info = env.step(Completion(env.unwrapped.solution(0), n_tokens=22))
    assert prompt.startswith("Please: ") and has_overlong_penalty(env)
    assert info["rewards"] == pytest.approx({"correctness": 1, "overlong": -0.1, "repetition": 0, "brevity": 0.1})


def test_the_measurement_does_without_those_that_only_shape_the_reward(tmp_path):
    wrappers = [*WRAPPERS, {"envs:RecordVerdicts": {"path": str(tmp_path / "x")}}]
    assert layers(wrap_env(task(), wrappers, training=False)) == ["OrderEnforcing", "Polite"]


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        (["RepetitionPenality"], "there is no such wrapper. Did you mean RepetitionPenalty? This package has Fo"),
        (["Mine"], "a wrapper of your own is named 'your_module:YourWrapper'"),
        ([3], "env_wrappers[0] is 3: it must be the name of one wrapper, or one name with its arguments"),
        ([{"FormatReward": None, "form": "think"}], "env_wrappers[0] is {'FormatReward': None, 'form': 'think'}: it "),
        (["RepetitionPenalty", {"FormatReward": "think"}], "env_wrappers[1] is {'FormatReward': 'think'}: a wrapper'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_list_is_found_with_the_settings(wrappers, message):
    with pytest.raises(ConfigError) as error:
        load_settings([], [*FLAGS, "--env_wrappers", yaml.safe_dump(wrappers)])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ({"RepetitionPenalty": {"max_penality": 1}}, "RepetitionPenalty has no argument 'max_penality'. Did you mean "),
        ({"OverlongPenalty": {}}, "OverlongPenalty needs max_length: give it as {OverlongPenalty: {max_length: ...}}"),
        ({"FormatReward": {"form": "thnk"}}, "FormatReward cannot be made: .*Did you mean think?"),
        ({"FormatReward": {"env": 1}}, "FormatReward has no argument 'env'"),
        ({f"{__name__}:Strict": {"needed": 1}}, r"Strict cannot be made: KeyError: 1 \(test_environments.py:\d+\)"),
        ("no_such_module:Wrapper", "which cannot be imported: No module named 'no_such_module'"),
        (f"{__name__}:Absent", "which cannot be imported: .*has no attribute 'Absent'"),
        (f"{__name__}:NOTHING", "a NoneType: it must be a gymnasium.Wrapper"),
        (f"{__name__}:no_env", "no_env made a int: a wrapper must return a Gymnasium environment"),
    ],
)  # fmt: skip
def test_a_wrapper_that_cannot_be_made_is_one_clear_error(wrapper, message):
    with pytest.raises(ConfigError, match=f"^env_wrappers.*{message}") as error:
        wrap_env(task(), [wrapper])
    assert "\n" not in str(error.value)


def test_the_settings_that_the_documentation_shows(tmp_path):
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "env_wrappers" in block)
    (tmp_path / "wrappers.yaml").write_text(block.replace("my_task:", f"{__name__}:"))
    run, _, _ = load_settings([tmp_path / "wrappers.yaml"], FLAGS)
    assert layers(wrap_env(task(), run.env_wrappers))[1:] == ["FormatReward", "RepetitionPenalty", "Brevity"]
    assert run.record_verdicts


def test_a_mistake_costs_a_line_and_no_model(tmp_path, capsys):
    path = config_file(tmp_path, env_wrappers=[{"FormatReward": {"form": "thnk"}}], model="no/such/model")
    assert main(["train", "--config", path]) == 2
    assert "Did you mean think?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def trained(warm_start: WarmStart, tmp_path: Path, accelerate: str | None = None) -> Path:
    wrappers = [{"FormatReward": {"form": "answer_line", "bonus": 0.5}}, {"RepetitionPenalty": {"max_penalty": 0.5}}]
    settings = {"env_wrappers": wrappers, "record_verdicts": True, "eval_problems": 4, "eval_samples": 2}
    path = config_file(tmp_path, max_steps=2, **settings)
    done = warm_start.run("dapo_trl", "train", "--config", path, accelerate=accelerate)
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_can_be_judged_again(warm_start, tmp_path):
    run = trained(warm_start, tmp_path)
    lines = list(read_verdicts(run / "verdicts-0.jsonl"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sampled = sum(row.get("groups/sampled", 0) for row in metrics) * 4
    assert len(lines) == sampled > 0, "evaluation is not recorded"
    assert {tuple(line.episode.rewards) for line in lines} == {("correctness", "format", "repetition")}
    assert all(line.episode.turns[0].n_tokens > 0 for line in lines)
    found = replay(run)
    assert (found.episodes, found.differences, found.versions) == (len(lines), [], {})

    saved = json.loads((run / "environment.json").read_text())
    assert layers(remake(saved["train"])) == ["OrderEnforcing", "FormatReward", "RepetitionPenalty"]
    assert layers(remake(saved["held_out"])) == ["OrderEnforcing"]
    assert saved["train"]["versions"]["gymnasium"] == gymnasium.__version__

    again = ["--overwrite", "true", "--record_verdicts", "false", "--max_steps", "1", "--eval_problems", "0"]
    assert main(["train", "--config", str(run / "config.yaml"), *again]) == 0
    assert (run / "environment.json").exists() and not list(run.glob("verdicts-*")), "the records were of the other run"


@pytest.mark.slow
def test_each_process_records_its_own(warm_start, tmp_path):
    run = trained(warm_start, tmp_path, CPU_2)
    files = sorted(path.name for path in run.glob("verdicts-*.jsonl"))
    assert files == ["verdicts-0.jsonl", "verdicts-1.jsonl"]
    counts = [len(list(read_verdicts(run / name))) for name in files]
    assert counts[0] == counts[1] > 0
    found = replay(run)
    assert (found.episodes, found.differences, found.unreadable) == (sum(counts), [], 0)
