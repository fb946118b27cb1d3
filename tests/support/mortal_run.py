"""`dapo-trl` with a process that fails: `... -m tests.support.mortal_run WHERE HOW SIGN train|eval ...`.

WHERE is a phase of `PHASES`, HOW ``SIGKILL``, ``SIGINT``, ``full`` (the disk is full) or ``silence`` (the process lives
on and does nothing any more). It happens to the last process, once, as soon as a file SIGN exists.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

from dapo_trl import DAPOTrainer
from dapo_trl.checkpoint import resumable_trainer
from dapo_trl.cli import main as cli
from dapo_trl.evaluation.held_out import HeldOut
from dapo_trl.evaluation.journal import Journal
from envs.math.arithmetic import ArithmeticEnv

PHASES = {
    "sampling": (DAPOTrainer, "generate_turn"),
    "judging": (ArithmeticEnv, "verify"),
    "updating": (DAPOTrainer, "backward"),
    "saving": (resumable_trainer, "save_state"),
    "evaluating": (HeldOut, "_evaluate"),
    "journal": (Journal, "append"),
}


def failing(method, how: str, sign: Path):
    left = [int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1]

    def wrapped(*args, **kwargs):
        if any(left) and sign.exists():
            left.clear()
            if how == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            if how == "silence":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pause()
            os.kill(os.getpid(), signal.Signals[how])
        return method(*args, **kwargs)

    return wrapped


if __name__ == "__main__":
    where, how, sign = (sys.argv.pop(1) for _ in range(3))
    owner, name = PHASES[where]
    setattr(owner, name, failing(getattr(owner, name), how, Path(sign)))
    sys.exit(cli.main())
