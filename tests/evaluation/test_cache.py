"""Retraining is paid once, and never taken for another one."""

import numpy as np
import pytest

from evaluation.cache import cached, default_cache_dir, key_of
from influence.errors import AttributionError


def test_a_result_is_made_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"outputs": np.arange(6.0).reshape(2, 3), "steps": np.array(7)}

    first = cached(tmp_path / "new", "task", {"seed": 1}, make)
    again = cached(tmp_path / "new", "task", {"seed": 1}, make)
    assert len(calls) == 1
    assert {k: v.tolist() for k, v in first.items()} == {k: v.tolist() for k, v in again.items()}
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_anything_that_differs_makes_another_key():
    ids = np.arange(4)
    keys = {
        key_of({"seed": 1, "ids": ids}),
        key_of({"seed": 2, "ids": ids}),
        key_of({"seed": 1, "ids": ids + 1}),
        key_of({"seed": 1, "ids": ids.reshape(2, 2)}),
        key_of({"seed": 1, "ids": ids.astype(np.int32)}),
    }
    assert len(keys) == 5
    assert key_of({"b": 1, "a": ids}) == key_of({"a": ids.copy(), "b": 1})


def test_what_has_no_place_in_a_key_is_refused():
    with pytest.raises(TypeError, match="no place in a key"):
        key_of({"function": key_of})


def test_work_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError):
        cached(tmp_path, "task", {}, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    cached(tmp_path, "task", {}, lambda: {"x": np.ones(3)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AttributionError, match=path.name):
        cached(tmp_path, "task", {}, lambda: {"x": np.ones(3)})


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "whence" / "evaluation"
