"""The shape of a rollout batch, by which a run goes on with another number of processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import DAPOConfig
from ..errors import ConfigError
from .files import MANIFEST, state_file


@dataclass(frozen=True)
class BatchShape:
    """How a rollout batch is divided. All but the number of processes must stay the same when a run is resumed."""

    completions: int
    """Completions of a rollout batch, all processes."""
    num_generations: int
    updates: int
    """Optimizer steps of one pass over a rollout batch."""
    processes: int
    settings_for: int
    """Processes that the settings as given are for: those of the first start."""

    @classmethod
    def of(cls, args: DAPOConfig) -> BatchShape:
        return cls(
            completions=args.groups_per_rollout * args.num_generations,
            num_generations=args.num_generations,
            updates=args.updates_per_pass,
            processes=args.world_size,
            settings_for=args.settings_for or args.world_size,
        )

    @classmethod
    def written(cls, checkpoint: str | Path) -> BatchShape | None:
        """The shape in a complete checkpoint; None where plain TRL wrote it.

        Raises:
            ConfigError: An earlier version wrote it.
        """
        manifest = Path(checkpoint) / MANIFEST
        shape = json.loads(manifest.read_text(encoding="utf-8")).get("shape") if manifest.exists() else None
        if shape is not None:
            return cls(**shape)
        if state_file(checkpoint, 0).exists():
            raise ConfigError(
                f"{checkpoint} was written by an earlier version of dapo-trl, whose state this one cannot read: resume "
                "with that version, or start anew with the checkpoint as --model."
            )
        return None

    def state_dict(self) -> dict[str, int]:
        return asdict(self)

    def settings(self, processes: int, rows: int) -> dict[str, Any]:
        """The settings that give the same rollout batch on another number of processes.

        Args:
            rows: ``per_device_train_batch_size`` as it was asked for; it is lowered where an optimizer step has too few
                completions for it.

        Raises:
            ConfigError: The completions of an optimizer step cannot be dealt out evenly.
        """
        step = self.completions // self.updates
        if step % processes:
            divisors = ", ".join(str(n) for n in range(1, step + 1) if step % n == 0)
            raise ConfigError(
                f"the checkpoint's optimizer steps have {step} completions, which {processes} processes cannot share "
                f"evenly: resume on {divisors} processes."
            )
        each = step // processes
        rows = next(n for n in range(min(rows, each), 0, -1) if each % n == 0)
        return {
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": each // rows,
            "steps_per_generation": each // rows * self.updates,
            "generation_batch_size": None,
        }

    def check(self, now: BatchShape, checkpoint: str | Path, *, rows: int) -> None:
        """Refuse to go on with a rollout batch of another shape.

        Args:
            now: The shape that the settings of this start give.
            rows: Their ``per_device_train_batch_size``.

        Raises:
            ConfigError: It is another one.
        """
        if (self.completions, self.num_generations, self.updates) == (
            now.completions,
            now.num_generations,
            now.updates,
        ):
            return
        wanted = self.settings(now.processes, rows)
        named = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        raise ConfigError(
            f"{checkpoint} was written with {self._text()}, now it is {now._text()}: resume with num_generations "
            f"{self.num_generations}, {named}."
        )

    def _text(self) -> str:
        many = "processes" if self.processes > 1 else "process"
        return (
            f"rollout batches of {self.completions} completions in groups of {self.num_generations} for {self.updates} "
            f"optimizer steps ({self.processes} {many})"
        )
