"""Where rows come from: read once, read again when they change, pickled as the way to read them."""

import gzip
import json
import os
import pickle

import pytest

from envs import rows
from envs.rows import Source


def words(raw, source, ending=""):
    """Parse rows into their words."""
    return tuple(f"{row['word']}{ending}" for row in raw)


def source_of(**given):
    return Source.of(**{**dict.fromkeys(("rows", "path", "dataset", "name", "split", "hub")), **given})


def write(path, *found):
    path.write_text("".join(f"{json.dumps({'word': word})}\n" for word in found))
    return path


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, in order."""
    paths = []
    read_file = rows.read_file
    monkeypatch.setattr(rows, "read_file", lambda path: paths.append(path.name) or read_file(path))
    return paths


def test_a_file_is_read_once_for_each_way_of_reading_it(tmp_path, reads):
    path = write(tmp_path / "data.jsonl", "a", "b")
    one, other = (source_of(path=of).read(words) for of in (path, str(path)))
    assert one is other and one == ("a", "b") and reads == ["data.jsonl"]
    assert source_of(path=path).read(words, "!") == ("a!", "b!") and reads == ["data.jsonl"] * 2


def test_a_file_is_read_again_when_it_has_changed(tmp_path, reads):
    path = write(tmp_path / "data.jsonl", "a")
    before = source_of(path=path).read(words)
    write(path, "b")
    os.utime(path, ns=(1, 1))
    assert (before, source_of(path=path).read(words)) == (("a",), ("b",)) and len(reads) == 2


@pytest.mark.parametrize("given", [{"path": "data.jsonl"}, {"rows": [{"word": "a"}]}])
@pytest.mark.parametrize("hub", [None, {"dataset": "own/words", "splits": ["train", "test"]}])
def test_rows_without_splits_are_not_asked_for_one(given, hub, recwarn):
    with pytest.warns(UserWarning, match=r"split='test' beside .*these rows have no splits"):
        source_of(**given, split="test", hub=hub)
    recwarn.clear()
    source_of(**given, split="train", hub=hub)  # that of the task's files, whose rows a copy takes the place of
    assert not recwarn.list


def test_rows_of_a_file_are_pickled_as_the_way_to_read_them(tmp_path):
    path = write(tmp_path / "data.jsonl", *("long" * 1000 for _ in range(50)))
    found = source_of(path=path).read(words, "!")
    data = pickle.dumps(found)
    assert len(data) < 1000 and pickle.loads(data) == found
    write(path, "a")
    assert pickle.loads(data) == ("a!",)


def test_rows_given_directly_are_pickled_as_they_are():
    found = source_of(rows=[{"word": "a"}]).read(words)
    assert pickle.loads(pickle.dumps(found)) == found == ("a",)


@pytest.mark.parametrize("given", [{}, {"rows": [], "path": "a.jsonl"}, {"path": "a.jsonl", "dataset": "b"}])
def test_there_is_exactly_one_source(given):
    named = " and ".join(f"{name}=" for name in given) or "no rows"
    with pytest.raises(ValueError, match=f"^{named} given: pass exactly one of"):
        source_of(**given)


HUB = {"dataset": "some/set", "name": "main", "revision": "branch", "splits": ["train", "test"]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Source(dataset="some/set", name="main", split="train", revision="branch")),
        ({"split": "test"}, Source(dataset="some/set", name="main", split="test", revision="branch")),
        ({"name": "other"}, Source(dataset="some/set", name="other", split="train", revision="branch")),
        ({"rows": []}, Source(rows=[])),
        ({"dataset": "another", "split": "dev"}, Source(dataset="another", split="dev")),
    ],
)
def test_a_registered_set_stands_in_for_a_source(given, expected):
    assert source_of(hub=HUB, **given) == expected


def test_a_split_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="split='dev': some/set has splits train, test: leave split out"):
        source_of(hub=HUB, split="dev")
    with pytest.raises(ValueError, match="has one split, 'train', with all its rows"):
        source_of(hub={**HUB, "splits": ["train"]}, split="dev")


LINES = "".join(f"{json.dumps({'word': word}, ensure_ascii=False)}\n" for word in ("é", "ü", "€"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_unicode_files_are_read_with_and_without_a_mark(tmp_path, encoding, name):
    data = LINES.replace("\n", "\r\n").encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert source_of(path=tmp_path / name).read(words) == ("é", "ü", "€")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "data.jsonl",
            b'{"word": "a"}\n{"word": "caf\xe9"}\n',
            "line 2 of data.jsonl is not UTF-8 .byte 14 of it is 0xe9",
        ),
        ("data.jsonl", b"\xff\xfe{\x00\x00\xd8", "data.jsonl begins with the mark of UTF-16 and is not UTF-16"),
        ("data.jsonl.gz", LINES.encode(), "data.jsonl.gz cannot be read as a gzip file: Not a gzipped file"),
        (
            "data.jsonl.gz",
            gzip.compress(LINES.encode(), mtime=0)[:-9],
            "data.jsonl.gz cannot be read as a gzip file: Compressed",
        ),
        (
            "data.parquet",
            LINES.encode(),
            "data.parquet cannot be read as a parquet file: Parquet magic bytes not found",
        ),
    ],
)
def test_a_file_in_another_form_than_its_name_says_is_one_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        source_of(path=tmp_path / name).read(words)
    assert "\n" not in str(caught.value)
