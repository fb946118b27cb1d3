"""The prompt stream: complete epochs, exact resume, endless and streamed sources."""

from __future__ import annotations

import pytest
from datasets import Dataset, IterableDataset
from trl.trainer.utils import RepeatSampler

from dapo_trl.data import PromptStream, prompt_stream
from dapo_trl.errors import ConfigError

ROWS = Dataset.from_dict({"prompt": [f"p{i}" for i in range(7)]})
MANY = Dataset.from_dict({"prompt": [f"p{i}" for i in range(3000)]})  # more than a shuffle buffer holds


def names(rows):
    return [row["prompt"] for row in rows]


def test_every_epoch_holds_every_row_once_in_another_order():
    stream = prompt_stream(ROWS, seed=3, shuffle=True)
    first, second = names(stream.take(7)), names(stream.take(7))
    assert sorted(first) == sorted(second) == names(ROWS)
    assert first != second
    assert stream.consumed == 14 and stream.epochs == 2.0


def test_the_first_epoch_is_in_trls_order():
    sampler = RepeatSampler(ROWS, mini_repeat_count=1, batch_size=7, seed=42)
    assert names(prompt_stream(ROWS, seed=42, shuffle=True).take(7)) == [f"p{i}" for i in sampler]


def test_a_draw_may_cross_the_end_of_an_epoch():
    assert len(prompt_stream(ROWS, seed=0, shuffle=True).take(30)) == 30


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("consumed", [0, 5, 7, 11])
def test_a_resumed_stream_goes_on_with_the_very_next_prompt(shuffle, streamed, consumed):
    def make():
        source = ROWS.to_iterable_dataset() if streamed else ROWS
        return prompt_stream(source, seed=1, shuffle=shuffle)

    stream = make()
    stream.take(consumed)
    state = stream.state_dict()
    rest = names(stream.take(9))
    resumed = make()
    resumed.load_state_dict(state)
    assert names(resumed.take(9)) == rest
    assert resumed.consumed == consumed + 9


def test_a_shuffled_stream_larger_than_its_buffer_resumes_exactly():
    stream = prompt_stream(MANY.to_iterable_dataset(), seed=1, shuffle=True)
    stream.take(40)
    state = stream.state_dict()
    resumed = prompt_stream(MANY.to_iterable_dataset(), seed=1, shuffle=True)
    resumed.load_state_dict(state)
    assert names(resumed.take(20)) == names(stream.take(20))


def test_resuming_on_other_data_is_refused():
    state = prompt_stream(ROWS, seed=0, shuffle=True).state_dict()
    with pytest.raises(ConfigError, match="data of 7 rows and this data has 3000"):
        prompt_stream(MANY, seed=0, shuffle=True).load_state_dict(state)


def test_an_endless_source_is_walked_in_order():
    class Squares:
        def __getitem__(self, index):
            return {"prompt": str(index**2)}

    stream = PromptStream(Squares(), size=None)
    assert names(stream.take(3)) == ["0", "1", "4"] and names(stream.take(1)) == ["9"]
    assert stream.epochs == 0.0


def test_rows_are_copies():
    stream = PromptStream([{"prompt": "a"}], size=1)
    stream.take(1)[0]["prompt"] = "changed"
    assert names(stream.take(1)) == ["a"]


def test_an_empty_streamed_data_set_is_refused():
    empty = IterableDataset.from_generator(lambda: iter(()))
    with pytest.raises(ValueError, match="without a single row"):
        prompt_stream(empty, seed=0, shuffle=False).take(1)
