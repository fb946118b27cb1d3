"""One training run from settings to results: measure, train, save, measure again, write the report."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from envs import RecordVerdicts
from envs.description import describe
from envs.text import brief

from ..checkpoint.batch_shape import BatchShape
from ..checkpoint.files import choose, last_complete
from ..config import DAPOConfig
from ..distributed import explain_lost_process, load_on_every_process, weight_count
from ..errors import ConfigError, LostProcessError, NonFiniteError, one_line
from ..evaluation import Evaluation, Sampling
from ..evaluation.held_out import BEST, HeldOut, HeldOutPart, figure, gain
from ..evaluation.split import MEASURED, RECORD, Split, measured_elsewhere, measured_in, rows_apart, split_off
from ..monitor.callbacks import StopOnSignal, WriteMetrics
from ..monitor.console import ConsoleCallback
from ..monitor.metrics_file import MetricsFile
from ..monitor.rollout_recorder import MAX_BYTES, RolloutRecorder
from ..monitor.status import FILE as STATUS
from ..monitor.status import FINISHED, INTERRUPTED, STOPPED, StatusFile
from ..report.page import write_report
from ..rollout.mixture import EnvEntry
from ..rollout.prompting import prompted, prompted_alike
from ..sampling.sources import Source
from ..sampling.state import SamplingState
from ..trainer import DAPOTrainer
from .changes import SETTINGS, changes_since, plain, resumed, write_settings
from .lora import as_new_adapter, check_targets, idle_adapter_settings, start_model
from .model_card import CardFacts, facts_of, how_to_use, publish, write_card
from .owner import check_free, end_with_launcher, hold
from .settings import RunConfig
from .startup import check_folder, explain_full_disk, quieten, share_cores

EXIT_INTERRUPTED = 130
EXIT_STOPPED = EXIT_NOT_PUSHED = 1
COMPLETIONS = "completions"
"""Folder of TRL's tables of completions (``log_completions``)."""
OWN_FILES = (
    BEST,
    f"{BEST}-new",
    f"{BEST}-old",
    "checkpoint-*",
    COMPLETIONS,
    "config.yaml",
    "curves.png",
    RECORD,
    "evaluation_*.json",
    "metrics.jsonl",
    "model",
    "non_finite_step_*.pt",
    "report.html",
    "rollouts-*.jsonl",
    SETTINGS,
    STATUS,
    f"{STATUS}.new",
    "verdicts-*.jsonl",
)
"""Files of a run in its folder; `overwrite` deletes these and no others."""


@explain_lost_process()
def train(run: RunConfig, args: DAPOConfig, asked: dict[str, Any]) -> int:
    """Carry out `dapo-trl train`; returns the exit code.

    Args:
        asked: the settings as they were given; they are kept in the run's folder.

    Raises:
        ConfigError: settings, environment, model and folder do not fit together.
    """
    end_with_launcher()
    folder = Path(args.output_dir)
    checkpoint, found = _find_checkpoint(folder, run, args)
    resumes, begun = None, None
    if found is not None:
        resumes, begun = resumed(found, changes_since(found, run, args)), found.parent
    console = Console(soft_wrap=True, quiet=int(os.environ.get("RANK", 0)) != 0)
    quieten(console)
    share_cores(args.device, args.world_size)
    load_on_every_process(run.eval_problems > 0)  # measured before the model is sharded
    entries = training_environments(run, args)
    splits, skips = held_out_rows(run, entries, begun)
    trainer = _prepare(run, args, entries)
    if found is not None and (written := BatchShape.written(found)) is not None:  # an early error, as above
        written.check(BatchShape.of(args), found, rows=args.per_device_train_batch_size)
    for sentence in idle_adapter_settings(run):
        trainer.warn(sentence)
    for source in trainer.sampling.sources:
        source.selector.skips = skips[source.name]
    held_out = _held_out(run, trainer, splits, console) if splits else None
    main = trainer.accelerator.is_main_process
    stop = StopOnSignal(console, trainer.accelerator)
    with _held(folder, trainer.accelerator):
        if checkpoint is None:
            _begin_folder(folder, asked, _described(run, entries, splits), trainer)
        else:
            console.print(resumes, highlight=False)
        if main:
            write_settings(folder, run, args)
        try:
            with StatusFile(folder, main=main) as status, explain_full_disk(folder):
                facts = facts_of(as_new_adapter(run), plain(asked))
                return _carry_out(run, trainer, held_out, checkpoint, console, stop, status, facts)
        except LostProcessError:
            stop.shield()  # the launcher's SIGTERM follows at once, and must not come before the line that explains it
            raise
        finally:
            stop.restore()


def _carry_out(
    run: RunConfig,
    trainer: DAPOTrainer,
    held_out: HeldOut | None,
    checkpoint: str | None,
    console: Console,
    stop: StopOnSignal,
    status: StatusFile,
    card: CardFacts,
) -> int:
    """Measure, train, save and report, once the folder is the run's; returns the exit code."""
    folder = Path(str(trainer.args.output_dir))
    metrics = WriteMetrics(MetricsFile(folder / "metrics.jsonl"))
    progress = _add_callbacks(trainer, [stop, metrics, held_out], console)
    trainer.on_saved = lambda saved, step: write_card(card, saved, step)
    console.print(_headline(run, trainer), highlight=False)
    before = held_out.measure("before") if held_out is not None and checkpoint is None else None
    if run.record_rollouts:
        trainer.recorder = _recorder(trainer, folder, run.record_rollouts)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except (NonFiniteError, LostProcessError, KeyboardInterrupt):
        _print_last_checkpoint(console, folder)
        raise
    finally:
        if trainer.recorder is not None:
            trainer.recorder.flush()
        progress.close()
    if stop.requested or trainer.alarms.stopped is not None:
        code = _end_early(trainer, folder, console, stop, status)
    else:
        code = _finish(run, trainer, folder, held_out, before, console, status, card)
    trainer.close()
    return code


def _add_callbacks(trainer: DAPOTrainer, callbacks: list[TrainerCallback | None], console: Console) -> ConsoleCallback:
    """The command's callbacks in place of Hugging Face's; returns the one that shows progress."""
    progress = ConsoleCallback(console)
    for default in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(default)
    for callback in (progress, *callbacks):
        if callback is not None:
            trainer.add_callback(callback)
    trainer.remove_callback(trainer.alarms)
    trainer.add_callback(trainer.alarms)  # last, so that an alarm stands below the line of its step
    trainer.on_activity, trainer.observers.on_round = progress.describe, progress.report
    return progress


def _end_early(trainer: DAPOTrainer, folder: Path, console: Console, stop: StopOnSignal, status: StatusFile) -> int:
    """The end of a run that a signal or an alarm stopped, with a checkpoint to resume from."""
    where = f"Stopped at step {trainer.state.global_step} of {trainer.state.max_steps}"
    if stop.requested:
        console.print(f"{where}. Continue with the same command and --resume_from_checkpoint latest.")
        status.end(INTERRUPTED, "By Ctrl-C or SIGTERM, after an optimizer step and with a checkpoint.")
        return EXIT_INTERRUPTED
    assert trainer.alarms.stopped is not None
    console.print(
        f"{where} by the alarm above (on_alarm is 'stop'). Continue with the same command, --resume_from_checkpoint "
        "latest and --on_alarm warn."
    )
    status.end(STOPPED, f"By the alarm '{trainer.alarms.stopped.name.replace('_', ' ')}' (on_alarm is 'stop').")
    if trainer.accelerator.is_main_process:
        console.print(_report(folder), highlight=False)
    return EXIT_STOPPED


def _finish(
    run: RunConfig,
    trainer: DAPOTrainer,
    folder: Path,
    held_out: HeldOut | None,
    before: Evaluation | None,
    console: Console,
    status: StatusFile,
    card: CardFacts,
) -> int:
    """The end of a run that came to its last step, or has solved its task: save, measure, report."""
    push, trainer.args.push_to_hub = trainer.args.push_to_hub, False  # pushed below, once it has its card
    trainer.save_model(str(folder / "model"))
    after = None
    if held_out is not None:
        after = held_out.measure("after")
        if run.eval_without_adapter:
            held_out.measure("without_adapter")
    early = trainer.state.global_step < trainer.state.max_steps
    status.end(FINISHED, f"Before its last step: {trainer.sampling.explain_solved()}" if early else "")
    if trainer.accelerator.is_main_process:
        console.print(_conclusion(trainer, folder, before, after), highlight=False)
        card.measured = {when: found.summary() for when, found in (("before", before), ("after", after)) if found}
        write_card(card, folder / "model", trainer.state.global_step)
        console.print("\n".join(how_to_use(card, folder / "model")), highlight=False, markup=False)
        if held_out is not None and held_out.best is not None:
            console.print(held_out.best.line(folder), highlight=False)
        console.print(_report(folder), highlight=False)
        if push:
            return _push(trainer, folder / "model", console)
    return 0


def _push(trainer: DAPOTrainer, model: Path, console: Console) -> int:
    """Push the saved model, as ``push_to_hub`` asks; returns the exit code."""
    args = trainer.args
    try:
        address = publish(model, str(trainer.hub_model_id), token=args.hub_token, revision=args.hub_revision)
    except ConfigError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return EXIT_NOT_PUSHED
    console.print(f"published: {address}", highlight=False, markup=False)
    return 0


def _held_out(run: RunConfig, trainer: DAPOTrainer, splits: dict[str, Split], console: Console) -> HeldOut:
    """The measurement of a run's held-out problems."""
    for name, split in splits.items():
        if split.note:
            console.print(f"{name}: {split.note}" if len(splits) > 1 else split.note, highlight=False)
    length, seed = trainer.max_completion_length, int(trainer.args.seed)
    return HeldOut(
        trainer,
        {name: HeldOutPart(split.env, split.indices, trainer.limits[name]) for name, split in splits.items()},
        console,
        samples=run.eval_samples,
        sampling=Sampling.like_training(run, trainer.args, length, seed),
        batch_tokens=run.eval_batch_tokens,
        every=run.eval_every,
    )


def _described(run: RunConfig, entries: Sequence[EnvEntry], splits: dict[str, Split]) -> dict[str, Any]:
    """The environments of a run as data, for its folder."""
    found = {
        entry.name: {
            "train": describe(entry.make()),
            **({"held_out": describe(splits[entry.name].env)} if entry.name in splits else {}),
        }
        for entry in entries
    }
    environments = found[entries[0].name] if len(entries) == 1 else {"environments": found}
    measured = plain({name: getattr(run, name) for name in MEASURED})
    apart = {"kept_apart": {name: split.kept_apart for name, split in splits.items()}} if splits else {}
    return {**environments, "measured": measured, **apart}


def _recorder(trainer: DAPOTrainer, folder: Path, count: int) -> RolloutRecorder:
    accelerator: Accelerator = trainer.accelerator
    return RolloutRecorder(
        folder / f"rollouts-{accelerator.process_index}.jsonl",
        trainer.processing_class,
        count=count,
        names=trainer.reward_func_names,
        envs=trainer.envs,
        max_bytes=MAX_BYTES // accelerator.num_processes,
    )


def _find_checkpoint(folder: Path, run: RunConfig, args: DAPOConfig) -> tuple[str | None, Path | None]:
    """The checkpoint to resume from as it was asked for, a path or "latest", and the one that is found; None twice for
    a new run, whose folder must not hold another run."""
    check_free(folder)
    wanted = str(args.resume_from_checkpoint)
    if wanted.lower() not in ("none", "no", "false"):
        return wanted, Path(choose(wanted, folder)[0])  # an early error; the trainer looks again, for all processes
    check_folder("output_dir", folder)
    found = _own_files(folder)
    if found and not (folder / "metrics.jsonl").exists():
        raise ConfigError(
            f"output_dir {folder} holds {found[0].name}, which the run would replace, and it is not the folder of a "
            "run: choose another --output_dir."
        )
    if found and not run.overwrite and _has_begun(folder):
        raise ConfigError(
            f"output_dir {folder} holds a run already: continue it with --resume_from_checkpoint latest, choose "
            "another --output_dir, or replace it with --overwrite true."
        )
    if any(path.resolve() in (given := Path(str(run.model)).resolve(), *given.parents) for path in found):
        raise ConfigError(
            f"model is {run.model}, which the run would replace with itself: choose another --output_dir than {folder}."
        )
    return None, None


def _own_files(folder: Path) -> list[Path]:
    """The files of an earlier run in a folder, empty folders not counted."""
    found = sorted(path for pattern in OWN_FILES for path in folder.glob(pattern))
    return [path for path in found if not path.is_dir() or any(path.iterdir())]


def _has_begun(folder: Path) -> bool:
    """Whether a run in a folder has left anything to lose: a model, or an optimizer step in its metrics."""
    kept = ("checkpoint-*", "model", BEST, f"{BEST}-old")
    if any(path for pattern in kept for path in folder.glob(pattern)):
        return True
    with (folder / "metrics.jsonl").open(encoding="utf-8", errors="replace") as lines:
        return any(re.search(r'"step": [1-9]', line) for line in lines)


@contextlib.contextmanager
def _held(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """The main process holds the folder of the run, which all processes have checked; made if it is not there.

    Raises:
        ConfigError: Another run holds it, or it cannot be written to; on all processes.
    """
    accelerator.wait_for_everyone()
    with contextlib.ExitStack() as held:
        problem: list[ConfigError | None] = [None]
        if accelerator.is_main_process:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(hold(folder))
            except ConfigError as error:
                problem = [error]
            except OSError as error:
                problem = [ConfigError(f"output_dir {folder} cannot be written: {error}")]
        [refused] = broadcast_object_list(problem)
        if refused is not None:
            raise refused
        yield


def training_environments(run: RunConfig, args: DAPOConfig) -> list[EnvEntry]:
    """The environments of a run, made, in their wrappers and asking as the settings say."""
    return [replace(entry, env=prompted(entry.make(), args), kwargs={}, wrappers=()) for entry in run.entries()]


def _split(run: RunConfig, entry: EnvEntry, env: gymnasium.Env) -> Split | None:
    """The held-out problems of an environment, whose reward is not shaped; None: nothing is measured.

    Args:
        entry: As the settings name it.
        env: The environment that is trained on.
    """
    if not run.eval_problems:
        return None
    measured = replace(entry, env=run.eval_env or entry.env)
    try:
        held_out = prompted_alike(measured.make(training=False), env)
    except ConfigError as error:
        if not entry.eval_kwargs:
            raise
        raise ConfigError(f"eval_env_kwargs is {brief(entry.eval_kwargs)}: {error}") from error
    if measured.env == entry.env and {**entry.kwargs, **entry.eval_kwargs} == entry.kwargs:
        return split_off(held_out, run.eval_problems)
    return measured_elsewhere(env, held_out, run.eval_problems)


def held_out_rows(
    run: RunConfig, made: Sequence[EnvEntry], begun: Path | None = None
) -> tuple[dict[str, Split], dict[str, Callable[[Mapping[str, Any]], bool]]]:
    """By the name of each environment its held-out problems, if any are measured, and whether a row is never trained
    on: those that a resumed run began with stay apart, whatever it measures now.

    Args:
        made: The environments that are trained on.
        begun: The folder of the run that is resumed; None: a new one.
    """
    before = {} if begun is None else measured_in(begun)
    changed = any(getattr(run, name) != value for name, value in before.items())
    earlier = replace(run, **before, eval_every=0, eval_without_adapter=False) if changed else None
    splits: dict[str, Split] = {}
    apart: dict[str, list[Split]] = {}
    trained = {entry.name: one.make() for entry, one in zip(run.entries(), made, strict=True)}
    for place, (entry, env) in enumerate(zip(run.entries(), trained.values(), strict=True)):
        apart[entry.name] = [] if (split := _split(run, entry, env)) is None else [split]
        if split is not None:
            splits[entry.name] = split
            if begun is not None:
                split.check_resumed(begun, entry.name)
        if earlier is not None and (other := _split(earlier, earlier.entries()[place], env)) is not None:
            apart[entry.name].append(other)
    skips = {
        name: rows_apart(env, apart[name], [split for other in apart if other != name for split in apart[other]])
        for name, env in trained.items()
    }
    return splits, skips


def _prepare(run: RunConfig, args: DAPOConfig, entries: Sequence[EnvEntry]) -> DAPOTrainer:
    """Make the trainer; every mistake is found here, before anything is written."""
    assert run.model is not None
    if run.record_verdicts:
        entries = [
            replace(entry, env=RecordVerdicts(entry.make(), Path(args.output_dir) / _verdicts(entry, entries, args)))
            for entry in entries
        ]
    check_targets(run)
    with explain_model_errors(run, args):
        trainer = DAPOTrainer(args=args, env=entries, **start_model(run, args))
        trainer.get_optimizer_cls_and_kwargs(args, trainer.model)  # some need a package, and say so
    return trainer


@contextlib.contextmanager
def explain_model_errors(run: RunConfig, args: DAPOConfig) -> Iterator[None]:
    """Turn what libraries raise while a model is loaded and its trainer made into one line.

    Raises:
        ConfigError: In place of the library's exception.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ConnectionError, HfHubHTTPError) as error:
        if not (args.use_vllm or args.push_to_hub or args.log_completions_hub_repo):
            raise
        name = "vLLM" if args.use_vllm else "the Hub"
        raise ConfigError(f"{name} cannot be used: {one_line(error)}") from error
    except RuntimeError as error:
        if not args.use_vllm:
            raise
        raise ConfigError(f"vLLM cannot be used: {one_line(error)}") from error
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"model is {run.model!r} and cannot be loaded: {first} (There is no such folder in {Path.cwd()} either.)"
        ) from error
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise ConfigError(one_line(error).replace("pip install trl[", "pip install dapo-trl[")) from error


def _verdicts(entry: EnvEntry, entries: Sequence[EnvEntry], args: DAPOConfig) -> str:
    """The file of an environment's verdicts."""
    return f"verdicts-{f'{entry.name}-' if len(entries) > 1 else ''}{args.process_index}.jsonl"


def _begin_folder(folder: Path, asked: dict[str, Any], described: dict[str, Any], trainer: DAPOTrainer) -> None:
    """Delete the files of an earlier run, and no others; write the settings and the environments."""
    if trainer.accelerator.is_main_process:
        try:
            for path in _own_files(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if trainer.log_completions:
                (folder / COMPLETIONS).mkdir(exist_ok=True)
            (folder / "metrics.jsonl").touch()  # from now on this is the folder of a run
            shown = {name: value for name, value in plain(asked).items() if not name.endswith("_token")}  # secrets
            (folder / "config.yaml").write_text(yaml.safe_dump(shown, sort_keys=False), encoding="utf-8")
            (folder / RECORD).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"output_dir {folder} cannot be written: {error}") from error
    trainer.accelerator.wait_for_everyone()


def _headline(run: RunConfig, trainer: DAPOTrainer) -> str:
    model, args = trainer.model, trainer.args
    size = f"{weight_count(model) / 1e6:,.1f} M weights"
    if isinstance(model, PeftModel):
        trained, weights = model.get_nb_trainable_parameters()
        size = f"{(weights - trained) / 1e6:,.1f} M weights, an adapter of {trained / 1e6:,.2f} M trained"
    return (
        f"{run.model} ({size}) on {run.env_text}, {trainer.accelerator.num_processes} process(es) "
        f"on {trainer.accelerator.device.type}: {args.groups_per_rollout} groups of {args.num_generations} per rollout "
        f"batch, {args.updates_per_rollout} update(s) on each."
    )


def _report(folder: Path) -> str:
    """Write the report; an error in it does not fail the run."""
    try:
        return f"report: {write_report([folder])}   (dapo-trl report {folder} writes it again)"
    except Exception as error:
        return f"report: not written ({type(error).__name__}: {one_line(error)})"


def _conclusion(trainer: DAPOTrainer, folder: Path, before: Evaluation | None, after: Evaluation | None) -> str:
    lines = [""]
    if after is not None:
        if before is not None:
            lines.append(f"held-out accuracy before: {figure(before)}")
        lines.append(f"held-out accuracy after:  {figure(after)}")
        if before is not None:
            lines.append(f"gain, problem by problem: {gain(before, after)}")
        for level, value in after.by_level().items():
            earlier = f"{before.by_level().get(level, float('nan')):.3f} -> " if before is not None else ""
            lines.append(f"  {level if trainer.sampling.mixes else f'level {level}'}: {earlier}{value:.3f}")
    if trainer.sampling.mixes:
        lines += [_share(source, trainer.sampling) for source in trainer.sampling.sources]
    lines.append(trainer.sampling.counts.summary(filtered=trainer.args.filters_groups))
    lines.append(trainer.sampling.ledger.summary())
    lines.append(f"model: {folder / 'model'}   metrics: {folder / 'metrics.jsonl'}")
    return "\n".join(lines)


def _share(source: Source, sampling: SamplingState) -> str:
    """One line on what an environment of a mixture had of the run."""
    everything = max(sum(other.trained for other in sampling.sources), 1)
    exact = source.weight / sum(other.weight for other in sampling.sources)
    rests = f"; rests since it has nothing to teach ({source.counts.all_right} groups all correct)"
    return (
        f"{source.name}: {source.trained:,} groups trained on, {source.trained / everything:.1%} of all (weight "
        f"{exact:.1%}), {source.ledger.generated:,} tokens generated"
        f"{'' if source.rest.is_over(sampling.rollout_batches) else rests}."
    )


def _print_last_checkpoint(console: Console, folder: Path) -> None:
    last, _ = last_complete(folder)
    if last is not None:
        console.print(f"The last checkpoint is {last}: resume with --resume_from_checkpoint latest.")
