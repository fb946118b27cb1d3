"""``dapo-trl merge``: a saved adapter and its base become a full model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "Merge a saved adapter into its base model: the result loads without PEFT, and can be served or trained anew."


def add_parser(commands: Any) -> None:
    """Add the command to those of ``dapo-trl``."""
    merge = commands.add_parser(
        "merge", help="merge an adapter into its base model", description=HELP, allow_abbrev=False
    )
    add = merge.add_argument
    add("--adapter", type=Path, required=True, metavar="DIR", help="a run's model folder, or one of its checkpoints")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the full model; must not exist yet")
    add("--base", metavar="NAME", help="folder or Hub name of the base model; default: the one the adapter names")
    dtypes = ("auto", "float32", "bfloat16", "float16")
    add("--dtype", choices=dtypes, default="auto", help="precision of the weights; default: the base model's")
    merge.set_defaults(run=_merge)


def _merge(args: argparse.Namespace) -> int:
    from transformers.utils import logging  # torch is imported here, after the arguments are known to be well-formed

    from ..run.lora import merge_adapter

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = merge_adapter(args.adapter, args.output, args.base, dtype=args.dtype)
    print(f"model: {args.output} ({model.num_parameters() / 1e6:,.1f} M weights, {str(model.dtype).split('.')[-1]})")
    return 0
