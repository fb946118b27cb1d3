"""Callbacks of a run: the metrics file, alarms, the diagnosis at its end, a clean stop on Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..config import DAPOConfig
from .alarms import Alarm, AlarmWatch
from .diagnosis import why_nothing_is_learnt
from .metrics_file import MetricsFile

logger = logging.getLogger("dapo_trl")


class WriteMetrics(TrainerCallback):
    """Writes every log to the metrics file; a resumed run continues where its checkpoint was."""

    def __init__(self, file: MetricsFile):
        self.file = file

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.file.begin(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            self.file.append(state.global_step, logs)


class NothingLearnt(TrainerCallback):
    """Logs at the end of a run that learnt nothing why it did not; one that was stopped early is not judged."""

    def __init__(self, updates_per_rollout: int):
        self.updates_per_rollout = updates_per_rollout
        self._trained = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trained = state.global_step < state.max_steps

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self._trained or state.global_step < state.max_steps:
            return
        sentence = why_nothing_is_learnt(state.log_history, updates_per_rollout=self.updates_per_rollout)
        if sentence and state.is_world_process_zero:
            logger.warning(sentence)


class SoundAlarms(TrainerCallback):
    """Logs alarms, and saves a checkpoint or stops as ``on_alarm`` asks; the same on all processes."""

    def __init__(self, args: DAPOConfig, accelerator: Accelerator):
        self.action = args.on_alarm
        self.settings = args.to_dict()
        self.accelerator = accelerator
        self.stopped: Alarm | None = None
        """The alarm that ended the run; None: no alarm did."""
        self._watch = AlarmWatch(self.settings)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._watch = AlarmWatch(self.settings)
        for row in state.log_history:  # of a resumed run; its alarms have been logged
            self._watch.see(row)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        raised = self._watch.see({**(logs or {}), "step": state.global_step})
        if self.accelerator.num_processes > 1:
            [raised] = broadcast_object_list([raised])
        for alarm in raised:
            if state.is_world_process_zero:
                logger.warning(str(alarm))
            control.should_save |= self.action != "warn"
            if self.action == "stop":
                control.should_training_stop, self.stopped = True, alarm
        return control


class StopOnSignal(TrainerCallback):
    """Ctrl-C or SIGTERM ends training after the optimizer step in progress, with a checkpoint to resume from.

    A second Ctrl-C stops at once. All processes stop at the same step, whichever of them got the signal.
    """

    def __init__(self, console: Console, accelerator: Accelerator):
        self.console = console
        self.accelerator = accelerator
        self.requested = False
        self._previous: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.console.print(
            "Stopping after this optimizer step, with a checkpoint. Once more stops at once, without one."
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.accelerator.num_processes > 1:
            flag = torch.tensor(float(self.requested), device=self.accelerator.device)
            self.requested = bool(self.accelerator.reduce(flag, reduction="sum") > 0)
        if self.requested:
            control.should_save = True
            control.should_training_stop = True
        if self.requested or state.global_step >= state.max_steps:
            control.should_log = True  # whatever logging_steps is, the last step is shown
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()

    def shield(self) -> None:
        """Ignore SIGTERM from now on: this process is about to end by itself, with an error to print."""
        self._previous.pop(signal.SIGTERM, None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def restore(self) -> None:
        """Put the signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
