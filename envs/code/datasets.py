"""Well-known sets of problems: for each id, what `code/Program-v0` needs to read it.

The limits are those of the graders that were published with the data, but in CPU time and for each test.
"""

from __future__ import annotations

from typing import Any

DATASETS: dict[str, dict[str, Any]] = {
    # 164 functions to complete, for evaluation.
    "code/HumanEval-v0": {
        "hub": {"dataset": "openai/openai_humaneval", "splits": ["test"]},
        "format": "humaneval",
        "limits": {"cpu_seconds": 6.0},
    },
    # 974 small problems: the Hub has 374 for training, 500 for tests, 90 for validation, 10 as examples for prompts.
    "code/MBPP-v0": {
        "hub": {
            "dataset": "google-research-datasets/mbpp",
            "name": "full",
            "splits": ["train", "test", "validation", "prompt"],
        },
        "format": "mbpp",
        "limits": {"cpu_seconds": 6.0},
    },
    # 10,000 competition problems; name="introductory", "interview" or "competition" picks a difficulty. The data set
    # itself is a loading script, which current versions of `datasets` refuse; the Hub keeps its rows as Parquet. Rows
    # without tests are left out.
    "code/APPS-v0": {
        "hub": {
            "dataset": "codeparrot/apps",
            "name": "all",
            "revision": "refs/convert/parquet",
            "splits": ["train", "test"],
        },
        "format": "apps",
        "limits": {"cpu_seconds": 4.0, "total_seconds": 120.0},
        "bad_rows": "skip",
    },
    # Contest problems, for evaluation, of ever later dates: name="release_v1" to "release_v6" are all up to one,
    # "v6" one release alone. livecodebench/code_generation_lite is a loading script; this copy has the same columns.
    "code/LiveCodeBench-v0": {
        "hub": {"dataset": "lighteval/code_generation_lite", "name": "release_v6", "splits": ["test"]},
        "format": "livecodebench",
        "limits": {"cpu_seconds": 6.0, "total_seconds": 120.0},
    },
}
