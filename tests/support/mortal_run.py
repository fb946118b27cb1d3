"""`dapo-trl` with a process that fails: `accelerate launch ... -m tests.support.mortal_run WHERE train ...`.

WHERE is ``generation`` or ``backward``, where the second process dies of SIGKILL in the second optimizer step, or
``silence``: it lives on and says nothing any more.
"""

from __future__ import annotations

import os
import signal
import sys

from dapo_trl import DAPOTrainer
from dapo_trl.cli import main as cli

METHODS = {"generation": "generate_turn", "backward": "backward", "silence": "backward"}


def failing(where, method):
    def wrapped(self, *args, **kwargs):
        if self.state.global_step == 1 and self.accelerator.process_index == 1:
            if where == "silence":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *args, **kwargs)

    return wrapped


if __name__ == "__main__":
    where = sys.argv.pop(1)
    setattr(DAPOTrainer, METHODS[where], failing(where, getattr(DAPOTrainer, METHODS[where])))
    sys.exit(cli.main())
