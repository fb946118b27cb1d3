"""`dapo-trl` with FSDP2 on the CPU: `accelerate launch --config_file fsdp2-cpu-2.yaml -m tests.support.sharded_run`.

accelerate shards between GPUs alone; told that these processes are such, it shards on the CPU all the same.
"""

from __future__ import annotations

import sys

from accelerate import DistributedType, PartialState

from dapo_trl.cli import main as cli
from dapo_trl.run import train as run


def sharded(*settings, train=run.train) -> int:
    PartialState().distributed_type = DistributedType.MULTI_GPU
    return train(*settings)


if __name__ == "__main__":
    run.train = sharded
    sys.exit(cli.main())
