"""Well-known sets of problems: for each id, what `math/Problem-v0` needs to read it."""

from __future__ import annotations

from typing import Any

DATASETS: dict[str, dict[str, Any]] = {
    # Grade-school word problems with worked solutions that end in "#### 72".
    "math/GSM8K-v0": {
        "hub": {"dataset": "openai/gsm8k", "name": "main", "splits": ["train", "test"]},
        "prompt_column": "question",
        "answer_style": "hash",
    },
    # Competition problems with worked solutions that end in a box. This copy has all subjects in one configuration
    # and the original splits of 7500 and 5000; name="algebra" and so on picks a subject.
    "math/MATH-v0": {
        "hub": {"dataset": "DigitalLearningGmbH/MATH-lighteval", "name": "default", "splits": ["train", "test"]},
        "prompt_column": "problem",
        "answer_column": "solution",
        "level_column": "level",
        "answer_style": "boxed",
        "bad_rows": "skip",
    },
    # 30 problems a year, for evaluation. The Hub calls the one split "train". Asked in DAPO's words, as in its paper.
    "math/AIME2024-v0": {
        "hub": {"dataset": "HuggingFaceH4/aime_2024", "splits": ["train"]},
        "prompt_column": "problem",
        "answer_style": "dapo",
    },
    "math/AIME2025-v0": {
        "hub": {"dataset": "MathArena/aime_2025", "splits": ["train"]},
        "prompt_column": "problem",
        "answer_style": "dapo",
    },
    # DAPO's training set. The original, BytedTsinghua-SIA/DAPO-Math-17k, repeats each problem about 100 times, in
    # 1.8 million rows; this copy has the same 17,398 problems once and downloads in seconds. The columns read here
    # are in both, so that dataset="BytedTsinghua-SIA/DAPO-Math-17k" or a file of it gives the same task.
    "math/DAPO17k-v0": {
        "hub": {"dataset": "open-r1/DAPO-Math-17k-Processed", "name": "all", "splits": ["train"]},
        "answer_column": "reward_model.ground_truth",
        "answer_style": "dapo",
        "deduplicate": True,
        "bad_rows": "skip",
    },
}
