"""One evaluation from settings to results; a killed one continues where it was."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from rich.console import Console

from envs.description import describe

from ..errors import ConfigError
from ..generation.transformers import stop_ids
from ..generation.vllm import ROWS, MeasuringEngine, why_merged
from ..monitor.console import counted
from ..rollout.environments import make_env, row_count, wrap_env
from ..rollout.prompting import measured_rows, prompted, prompted_alike, prompting_of
from .evaluator import UNBOUNDED, EvalProblem, Evaluator, collect
from .journal import PARQUET, RESULTS, Journal, Samples
from .loading import base_and_adapter, fingerprint, load
from .results import show_results
from .settings import ENDLESS_PROBLEMS, EvalConfig
from .split import split_off


def run_evaluation(config: EvalConfig, accelerator: Accelerator, console: Console) -> int:
    """Carry out `dapo-trl eval`; returns the exit code."""
    base_and_adapter(str(config.model), config.adapter)  # a mistake in its path is found at once
    made = [
        (name, arguments, _held_out(config, place, name, arguments))
        for place, (name, arguments) in enumerate(config.environments())
    ]
    for name, arguments, env in made:
        if note := _note_on_split(name, arguments, env):
            console.print(note, style="yellow")
    device = accelerator.device if config.engine == "transformers" else torch.device("cpu")
    model, tokenizer = load(str(config.model), config.adapter, dtype=config.dtype, device=device)
    request = {
        "model": {"name": config.model, "adapter": config.adapter},
        "weights": fingerprint(model),
        "engine": config.engine,
        "environments": [_described(*one) for one in made],
        **vars(config.sampling),
    }
    journal = Journal(config.folder, process=accelerator.process_index)
    _together(accelerator, lambda: journal.begin(request, overwrite=config.overwrite))

    engine = _engine(config, accelerator, model, tokenizer)
    evaluators = _evaluators(config, [env for _, _, env in made], model, tokenizer, engine)
    results: list[tuple[list[EvalProblem], Samples]] = []
    try:
        for place, (evaluator, problems) in enumerate(evaluators):
            name = made[place][0]
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


def _evaluators(
    config: EvalConfig,
    envs: Sequence[gymnasium.Env],
    model: Any,
    tokenizer: Any,
    engine: MeasuringEngine | None,
) -> list[tuple[Evaluator, list[EvalProblem]]]:
    """An evaluator for each environment, and the problems that are measured."""
    options: dict[str, Any] = {"batch_tokens": config.eval_batch_tokens}
    if engine is not None:
        options = {"batch_tokens": UNBOUNDED, "max_rows": ROWS, "sample": engine.sample_turns}
    found = []
    for place, env in enumerate(envs):
        evaluator = Evaluator(
            model, tokenizer, env, config.sampling, chat_template_kwargs=config.chat_template_kwargs, **options
        )
        problems = evaluator.problems(_measured(config, place, env))
        if engine is not None:
            longest = max(len(problem.ids) for problem in problems) + config.max_completion_length
            engine.longest = max(engine.longest, longest)
        found.append((evaluator, problems))
    return found


def _engine(config: EvalConfig, accelerator: Accelerator, model: Any, tokenizer: Any) -> MeasuringEngine | None:
    """vLLM with the model, of which the configuration alone is kept here; None: transformers draws."""
    if config.engine == "transformers":
        return None
    if accelerator.num_processes > 1:
        raise ConfigError(
            f"engine is 'vllm' and there are {accelerator.num_processes} processes: start one, and let its GPUs share "
            "the weights with --vllm_tensor_parallel_size."
        )
    base, adapter = base_and_adapter(str(config.model), config.adapter)
    if adapter is not None and (reason := why_merged(model)):
        raise ConfigError(
            f"engine is 'vllm', which cannot serve adapter {adapter} ({reason}): merge it with dapo-trl merge, or take "
            "--engine transformers."
        )
    settings = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": config.seed,
        "tensor_parallel_size": config.vllm_tensor_parallel_size,
        "gpu_memory_utilization": config.vllm_gpu_memory_utilization,
    }
    model.to("meta")
    return MeasuringEngine(base, adapter, stop_ids(model, tokenizer), accelerator.device, **settings)


def _held_out(config: EvalConfig, place: int, name: str, arguments: dict[str, Any]) -> gymnasium.Env:
    env = _unshaped(config, place, name, arguments)
    _count(config, env)
    has_own = prompting_of(env) is not None
    if not has_own and not isinstance(config.few_shot, int):
        return prompted(env, config)
    source = _unshaped(config, place, *config.source_of_examples(place, name, arguments))
    env = prompted(env, config, source=source)
    return prompted_alike(env, source) if has_own else env


def _unshaped(config: EvalConfig, place: int, name: str, arguments: dict[str, Any]) -> gymnasium.Env:
    return wrap_env(make_env(name, **arguments), config.wrappers(place), training=False)


def _count(config: EvalConfig, env: gymnasium.Env) -> int:
    """Problems of an environment that are measured."""
    size = row_count(env)
    if size is not None and config.eval_problems > size:
        raise ConfigError(f"problems is {config.eval_problems}, but {env.spec.id} has {size} rows.")  # type: ignore[union-attr]
    return config.eval_problems or size or ENDLESS_PROBLEMS


def _measured(config: EvalConfig, place: int, env: gymnasium.Env) -> Sequence[int]:
    """The rows of an environment that are measured: in a run's settings those that the run measured."""
    count, kept = _count(config, env), config.kept_apart_of(place)
    if not kept:
        return measured_rows(env, config.eval_problems or (ENDLESS_PROBLEMS if row_count(env) is None else None))
    if count > kept and row_count(env) is not None:
        raise ConfigError(
            f"problems is {count}, but the run kept {kept} problems apart and has trained on the others: "
            f"lower it to {kept}, or name other rows with --env."
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
