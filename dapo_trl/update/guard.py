"""The last word before an update: a loss or gradient that is not finite ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from accelerate.utils import DistributedType

from ..errors import NonFiniteError
from .microbatches import OptimizerStep, update_state

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer


def stop_at_non_finite(trainer: DAPOTrainer, update: OptimizerStep | None, loss: float, grad_norm: Any) -> NoReturn:
    """Save the rows of the optimizer step beside the run, and stop.

    Raises:
        NonFiniteError: always.
    """
    step, process = trainer.state.global_step, trainer.accelerator.process_index
    path = Path(str(trainer.args.output_dir)) / f"non_finite_step_{step}_process_{process}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"step": step, "update": update and update_state(update)}, path)
    if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:  # its engine updates within the backward
        when = "after the update: go back to a checkpoint"
    else:
        when = "before the update, so the weights are those of the step before"
    raise NonFiniteError(
        f"step {step}: the loss is {loss} and the gradient norm {grad_norm}. Training stopped {when}; the batch is in "
        f"{path}. Lower learning_rate or max_grad_norm, or look at the rewards of that batch."
    )
