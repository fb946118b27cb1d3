"""The prompt stream: complete epochs, exact resume, endless and streamed sources."""

from __future__ import annotations

import pytest
from datasets import Dataset, IterableDataset
from trl.trainer.utils import RepeatSampler

from dapo_trl.errors import ConfigError
from dapo_trl.prompts.stream import PromptStream, prompt_stream

ROWS = Dataset.from_dict({"prompt": [f"p{i}" for i in range(7)]})
MANY = Dataset.from_dict({"prompt": [f"p{i}" for i in range(3000)]})  # more than a shuffle buffer holds


def walk(stream, count):
    """The next prompts, and the stream behind them."""
    prompts = [stream.row(stream.position + i)["prompt"] for i in range(count)]
    stream.advance(stream.position + count)
    return prompts


def test_every_epoch_holds_every_row_once_in_another_order():
    stream = prompt_stream(ROWS, seed=3, shuffle=True)
    first, second = walk(stream, 7), walk(stream, 7)
    assert sorted(first) == sorted(second) == ROWS["prompt"][:]
    assert first != second
    assert stream.position == 14 and stream.epochs == 2.0


def test_the_first_epoch_is_in_trls_order():
    sampler = RepeatSampler(ROWS, mini_repeat_count=1, batch_size=7, seed=42)
    assert walk(prompt_stream(ROWS, seed=42, shuffle=True), 7) == [f"p{i}" for i in sampler]


def test_the_key_says_which_row_of_the_data_it_is_also_across_epochs():
    stream = prompt_stream(ROWS, seed=0, shuffle=True)
    for position in [0, 8, 6, 20, 7]:
        assert stream.row(position)["prompt"] == f"p{stream.key(position)}"
    assert [prompt_stream(ROWS, seed=0, shuffle=False).key(position) for position in range(5, 9)] == [5, 6, 0, 1]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("past", [0, 5, 7, 11])
def test_a_resumed_stream_goes_on_with_the_very_next_prompt(shuffle, streamed, past):
    def make():
        source = ROWS.to_iterable_dataset() if streamed else ROWS
        return prompt_stream(source, seed=1, shuffle=shuffle)

    stream = make()
    walk(stream, past)
    state, epochs = stream.state_dict(), stream.epochs
    rest = walk(stream, 9)
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.position == past and resumed.epochs == epochs
    assert walk(resumed, 9) == rest


@pytest.mark.parametrize("streamed", [True, False])
def test_looking_ahead_moves_nothing(streamed):
    source = ROWS.to_iterable_dataset() if streamed else ROWS
    stream, calm = (prompt_stream(source, seed=1, shuffle=True) for _ in range(2))
    walk(stream, 3)
    walk(calm, 3)
    state = stream.state_dict()
    ahead = [stream.row(position)["prompt"] for position in (16, 4, 3, 9)]  # two epochs ahead, and back
    assert stream.state_dict() == state
    rest = walk(stream, 14)
    assert rest == walk(calm, 14) and ahead == [rest[13], rest[1], rest[0], rest[6]]


@pytest.mark.parametrize("streamed", [True, False])
def test_prompts_may_be_passed_over(streamed):
    source = ROWS.to_iterable_dataset() if streamed else ROWS
    stream, calm = (prompt_stream(source, seed=1, shuffle=True) for _ in range(2))
    stream.advance(10)
    assert walk(stream, 5) == walk(calm, 15)[10:]


def test_a_shuffled_stream_larger_than_its_buffer_resumes_exactly():
    stream = prompt_stream(MANY.to_iterable_dataset(), seed=1, shuffle=True)
    walk(stream, 40)
    state = stream.state_dict()
    resumed = prompt_stream(MANY.to_iterable_dataset(), seed=1, shuffle=True)
    resumed.load_state_dict(state)
    assert walk(resumed, 20) == walk(stream, 20)


def test_resuming_on_other_data_is_refused():
    state = prompt_stream(ROWS, seed=0, shuffle=True).state_dict()
    with pytest.raises(ConfigError, match="data of 7 usable rows and this data has 3000"):
        prompt_stream(MANY, seed=0, shuffle=True).load_state_dict(state)


def test_an_endless_source_is_walked_in_order():
    class Squares:
        def __getitem__(self, index):
            return {"prompt": str(index**2)}

    stream = PromptStream(Squares(), size=None)
    assert walk(stream, 3) == ["0", "1", "4"] and walk(stream, 1) == ["9"]
    assert stream.epochs == 0.0


@pytest.mark.parametrize("streamed", [True, False])
def test_rows_are_copies(streamed):
    stream = prompt_stream(ROWS.to_iterable_dataset() if streamed else ROWS, seed=0, shuffle=False)
    stream.row(0)["prompt"] = "changed"
    assert stream.row(0)["prompt"] == "p0"


def test_an_empty_streamed_data_set_is_refused():
    empty = IterableDataset.from_generator(lambda: iter(()))
    with pytest.raises(ValueError, match="without a single row"):
        prompt_stream(empty, seed=0, shuffle=False).row(0)
