"""What every registered environment can do, whatever its task: one test for all ids."""

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401

ROWS = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(5)]
PROGRAMS = [
    {
        "prompt": f"Print {n} times the number on standard input.",
        "tests": {"kind": "stdin", "inputs": ["2", "-7"], "outputs": [str(2 * n), str(-7 * n)]},
        "solution": f"print({n} * int(input()))",
    }
    for n in range(2, 8)
]
DATA = Path(__file__).parent / "data"
ENVIRONMENTS = [
    ("math/Arithmetic-v0", {}),
    ("math/Calculator-v0", {}),
    ("math/Chain-v0", {}),
    ("math/Countdown-v0", {}),
    ("math/WordProblems-v0", {}),
    ("text/Instructions-v0", {}),
    ("math/Problem-v0", {"rows": ROWS}),
    ("math/GSM8K-v0", {"path": str(DATA / "gsm8k.jsonl")}),
    ("math/MATH-v0", {"path": str(DATA / "math.jsonl")}),
    ("math/AIME2024-v0", {"path": str(DATA / "aime2024.jsonl")}),
    ("math/AIME2025-v0", {"path": str(DATA / "aime2025.jsonl")}),
    ("math/DAPO17k-v0", {"path": str(DATA / "dapo17k.jsonl")}),
    ("code/Program-v0", {"rows": PROGRAMS, "solution_column": "solution"}),
    ("code/Repair-v0", {"rows": PROGRAMS, "solution_column": "solution"}),
    ("code/HumanEval-v0", {"path": str(DATA / "humaneval.jsonl")}),
    ("code/MBPP-v0", {"path": str(DATA / "mbpp.jsonl")}),
    ("code/APPS-v0", {"path": str(DATA / "apps.jsonl")}),
    ("code/LiveCodeBench-v0", {"path": str(DATA / "livecodebench.jsonl")}),
]

every_environment = pytest.mark.parametrize(("name", "kwargs"), ENVIRONMENTS, ids=[name for name, _ in ENVIRONMENTS])


def test_every_id_is_tested():
    registered = {name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("envs.")}
    generated = {name for name in registered if name.startswith("reasoning_gym/")}  # see test_reasoning_gym_tasks
    assert registered - generated == {name for name, _ in ENVIRONMENTS}


@every_environment
def test_makes_and_passes_the_checker_without_a_warning(name, kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, **kwargs).unwrapped)


@every_environment
def test_spec_survives_json(name, kwargs):
    env = gymnasium.make(name, **kwargs, wrong_reward=-1.0)
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    for index in range(5):
        options = {"index": index}
        assert env.reset(options=options) == twin.reset(options=options)
        assert env.step("no") == twin.step("no")


@every_environment
def test_pickles(name, kwargs):
    env = gymnasium.make(name, **kwargs)
    env.reset(seed=3)
    twin = pickle.loads(pickle.dumps(env))
    assert [env.reset() for _ in range(5)] == [twin.reset() for _ in range(5)]


@every_environment
def test_gold_is_not_in_what_reset_returns(name, kwargs):
    env = gymnasium.make(name, **kwargs)
    for index in range(5):
        prompt, info = env.reset(options={"index": index})
        assert set(info) <= {"index", "level"}
        assert (env.unwrapped.solution(index) or "no solution is known") not in prompt


@every_environment
def test_solutions_earn_the_maximum(name, kwargs):
    env = gymnasium.make(name, **kwargs, correct_reward=2.0, wrong_reward=-1.0)
    if env.unwrapped.solution(0) is None:
        pytest.skip("the data set has no solutions")
    for index in range(5):
        env.reset(options={"index": index})
        _, reward, terminated, _, info = env.step(env.unwrapped.solution(index))
        assert (reward, info["accuracy"], terminated) == (2.0, 1.0, True)


VECTORS = [
    *((name, kwargs, "sync", AutoresetMode.SAME_STEP) for name, kwargs in ENVIRONMENTS),
    ("math/Arithmetic-v0", {}, "sync", AutoresetMode.DISABLED),
    ("math/Arithmetic-v0", {}, "async", AutoresetMode.DISABLED),
    ("math/GSM8K-v0", {"path": str(DATA / "gsm8k.jsonl")}, "async", AutoresetMode.SAME_STEP),
]


@pytest.mark.parametrize(("name", "kwargs", "mode", "autoreset"), VECTORS)
def test_vector_environments(name, kwargs, mode, autoreset):
    env = gymnasium.make_vec(
        name,
        num_envs=2,
        vectorization_mode=mode,
        vector_kwargs={"autoreset_mode": autoreset},
        **kwargs,
    )
    try:
        alone = gymnasium.make(name, **kwargs)
        prompts, info = env.reset(seed=[4, 5])
        expected = [alone.reset(seed=seed) for seed in (4, 5)]
        assert prompts == tuple(prompt for prompt, _ in expected)
        assert list(info["index"]) == [info["index"] for _, info in expected]
        actions = [alone.unwrapped.solution(info["index"]) or "no answer" for _, info in expected]
        _, rewards, terminated, truncated, infos = env.step(actions)
        assert list(terminated) == [True, True] and list(truncated) == [False, False]
        final = infos["final_info"] if autoreset is AutoresetMode.SAME_STEP else infos
        for i, (_, row_info) in enumerate(expected):
            alone.reset(options={"index": row_info["index"]})
            _, reward, _, _, single = alone.step(actions[i])
            assert (rewards[i], final["verdict"][i]) == (reward, single["verdict"])
    finally:
        env.close()


def test_rows_are_the_same_in_another_process():
    program = """
import sys, json, gymnasium, envs
for name, kwargs in json.loads(sys.argv[1]):
    env = gymnasium.make(name, **kwargs)
    print([env.reset(options={"index": index}) for index in range(5)])
"""
    command = [sys.executable, "-c", program, json.dumps(ENVIRONMENTS)]
    others = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for (name, kwargs), other in zip(ENVIRONMENTS, others, strict=True):
        env = gymnasium.make(name, **kwargs)
        assert other == str([env.reset(options={"index": index}) for index in range(5)]), name


def test_importing_and_making_stay_light():
    program = (
        "import sys, gymnasium, envs; gymnasium.make('math/Arithmetic-v0').reset();"
        "heavy = {'torch', 'trl', 'dapo_trl', 'sympy', 'math_verify', 'datasets'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_unknown_id_suggests_the_nearest():
    with pytest.raises(gymnasium.error.NameNotFound, match="Did you mean: `Arithmetic`"):
        gymnasium.make("math/Arithmetik-v0")


TASKS = sorted((Path(__file__).parents[2] / "configs" / "task").glob("*.yaml"))


@pytest.mark.parametrize("file", TASKS, ids=lambda path: path.stem)
def test_shipped_task_files_make_environments_of_this_package(file):
    """For training and for the measurement, with the data sets read from the small files of these tests."""
    run = yaml.safe_load(file.read_text())
    kwargs, sources = run.get("env_kwargs", {}), dict(ENVIRONMENTS)
    for name, extra in ((run["env"], {}), (run.get("eval_env", run["env"]), run.get("eval_env_kwargs", {}))):
        env = gymnasium.make(name, **{**sources[name], **kwargs, **extra})
        assert env.reset(options={"index": 0})[0]
