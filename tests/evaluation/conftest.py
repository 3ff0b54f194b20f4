"""Trials of seconds."""

import pytest

from evaluation.trial import run_trial
from indexer.progress import Silence


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    cache = tmp_path_factory.mktemp("digits")
    return run_trial("digits", small=True, cache=cache, reporter=Silence())


@pytest.fixture(scope="session")
def language(tmp_path_factory):
    cache = tmp_path_factory.mktemp("language")
    return run_trial("language", small=True, cache=cache, reporter=Silence())
