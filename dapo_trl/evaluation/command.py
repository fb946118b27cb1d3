"""One evaluation from settings to results; a killed one continues where it was."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from rich.console import Console

from envs.description import describe

from ..errors import ConfigError
from ..monitor.console import counted
from ..rollout.environments import make_env, row_count, wrap_env
from ..rollout.prompting import measured_rows, prompted
from .evaluator import EvalProblem, Evaluator, collect
from .journal import PARQUET, RESULTS, Journal, Samples
from .loading import base_and_adapter, fingerprint, load
from .results import show_results
from .settings import ENDLESS_PROBLEMS, EvalConfig
from .split import split_off


def run_evaluation(config: EvalConfig, accelerator: Accelerator, console: Console) -> int:
    """Carry out `dapo-trl eval`; returns the exit code."""
    base_and_adapter(str(config.model), config.adapter)  # a mistake in its path is found at once
    made = [(name, arguments, _held_out(config, name, arguments)) for name, arguments in config.environments()]
    for name, arguments, env in made:
        if note := _note_on_split(name, arguments, env):
            console.print(note, style="yellow")
    model, tokenizer = load(str(config.model), config.adapter, dtype=config.dtype, device=accelerator.device)
    request = {
        "model": {"name": config.model, "adapter": config.adapter},
        "weights": fingerprint(model),
        "environments": [_described(*one) for one in made],
        **vars(config.sampling),
    }
    journal = Journal(config.folder, process=accelerator.process_index)
    _together(accelerator, lambda: journal.begin(request, overwrite=config.overwrite))

    results: list[tuple[list[EvalProblem], Samples]] = []
    try:
        for place, (name, _, env) in enumerate(made):
            evaluator = Evaluator(
                model,
                tokenizer,
                env,
                config.sampling,
                batch_tokens=config.eval_batch_tokens,
                chat_template_kwargs=config.chat_template_kwargs,
            )
            problems = evaluator.problems(_measured(config, env))
            results.append((problems, _sample(config, accelerator, journal, evaluator, place, problems, name, console)))
    except KeyboardInterrupt:
        console.print(f"The samples judged so far are in {journal.folder}: the same command continues from there.")
        raise
    if accelerator.is_main_process:
        k, sampling = config.eval_samples, config.sampling
        found = {
            **request,
            "environments": [
                {**described, **collect(*one, k=k, sampling=sampling).summary()}
                for described, one in zip(request["environments"], results, strict=True)
            ],
        }
        journal.finish(found, results, k)
        show_results(found, console)
        console.print(f"results: {journal.folder / RESULTS}   every sample: {journal.folder / PARQUET}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def _held_out(config: EvalConfig, name: str, arguments: dict[str, Any]) -> gymnasium.Env:
    env = _unshaped(config, name, arguments)
    _count(config, env)
    drawn = isinstance(config.few_shot, int)
    source = _unshaped(config, *config.source_of_examples(name, arguments)) if drawn else None
    return prompted(env, config, source=source)


def _unshaped(config: EvalConfig, name: str, arguments: dict[str, Any]) -> gymnasium.Env:
    return wrap_env(make_env(name, **arguments), config.env_wrappers, training=False)


def _count(config: EvalConfig, env: gymnasium.Env) -> int:
    """Problems of an environment that are measured."""
    size = row_count(env)
    if size is not None and config.eval_problems > size:
        raise ConfigError(f"problems is {config.eval_problems}, but {env.spec.id} has {size} rows.")  # type: ignore[union-attr]
    return config.eval_problems or size or ENDLESS_PROBLEMS


def _measured(config: EvalConfig, env: gymnasium.Env) -> Sequence[int]:
    """The rows of an environment that are measured."""
    count = _count(config, env)
    if config.kept_apart is None:
        return measured_rows(env, config.eval_problems or (ENDLESS_PROBLEMS if row_count(env) is None else None))
    if count > config.kept_apart and row_count(env) is not None:
        raise ConfigError(
            f"problems is {count}, but the run kept {config.kept_apart} problems apart and has trained on the others: "
            f"lower it to {config.kept_apart}, or name other rows with --env."
        )
    return split_off(env, count).indices


def _described(name: str, arguments: dict[str, Any], env: gymnasium.Env) -> dict[str, Any]:
    """The environment as data: its name and arguments as given, and its description (`envs.description`)."""
    described = describe(env)
    versions = {package: version for package, version in described["versions"].items() if package != "python"}
    return {"env": name, "env_kwargs": arguments, **described, "versions": versions}


def _note_on_split(name: str, arguments: dict[str, Any], env: gymnasium.Env) -> str | None:
    """A note where no split was asked for: the default is the split for training, and a measurement needs another."""
    given = {**(env.spec.kwargs if env.spec else {}), **arguments}
    splits = (given.get("hub") or {}).get("splits", ["train", "test"])
    if "split" in arguments or "split" not in inspect.signature(type(env.unwrapped)).parameters or len(splits) < 2:
        return None
    if given.get("path") or given.get("rows"):
        return None
    fuller = yaml.safe_dump({**arguments, "split": splits[-1]}, default_flow_style=True, sort_keys=False, width=1000)
    return (
        f"{name}: no split was asked for, so its default is measured, the one for training. For the other: "
        f"--env '{name}: {fuller.strip()}'"
    )


def _sample(
    config: EvalConfig,
    accelerator: Accelerator,
    journal: Journal,
    evaluator: Evaluator,
    place: int,
    problems: list[EvalProblem],
    name: str,
    console: Console,
) -> Samples:
    """Draw this process's share of the samples that are not in the journal yet; returns all samples."""
    by_index = {problem.index: problem for problem in problems}
    found = journal.read(place, by_index)
    known = {key for key, sample in found.items() if not math.isnan(sample.accuracy)}
    jobs = [(row, number) for row in range(len(problems)) for number in range(config.eval_samples)]
    missing = [(row, number) for row, number in jobs if (problems[row].index, number) not in known]
    accelerator.wait_for_everyone()  # all have read the same
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    if missing and len(missing) < len(jobs):
        console.print(f"{name}: {len(jobs) - len(missing):,} of {len(jobs):,} samples are there already.")
    with counted(console, name, len(mine)) as show:
        done = 0
        for batch in evaluator.samples(problems, mine):
            journal.append(place, by_index, batch)
            done += len(batch)
            show(done, len(mine))
    accelerator.wait_for_everyone()  # all have written theirs
    return journal.read(place, by_index)


def _together(accelerator: Accelerator, step: Any) -> None:
    """Run ``step`` on the main process; its ConfigError is raised on all processes."""
    answer: list[ConfigError | None] = [None]
    if accelerator.is_main_process:
        try:
            step()
        except ConfigError as error:
            answer = [error]
    [failed] = broadcast_object_list(answer)
    if failed is not None:
        raise failed
