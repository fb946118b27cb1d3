"""A trainer whose checkpoints are complete or not used at all."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints
from trl import GRPOTrainer

from ..distributed import explain_lost_process
from ..errors import ConfigError
from .batch_shape import BatchShape
from .files import begin, choose, finish, load_states, remove_torn, save_state, signature

OF_SETTINGS = ("initial_lr", "weight_decay", "betas", "eps", "momentum")
"""Entries of an optimizer's groups that are settings; the others are state."""
logger = logging.getLogger("dapo_trl")


class ResumableTrainer(GRPOTrainer):
    """Adds the state that `GRPOTrainer` leaves out to each checkpoint, and never resumes from an incomplete one.

    A subclass supplies that state: `own_state`, `everyones_state` and `load_states`.
    """

    on_saved: Callable[[Path, int], None] | None = None
    """Called with a folder in which weights were saved and the optimizer step, before a checkpoint is complete."""

    def own_state(self) -> dict[str, Any]:
        """The state of this process alone."""
        raise NotImplementedError

    def everyones_state(self) -> dict[str, Any]:
        """The state that all processes share; the main process's is saved."""
        raise NotImplementedError

    def load_states(self, own: list[dict[str, Any]], everyones: dict[str, Any]) -> None:
        """Restore the state of this process and the shared one.

        Args:
            own: The state of this process alone, or those of all processes that wrote the checkpoint, if these were
                more or fewer than now.
        """
        raise NotImplementedError

    def warn(self, line: str) -> None:
        """Log a warning once, not on every process."""
        if self.accelerator.is_main_process:
            logger.warning(line)

    def close(self) -> None:
        """Leave the process group, at the end of a script on several processes: first what uses it, all together."""
        self.model_wrapped = cast(nn.Module, self.model)
        self.accelerator.free_memory()
        for name in ("vllm_generation", "backend"):  # the engine leaves groups of its own, while they can be left
            vars(self).pop(name, None)
        self.accelerator.wait_for_everyone()
        gc.collect()
        self.accelerator.end_training()

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, as any Hugging Face trainer does; a torn checkpoint is never resumed from.

        Args:
            resume_from_checkpoint: ``True`` or ``"latest"`` for the newest complete checkpoint in ``output_dir``, or a
                checkpoint's path. Each torn one that is skipped is named in a warning, with the one used in its place.

        Raises:
            ConfigError: there is no complete checkpoint to resume from.
            LostProcessError: another process ended, or did not answer within ``ddp_timeout``.
        """
        if resume_from_checkpoint is not None and resume_from_checkpoint is not False:
            resume_from_checkpoint = self._choose_checkpoint(resume_from_checkpoint)
        with explain_lost_process():
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _choose_checkpoint(self, wanted: str | Path | bool) -> str:
        """The main process looks, so that all resume from the same checkpoint."""
        answer: list[tuple[str, list[str]] | ConfigError | None] = [None]
        if self.accelerator.is_main_process:
            try:
                answer = [choose(wanted, str(self.args.output_dir))]
            except ConfigError as error:
                answer = [error]
        [found] = broadcast_object_list(answer)
        if isinstance(found, ConfigError):
            raise found
        path, lines = found
        for line in lines:
            self.warn(line)
        return path

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if self.on_saved is not None:
            self.on_saved(Path(str(output_dir or self.args.output_dir)), self.state.global_step)

    def _save_checkpoint(self, model, trial):
        """Save a checkpoint; nothing is deleted or pushed before it is complete."""
        run_dir = self._get_output_dir(trial=trial)
        folder = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            begin(folder)
        self.accelerator.wait_for_everyone()
        self.state.stateful_callbacks.update(signature(self.state.global_step))  # type: ignore[union-attr]
        limit, push = self.args.save_total_limit, self.args.push_to_hub
        self.args.save_total_limit, self.args.push_to_hub = None, False
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit, self.args.push_to_hub = limit, push
        state = self.own_state()
        if self.accelerator.is_main_process:
            state["everyones"] = self.everyones_state()
        save_state(folder, self.accelerator.process_index, state)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            torch.save(self.args, folder / TRAINING_ARGS_NAME)  # with the limit and the push as they are
            finish(folder, BatchShape.of(cast(Any, self.args)).state_dict())
        if push:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save and limit is not None and limit > 0:
            remove_torn(run_dir)
            rotate_checkpoints(run_dir, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _issue_warnings_after_load(self, load_result):
        """Weights that share their storage are saved under one of their names: the others are not missing."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _keep_settings(self, asked: list[dict[str, Any]]) -> None:
        """Have the settings of this start act, where the optimizer's state has brought those of the checkpoint."""
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        for place, (group, own) in enumerate(zip(cast(Optimizer, self.optimizer).param_groups, asked, strict=True)):
            group.update(own)
            if isinstance(scheduler, LambdaLR):
                scheduler.base_lrs[place] = own["initial_lr"]
                group["lr"] = own["initial_lr"] * scheduler.lr_lambdas[place](scheduler.last_epoch)
                scheduler._last_lr[place] = group["lr"]

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        groups = cast(Optimizer, self.optimizer).param_groups
        asked = [{name: group[name] for name in OF_SETTINGS if name in group} for group in groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        self._keep_settings(asked)
        written, args = BatchShape.written(checkpoint), cast(Any, self.args)
        if written is None:
            self.warn(f"{checkpoint} holds no state of the prompt stream: prompts start from the first again.")
            return
        now = BatchShape.of(args)
        written.check(now, checkpoint, rows=args.per_device_train_batch_size)
        everyone = list(range(written.processes))
        own = load_states(checkpoint, [self.accelerator.process_index] if len(everyone) == now.processes else everyone)
        [everyones] = broadcast_object_list([own[0].get("everyones")])
        self.load_states(own, everyones)
