"""The console of a run: a progress bar and one line of figures per logged step."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

COLUMNS: list[tuple[str, str, str]] = [
    # heading, metric, format
    ("reward", "reward/sampled", "{:z7.3f}"),
    ("accuracy", "accuracy/sampled", "{:8.3f}"),
    ("trained", "accuracy/trained", "{:7.3f}"),
    ("entropy", "entropy", "{:z7.3f}"),
    ("length", "completions/mean_length", "{:6.0f}"),
    ("clip-", "clip_ratio/low_mean", "{:6.2%}"),
    ("clip+", "clip_ratio/high_mean", "{:6.2%}"),
    ("wrong", "groups/all_wrong", "{:5.0f}"),
    ("right", "groups/all_right", "{:5.0f}"),
    ("refill", "sampling/refill_rounds", "{:6.0f}"),
    ("tok/s", "throughput/tokens_per_second", "{:6.0f}"),
]
LEGEND = (
    "accuracy: all completions sampled; trained: completions that passed the group filter.\n"
    "clip-/clip+: tokens clipped at the lower and the upper bound. refill: extra rounds of sampling.\n"
    "wrong/right: groups dropped because every completion was wrong or correct. -: nothing new sampled."
)
HEADER_EVERY = 25


def heading() -> str:
    """The heading of the step lines."""
    return " ".join([f"{'step':>6}", *(f"{name:>{_width(form)}}" for name, _, form in COLUMNS)])


def step_line(step: int, logs: dict[str, float]) -> str:
    """One line of at most 100 columns; a figure that this step did not log shows as a dash."""
    cells = []
    for _, metric, form in COLUMNS:
        value = logs.get(metric)
        cells.append(f"{'-':>{_width(form)}}" if value is None else form.format(value))
    return " ".join([f"{step:>6}", *cells])


def _width(form: str) -> int:
    return len(form.format(0.0))


class ConsoleHandler(logging.Handler):
    """Prints log records among the step lines, each as one line."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's message."""
        self.console.print(record.getMessage(), style="yellow", highlight=False, markup=False, soft_wrap=True)


class ConsoleCallback(TrainerCallback):
    """Prints step lines, and keeps a progress bar below them on a terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.progress = progress_bar(console)
        self._task: TaskID | None = None
        self._lines = 0

    def describe(self, activity: str) -> None:
        """Show in the bar the activity within the step."""
        if self._task is not None:
            self.progress.update(self._task, activity=activity)

    def report(self, line: str) -> None:
        """Print what has been done, where there is no bar to show it."""
        if not self.console.is_terminal:
            self.console.print(f"        {line}", highlight=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if 0 < state.max_steps <= state.global_step:
            done = f"step {state.global_step}, and max_steps is {state.max_steps}"
            self.console.print(f"Nothing is left to train: the checkpoint is of {done}.", highlight=False)
            return
        self.console.print(f"[dim]{LEGEND}[/dim]")
        self._task = self.progress.add_task("training", total=state.max_steps, completed=state.global_step, activity="")
        self.progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._task is not None:
            self.progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        if self._lines % HEADER_EVERY == 0:
            self.console.print(heading(), style="bold", highlight=False)
        self._lines += 1
        self.console.print(step_line(state.global_step, logs), highlight=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the progress bar."""
        self.progress.stop()


def progress_bar(console: Console) -> Progress:
    """A bar with time left; nothing at all when the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[activity]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def tenths(console: Console, what: str) -> Callable[[int, int], None]:
    """A function that takes the number done and the total: it prints a line per tenth where there is no terminal."""
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth > shown and done < total and not console.is_terminal:
            console.print(f"{what}: {done:,} of {total:,} completions", highlight=False)
        shown = max(tenth, shown)

    return show


@contextlib.contextmanager
def counted(console: Console, what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """As `tenths`, with a bar on a terminal."""
    lines = tenths(console, what)
    with progress_bar(console) as bar:
        task = bar.add_task(what, total=total, activity="")

        def show(done: int, total: int) -> None:
            lines(done, total)
            bar.update(task, completed=done, total=total)

        yield show
