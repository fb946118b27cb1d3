"""Held-out accuracy of a run: before, after, and every ``eval_every`` optimizer steps; the best model is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
from accelerate.utils import gather_object
from rich.console import Console
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..distributed import able_to_generate, in_step
from ..monitor.console import counted, tenths
from ..trainer import DAPOTrainer
from .estimators import avg_at_k, difference
from .evaluator import BATCH_TOKENS, Sampling, evaluate, evaluated_at_once
from .journal import write
from .results import Evaluation, merge

BEST = "best"
_RECORD = "held_out.json"


@dataclass(frozen=True)
class Best:
    """The best measurement of a run so far."""

    step: int
    accuracy: float
    interval_95: tuple[float, float]

    def line(self, run: Path) -> str:
        """The measurement in one line, with the caveat of a maximum."""
        low, high = self.interval_95
        return (
            f"best: {run / BEST}, of step {self.step}, {self.accuracy:.3f}  95 % interval {low:.3f} to {high:.3f} (the "
            "highest of several is too high by chance: measure it on other problems)"
        )


class HeldOut(TrainerCallback):
    """Measures a trainer's model on held-out problems, all processes together.

    A measurement changes nothing in training. During training it is logged under ``eval_...`` (`monitor.metrics`), and
    the model with the highest accuracy is kept in ``best/``.

    Args:
        trainer: the trainer; its ``on_activity`` is called with the progress of a measurement.
        env: the held-out environment.
        console: prints each measurement.
        problems: rows of the environment that are measured.
        samples: completions of each problem.
        sampling: how they are drawn.
        batch_tokens: most tokens of a batch, prompts and room for completions together.
        every: optimizer steps from one measurement to the next during training; 0: none.
    """

    def __init__(
        self,
        trainer: DAPOTrainer,
        env: gymnasium.Env,
        console: Console,
        *,
        problems: Sequence[int],
        samples: int,
        sampling: Sampling,
        batch_tokens: int = BATCH_TOKENS,
        every: int = 0,
    ):
        self.trainer, self.env, self.console = trainer, env, console
        self.problems, self.samples, self.sampling = problems, samples, sampling
        self.batch_tokens, self.every = batch_tokens, every
        self.folder = Path(str(trainer.args.output_dir))
        self.best: Best | None = None
        self._last: tuple[int, Evaluation] | None = None
        """The last measurement and its step."""

    def measure(self, when: str) -> Evaluation:
        """Measure the model "before" or "after" training, or its base "without_adapter"; print the accuracy and write
        ``evaluation_<when>.json``."""
        step, base = self.trainer.state.global_step, when == "without_adapter"
        what = "held-out accuracy without the adapter" if base else f"held-out accuracy {when} training"
        if self._last is not None and self._last[0] == step and not base:
            found = self._last[1]
        else:
            with counted(self.console, what) as on_batch:
                found = self._evaluate(on_batch, adapter=not base)
            if when == "after" and self.every:  # training ended before its last step
                self._keep_if_best(step, found)
        if self.trainer.accelerator.is_main_process:
            write(self.folder / f"evaluation_{when}.json", found.summary())
            self.console.print(f"{what}: {figure(found)}", highlight=False)
        return found

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        record = self.folder / BEST / _RECORD
        if state.global_step and record.is_file():  # a resumed run
            fields = json.loads(record.read_text(encoding="utf-8"))
            self.best = Best(**{**fields, "interval_95": tuple(fields["interval_95"])})
        if state.global_step and not any(_is_of(row, state.global_step) for row in state.log_history):
            self._measure_if_due(state)  # it was stopped right before

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not control.should_training_stop or state.global_step >= state.max_steps:  # an interruption comes first
            self._measure_if_due(state)

    def _measure_if_due(self, state: TrainerState) -> None:
        trainer, step = self.trainer, state.global_step
        if not self.every or (step % self.every and step < state.max_steps):
            return
        lines = tenths(self.console, f"measuring at step {step}")

        def on_batch(done: int, total: int) -> None:
            trainer.on_activity(f"measuring, {done} of {total}")
            lines(done, total)

        found = self._evaluate(on_batch)
        trainer.on_activity("")
        self._last = step, found
        better = self._keep_if_best(step, found)
        due = trainer.control.should_log
        Trainer.log(trainer, logged(found))  # not trainer.log: the step's own log is not complete yet
        trainer.control.should_log = due
        note = " (the best so far)" if better else ""
        self.console.print(f"{step:>6}  held-out accuracy {figure(found)}{note}", highlight=False, style="cyan")

    def _evaluate(self, on_batch: Callable[[int, int], None], *, adapter: bool = True) -> Evaluation:
        trainer, accelerator = self.trainer, self.trainer.accelerator
        mine = self.problems[accelerator.process_index :: accelerator.num_processes]
        with (
            able_to_generate(trainer.model_wrapped, accelerator, trainer.args) as model,
            accelerator.autocast(),  # as in training, also before the model is prepared for it
            nullcontext() if adapter else model.disable_adapter(),
        ):
            found = evaluate(
                model,
                trainer.processing_class,
                self.env,
                mine,
                k=self.samples,
                sampling=self.sampling,
                batch_tokens=self.batch_tokens,
                max_rows=evaluated_at_once(trainer.args),
                chat_template_kwargs=trainer.chat_format.template,
                on_batch=on_batch,
                **in_step(accelerator),
            )
        return merge(gather_object([found]))

    def _keep_if_best(self, step: int, found: Evaluation) -> bool:
        """Save the model if the measurement is the best so far; the one before stays until the new one is complete.

        Returns:
            whether it is the best.
        """
        if not found.mean > (-1.0 if self.best is None else self.best.accuracy):
            return False
        self.best = Best(step, found.mean, found.interval())
        accelerator, kept = self.trainer.accelerator, self.folder / BEST
        scratch, aside = (self.folder / f"{BEST}-{name}" for name in ("new", "old"))
        self.trainer.save_model(str(scratch))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write(scratch / _RECORD, asdict(self.best))
            shutil.rmtree(aside, ignore_errors=True)
            if kept.exists():
                kept.rename(aside)
            scratch.rename(kept)
            shutil.rmtree(aside, ignore_errors=True)
        accelerator.wait_for_everyone()
        return True


def figure(found: Evaluation) -> str:
    """avg@k in one line, with the sampling that it belongs to."""
    low, high = found.interval()
    problems, samples = found.accuracy.shape
    return (
        f"{found.mean:.3f}  95 % interval {low:.3f} to {high:.3f}  ({problems} problems x {samples} samples, "
        f"temperature {found.temperature:g}, top_p {found.top_p:g})"
    )


def gain(before: Evaluation, after: Evaluation) -> str:
    """The paired difference of two measurements of the same problems, in one line."""
    value, (low, high) = difference(avg_at_k(before.accuracy), avg_at_k(after.accuracy))
    return f"{value:+.3f}  95 % interval {low:+.3f} to {high:+.3f}"


def logged(found: Evaluation) -> dict[str, float]:
    """The metrics of a measurement; see `monitor.metrics.METRICS`."""
    summary = found.summary()
    low, high = found.interval()
    values = {
        "accuracy": found.mean,
        "accuracy_low": low,
        "accuracy_high": high,
        "pass_at_k": summary["by_k"][-1]["pass_at_k"],
        "maj_at_k": summary["by_k"][-1]["maj_at_k"],
        "truncated": summary["truncated"],
        "mean_length": summary["mean_length"],
    }
    return {f"eval_{name}": value for name, value in values.items() if value is not None}


def _is_of(row: dict[str, Any], step: int) -> bool:
    return row.get("step") == step and "eval_accuracy" in row
