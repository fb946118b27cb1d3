"""`UnicodeText`: membership, sampling, equality, pickling and vector environments."""

import multiprocessing
import pickle

import numpy as np
import pytest
from gymnasium.vector.utils import (
    batch_space,
    concatenate,
    create_shared_memory,
    iterate,
    read_from_shared_memory,
    write_to_shared_memory,
)

from envs import Completion, UnicodeText

ODD_TEXTS = ["", "plain", "√2 ≤ 🙂", "中" * 16, "\ud800", "nul\0inside\n"]


@pytest.mark.parametrize("text", [*ODD_TEXTS, Completion("c", n_tokens=1)])
def test_contains_any_string_up_to_its_length(text):
    assert text in UnicodeText(16)


@pytest.mark.parametrize("item", ["x" * 17, b"bytes", None, 3, ["a"]])
def test_does_not_contain_longer_strings_and_other_types(item):
    assert item not in UnicodeText(16)


@pytest.mark.parametrize("max_length", [0, -1, 2.0, True, "9"])
def test_bad_max_length_is_refused(max_length):
    with pytest.raises(ValueError, match=r"max_length=.* must be an integer of at least 1 \(characters\)"):
        UnicodeText(max_length)


def test_samples_are_short_members_from_its_own_generator():
    space, same, state = UnicodeText(8, seed=5), UnicodeText(8, seed=5), np.random.get_state()[1].copy()
    samples = [space.sample() for _ in range(200)]
    assert samples == [same.sample() for _ in range(200)]
    assert all(sample in space for sample in samples)
    assert len(set(samples)) > 100
    assert any(not sample.isascii() for sample in samples)
    assert (np.random.get_state()[1] == state).all()


def test_sampling_has_no_mask():
    with pytest.raises(ValueError, match="neither mask nor probability"):
        UnicodeText().sample(mask=np.ones(3))


def test_equality_repr_and_small_pickle():
    space = UnicodeText(1000, seed=1)
    pickled = pickle.dumps(space)
    restored = pickle.loads(pickled)
    assert restored == space and restored.sample() == space.sample()
    assert len(pickled) < 1000
    assert space != UnicodeText(999) and space != "UnicodeText(max_length=1000)"
    assert repr(space) == "UnicodeText(max_length=1000)"
    assert not space.is_np_flattenable


def test_batches_are_tuples():
    space = UnicodeText(16)
    batch = batch_space(space, 2)
    assert ("a", "b") in batch and batch.sample() in batch
    assert list(iterate(batch, ["a", "b"])) == ["a", "b"]
    assert concatenate(space, ["a", "b"], None) == ("a", "b")


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_shared_memory_holds_any_text(text):
    space = UnicodeText(16)
    memory = create_shared_memory(space, n=2, ctx=multiprocessing)
    texts = read_from_shared_memory(space, memory, n=2)
    assert tuple(texts) == ("", "")
    write_to_shared_memory(space, 1, "longer than before", memory)
    write_to_shared_memory(space, 1, text, memory)
    assert tuple(texts) == ("", text)
    assert len(texts) == 2 and texts[-1] == text and texts[:1] == ("",)
