"""Held-out accuracy of a run: before, after, and every ``eval_every`` optimizer steps; the best model is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
from accelerate.utils import gather_object
from rich.console import Console
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..distributed import able_to_generate, in_step
from ..generation.vllm import ROWS, VLLMBackend
from ..monitor.console import counted, tenths
from ..trainer import DAPOTrainer
from .estimators import avg_at_k, difference
from .evaluator import BATCH_TOKENS, UNBOUNDED, Sampling, evaluate, evaluated_at_once
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


@dataclass(frozen=True)
class HeldOutPart:
    """The held-out problems of one environment."""

    env: gymnasium.Env
    problems: Sequence[int]
    """Rows of the environment that are measured."""
    max_completion_length: int
    """Longest completion, in tokens."""


class HeldOut(TrainerCallback):
    """Measures a trainer's model on held-out problems, all processes together.

    A measurement changes nothing in training. With vLLM it runs through the trainer's engine, but that of the base
    without the adapter. During training it is logged under ``eval_...`` (`monitor.metrics`), and
    the model with the highest accuracy is kept in ``best/``.

    Args:
        trainer: the trainer; its ``on_activity`` is called with the progress of a measurement.
        parts: what is measured of each environment, by its name. Of several, the accuracy is that of all problems
            together, and the names stand in place of their levels.
        console: prints each measurement.
        samples: completions of each problem.
        sampling: how they are drawn.
        batch_tokens: most tokens of a batch, prompts and room for completions together.
        every: optimizer steps from one measurement to the next during training; 0: none.
    """

    def __init__(
        self,
        trainer: DAPOTrainer,
        parts: Mapping[str, HeldOutPart],
        console: Console,
        *,
        samples: int,
        sampling: Sampling,
        batch_tokens: int = BATCH_TOKENS,
        every: int = 0,
    ):
        self.trainer, self.parts, self.console = trainer, parts, console
        self.samples, self.sampling = samples, sampling
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
            self._print(f"{what}: {figure(found)}", found)
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
        by_env = {
            f"env/{env}/{name}": x for env, part in self._by_env(found).items() for name, x in logged(part).items()
        }
        Trainer.log(trainer, logged(found) | by_env)  # not trainer.log: the step's own log is not complete yet
        trainer.control.should_log = due
        note = " (the best so far)" if better else ""
        self._print(f"{step:>6}  held-out accuracy {figure(found)}{note}", found, style="cyan")

    def _print(self, line: str, found: Evaluation, **style: Any) -> None:
        """Print a measurement, and one line more for each environment of several."""
        self.console.print(line, highlight=False, **style)
        for name, part in self._by_env(found).items():
            self.console.print(f"        {name}: {figure(part)}", highlight=False, **style)

    def _by_env(self, found: Evaluation) -> dict[str, Evaluation]:
        """A measurement environment by environment; empty where there is one alone."""
        return found.levels_apart() if len(self.parts) > 1 else {}

    def _evaluate(self, on_batch: Callable[[int, int], None], *, adapter: bool = True) -> Evaluation:
        counts = {name: len(self._mine(part)) * self.samples for name, part in self.parts.items()}
        found: dict[str, Evaluation] = {}
        for name, part in self.parts.items():
            before = sum(counts[other] for other in found)

            def count(done: int, _: int, before: int = before) -> None:
                on_batch(before + done, sum(counts.values()))

            found[name] = self._evaluate_part(part, count, adapter=adapter)
        if len(found) == 1:
            return next(iter(found.values()))
        return merge([replace(one, levels=[name] * len(one.levels)) for name, one in found.items()])

    def _mine(self, part: HeldOutPart) -> Sequence[int]:
        """The problems that this process measures."""
        accelerator = self.trainer.accelerator
        return part.problems[accelerator.process_index :: accelerator.num_processes]

    def _evaluate_part(self, part: HeldOutPart, on_batch: Callable[[int, int], None], *, adapter: bool) -> Evaluation:
        trainer, accelerator = self.trainer, self.trainer.accelerator
        on_cpu = trainer.accelerator.device.type == "cpu"
        at_once = evaluated_at_once(trainer.args, on_cpu=on_cpu)
        options: dict[str, Any] = {"batch_tokens": self.batch_tokens, "max_rows": at_once}
        with ExitStack() as stack:
            if isinstance(trainer.backend, VLLMBackend) and adapter:
                model: Any = accelerator.unwrap_model(trainer.model)
                stack.enter_context(trainer.backend.session())
                options = {"batch_tokens": UNBOUNDED, "max_rows": ROWS, "sample": trainer.backend.sample_turns}
                options |= in_step(accelerator, trainer.backend.in_step)
            else:
                model = stack.enter_context(able_to_generate(trainer.model_wrapped, accelerator, trainer.args))
                stack.enter_context(accelerator.autocast())  # as in training, also before the model is prepared for it
                options |= in_step(accelerator)
                if not adapter:
                    stack.enter_context(model.disable_adapter())
            found = evaluate(
                model,
                trainer.processing_class,
                part.env,
                self._mine(part),
                k=self.samples,
                sampling=replace(self.sampling, max_completion_length=part.max_completion_length),
                chat_template_kwargs=trainer.chat_format.template,
                on_batch=on_batch,
                **options,
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
