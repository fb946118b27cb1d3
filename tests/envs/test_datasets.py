"""The registered data sets: real data where it is at hand, and files of exactly the shape of each on the Hub."""

import json
import re
from pathlib import Path

import gymnasium
import pytest

import envs
from envs.math.answers import ANSWER_STYLES
from envs.math.datasets import DATASETS

from ..conftest import DATA as REAL

DATA = Path(__file__).parent / "data"
FILES = {
    "math/GSM8K-v0": "gsm8k.jsonl",
    "math/MATH-v0": "math.jsonl",
    "math/AIME2024-v0": "aime2024.jsonl",
    "math/AIME2025-v0": "aime2025.jsonl",
    "math/DAPO17k-v0": "dapo17k.jsonl",
}
GOLDS = {
    "math/GSM8K-v0": ["31", "1,200", "10", "56", "-5"],
    "math/MATH-v0": [r"\frac{5}{6}", r"2\sqrt{3}", "2, 3", "120", r"180^\circ"],
    "math/AIME2024-v0": ["201", "944", "889", "136", "25"],
    "math/AIME2025-v0": ["10", "20", "30", "40", "50"],
    "math/DAPO17k-v0": ["36", "77", "-3", "120", "294"],
}

every_dataset = pytest.mark.parametrize("name", DATASETS)


def make(env_id, **kwargs):
    return gymnasium.make(env_id, **kwargs).unwrapped


def rows_of(file):
    return [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Instead of the Hub: small data sets of the same shape, and a note of what was asked for."""
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(dataset, name=None, *, split):
        asked.append((dataset, name, split))
        known = {kwargs["hub"]["dataset"]: FILES[env] for env, kwargs in DATASETS.items()}
        known["open-r1/DAPO-Math-17k-Processed"] = "dapo17k_processed.jsonl"
        known["BytedTsinghua-SIA/DAPO-Math-17k"] = "dapo17k.jsonl"
        return datasets.Dataset.from_list(rows_of(known[dataset]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    envs.rows.read_once.cache_clear()
    yield asked
    envs.rows.read_once.cache_clear()


@every_dataset
def test_a_copy_is_read_with_the_same_columns(name):
    env = make(name, path=str(DATA / FILES[name]))
    assert [env.row(index)["answer"] for index in range(env.num_rows)] == GOLDS[name]
    for index in range(env.num_rows):
        for answer, reward in ((env.solution(index), 1.0), (env.style.solution("123456"), 0.0)):
            env.reset(options={"index": index})
            assert env.step(answer)[1] == reward


@pytest.mark.parametrize(
    ("name", "kwargs", "loaded"),
    [
        ("math/GSM8K-v0", {}, ("openai/gsm8k", "main", "train")),
        ("math/GSM8K-v0", {"split": "test"}, ("openai/gsm8k", "main", "test")),
        ("math/GSM8K-v0", {"name": "socratic"}, ("openai/gsm8k", "socratic", "train")),
        ("math/MATH-v0", {"split": "test"}, ("DigitalLearningGmbH/MATH-lighteval", "default", "test")),
        ("math/AIME2024-v0", {}, ("HuggingFaceH4/aime_2024", None, "train")),
        ("math/AIME2025-v0", {"split": "train"}, ("MathArena/aime_2025", None, "train")),
        ("math/DAPO17k-v0", {}, ("open-r1/DAPO-Math-17k-Processed", "all", "train")),
        ("math/DAPO17k-v0", {"name": "en"}, ("open-r1/DAPO-Math-17k-Processed", "en", "train")),
        (
            "math/DAPO17k-v0",
            {"dataset": "BytedTsinghua-SIA/DAPO-Math-17k"},
            ("BytedTsinghua-SIA/DAPO-Math-17k", None, "train"),
        ),
    ],
)
def test_what_is_loaded_from_the_hub(name, kwargs, loaded, hub):
    env = make(name, **kwargs)
    assert hub == [loaded]
    assert [env.row(index)["answer"] for index in range(env.num_rows)] == GOLDS[name]


def test_a_local_folder_is_loaded_as_the_hub_would_be(tmp_path, monkeypatch):
    """The real `datasets.load_dataset`, splits and all."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    rows = rows_of("gsm8k.jsonl")
    for split, part in (("train", rows[:3]), ("test", rows[3:])):
        datasets.Dataset.from_list(part).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    golds = {
        split: [make("math/GSM8K-v0", dataset=str(folder), split=split).row(i)["answer"] for i in range(2)]
        for split in ("train", "test")
    }
    assert golds == {"train": GOLDS["math/GSM8K-v0"][:2], "test": GOLDS["math/GSM8K-v0"][3:]}
    with pytest.raises(ValueError, match=r"\(name=None, split='dev'\) can not be loaded: Unknown split \"dev\""):
        make("math/GSM8K-v0", dataset=str(folder), split="dev")


def test_nested_columns_from_a_real_load(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dapo"
    folder.mkdir()
    datasets.Dataset.from_list(rows_of("dapo17k.jsonl")).to_parquet(folder / "train.parquet")
    env = make("math/DAPO17k-v0", dataset=str(folder))
    assert [env.row(index)["answer"] for index in range(env.num_rows)] == GOLDS["math/DAPO17k-v0"]
    path = folder / "train.parquet"
    assert [make("math/DAPO17k-v0", path=path).row(i) for i in range(5)] == [env.row(i) for i in range(5)]


@pytest.mark.parametrize("file", ["dapo17k.jsonl", "dapo17k_processed.jsonl"])
def test_both_copies_of_dapo_give_the_papers_prompts(file):
    env = make("math/DAPO17k-v0", path=DATA / file)
    papers = [row["source_prompt"][0]["content"] for row in rows_of("dapo17k_processed.jsonl")]
    assert [env.row(index)["prompt"] for index in range(env.num_rows)] == papers
    boxed = make("math/DAPO17k-v0", path=DATA / file, answer_style="boxed")
    assert "Answer:" not in boxed.row(0)["prompt"]


def test_levels_of_math():
    env = make("math/MATH-v0", path=DATA / "math.jsonl")
    assert [env.row(index).get("info") for index in range(5)] == [
        {"level": 1},
        {"level": 2},
        {"level": 3},
        {"level": 2},
        None,
    ]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("math/AIME2024-v0", "test", "split='test': HuggingFaceH4/aime_2024 has one split, 'train', with all its rows"),
        ("math/DAPO17k-v0", "test", "split='test': open-r1/DAPO-Math-17k-Processed has one split, 'train'"),
        (
            "math/GSM8K-v0",
            "dev",
            "split='dev': openai/gsm8k has splits train, test: leave split out or set it accordingly",
        ),
    ],
)
@pytest.mark.parametrize("source", [{}, {"path": "anything.jsonl"}])
def test_splits_that_do_not_exist(name, split, message, source):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(name, split=split, **source)


@every_dataset
def test_a_copy_with_other_columns_is_refused_by_name(name):
    column = DATASETS[name].get("prompt_column", "prompt")
    with pytest.raises(ValueError, match=rf"row 0 of rows has no '{column}' \(columns: text\)"):
        make(name, rows=[{"text": "?"}], bad_rows="raise")


@every_dataset
def test_ids_take_one_source_at_most(name):
    with pytest.raises(ValueError, match="path= and dataset= given: pass exactly one of"):
        make(name, path="x.jsonl", dataset="y")


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("math/GSM8K-v0", "gsm8k_train.jsonl", 7473),
        ("math/GSM8K-v0", "gsm8k_test.jsonl", 1319),
        ("math/MATH-v0", "math_test.jsonl", 5000),
    ],
)
def test_every_row_of_the_real_data_is_usable_and_its_solution_right(name, file, rows):
    if not (REAL / file).is_file():
        pytest.skip(f"the real data set {file} is not at {REAL}")
    env = make(name, path=REAL / file, bad_rows="raise")
    assert env.num_rows == rows
    own = [json.loads(line) for line in (REAL / file).read_text(encoding="utf-8").splitlines()]
    worked = "answer" if name == "math/GSM8K-v0" else "solution"
    for index in range(0, rows, 10):
        for text in (env.solution(index), own[index][worked]):
            env.reset(options={"index": index})
            assert env.step(text)[1] == 1.0, text


def test_styles_of_the_registered_sets():
    styles = {name: kwargs["answer_style"] for name, kwargs in DATASETS.items()}
    assert set(styles.values()) <= set(ANSWER_STYLES)
    assert styles["math/DAPO17k-v0"] == styles["math/AIME2024-v0"] == "dapo", "trained and measured alike"
