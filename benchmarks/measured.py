"""What the benchmarks that train share: runs that are measured on held-out problems as they go, side by side."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measurement:
    """What a run had cost, and what its model could do by then.

    Attributes:
        step: Optimizer steps.
        completions: Completions generated for training, dropped ones included.
        tokens: Their tokens.
        seconds: Processor time of training on the run's one thread, without that of measuring.
        accuracy: Mean held-out accuracy (avg@k).
        truncated: Share of the held-out completions that were cut off.
    """

    step: int
    completions: int
    tokens: int
    seconds: float
    accuracy: float
    truncated: float


@contextlib.contextmanager
def settings_of(files: Sequence[Path], **flags: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """What `load_settings` makes of configuration files and flags, for a silent run in a folder that does not stay."""
    from dapo_trl.run.settings import load_settings

    with tempfile.TemporaryDirectory() as folder:
        given = {"output_dir": folder, "disable_tqdm": True, "report_to": "[]", **flags}
        yield load_settings(files, [text for name, value in given.items() for text in (f"--{name}", str(value))])


def ours(run: Any, args: Any) -> tuple[Any, Callable[[], tuple[int, int]]]:
    """A `DAPOTrainer` of such settings, and what tells the completions and the tokens that it has generated."""
    from dapo_trl import DAPOTrainer
    from dapo_trl.rollout.environments import make_env

    trainer = DAPOTrainer(model=str(ROOT / run.model), args=args, env=make_env(run.env, **run.env_kwargs))
    sampling = trainer.sampling
    return trainer, lambda: (sampling.counts.sampled * args.num_generations, sampling.ledger.generated)


def measure(
    trainer: Any,
    run: Any,
    *,
    problems: int,
    samples: int,
    every: int,
    generated: Callable[[], tuple[int, int]],
    enough: Callable[[Sequence[Measurement]], bool],
) -> list[Measurement]:
    """Let a trainer measure its model before the first step and then after every so many, and print nothing.

    Args:
        trainer: Ours or TRL's, not yet started.
        run: The settings that name the held-out environment.
        problems: Its first so many rows are measured.
        samples: Completions of each.
        every: Optimizer steps between two measurements.
        generated: Returns the completions and the tokens generated so far.
        enough: Asked after every measurement whether training is to end.

    Returns:
        The measurements, a list that fills while the trainer trains.
    """
    from transformers import PrinterCallback, TrainerCallback

    from dapo_trl.evaluation import Sampling, evaluate
    from dapo_trl.rollout.environments import make_env

    env = make_env(run.env, **{**run.env_kwargs, **run.eval_env_kwargs})
    measured: list[Measurement] = []

    class Measure(TrainerCallback):
        seconds = 0.0
        since = 0.0

        def on_train_begin(self, args, state, control, **kwargs):
            self.look(state)

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % every == 0:
                self.seconds += time.process_time() - self.since
                self.look(state)
                control.should_training_stop = control.should_training_stop or enough(measured)

        def look(self, state):
            length = trainer.args.max_completion_length
            drawn = Sampling(temperature=1.0, top_p=1.0, max_completion_length=length, seed=state.global_step)
            tokenizer = trainer.processing_class
            found = evaluate(trainer.model, tokenizer, env, range(problems), k=samples, sampling=drawn)
            cost = (state.global_step, *generated(), self.seconds)
            measured.append(Measurement(*cost, found.mean, float(found.truncated.mean())))
            self.since = time.process_time()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Measure())
    return measured


def quieten() -> None:
    """One thread, and none of the libraries' own output, in a process that runs beside others."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def carry_out(work: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], folder: Path) -> Iterator[tuple[str, Any]]:
    """Carry out runs side by side, each in a process of its own, as many at once as there are cores, and keep them.

    Args:
        work: Carries one out, and returns what is to be kept as JSON.
        jobs: Its arguments, by the name of the run's file. A run whose file is there is not carried out again.
        folder: Where the files are.

    Yields:
        Each run as it ends: its name and what `work` returned.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    folder.mkdir(parents=True, exist_ok=True)
    left = {name: job for name, job in jobs.items() if not (folder / f"{name}.json").exists()}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context, max_tasks_per_child=1) as pool:
        names = {pool.submit(work, *job): name for name, job in left.items()}
        for done in concurrent.futures.as_completed(names):
            (folder / f"{names[done]}.json").write_text(json.dumps(done.result()) + "\n")
            yield names[done], done.result()


def kept(folder: Path) -> list[Any]:
    """The runs that are in a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def write_runs(runs: Sequence[Any], path: Path) -> None:
    """The raw data of runs, a line each, beside the file of their claims."""
    path.with_suffix(".runs.json").write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")


def peak_memory(train: Callable[[Callable[[], None]], Any]) -> int:
    """Bytes that tensors take at the peak of a training beyond those at its beginning.

    Args:
        train: Trains, and calls its argument when everything is ready to begin.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        train(recorder.start)
        recorder.stop()
        events = recorder.profiler.kineto_results.events()
        return max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))
    started = [0]

    def begin() -> None:
        torch.cuda.reset_peak_memory_stats()
        started[0] = torch.cuda.memory_allocated()

    train(begin)
    return torch.cuda.max_memory_allocated() - started[0]
