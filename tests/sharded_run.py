"""`dapo-trl` with FSDP2 on the CPU: `accelerate launch --config_file tests/fsdp2-cpu-2.yaml -m tests.sharded_run ...`.

accelerate shards between GPUs alone; told that these processes are such, it shards on the CPU all the same.
"""

from __future__ import annotations

import sys

from accelerate import DistributedType, PartialState

from dapo_trl import cli, run


def sharded(*settings, train=run.train) -> int:
    PartialState().distributed_type = DistributedType.MULTI_GPU
    return train(*settings)


if __name__ == "__main__":
    run.train = sharded
    sys.exit(cli.main())
