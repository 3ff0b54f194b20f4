"""`whence redamp`, and the choices of `whence index` that it refuses before it begins."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from influence.errors import InvalidInput
from influence.store import IndexReader

WORDS = "king queen river mountain city gold silver north south east west war peace treaty"


@pytest.fixture
def small(build, new_llama, tokenizer, as_loaded) -> IndexReader:
    records = [{"id": f"d{i}", "text": f"{WORDS[i:]} {WORDS[: 2 * i]}"} for i in range(12)]
    loaded = as_loaded(new_llama(num_hidden_layers=1), tokenizer)
    return build(records, loaded, rank=4, dims=48)


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_new_version_is_published_and_named(small):
    result = _run("redamp", small.index_dir, "--joint-damping", "inf")
    assert result.exit_code == 0, result.output
    reader = IndexReader.open(small.index_dir)
    assert result.stdout.strip() == reader.version != small.version
    assert reader.manifest.fit.joint_rank == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --damping, --joint-damping or both"),
        (("--damping", "0"), "not finite and above 0"),
        (("--damping", "inf"), "not finite and above 0"),
        (("--joint-damping", "nan"), "not above 0"),
    ],
)
def test_a_damping_that_makes_no_sense_is_a_usage_error(tmp_path, arguments, said):
    result = _run("redamp", tmp_path, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_what_the_stored_numbers_do_not_allow_is_told(small):
    result = _run("redamp", small.index_dir, "--damping", "0.5")
    assert isinstance(result.exception, InvalidInput)  # one line and exit status 1 in `main`
    assert "cannot be taken out" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hessian", "magic"), "'ekfac', 'kfac', 'raw' or 'identity'"),
        (("--projection", "magic"), "'pca' or 'random'"),
        (("--labels", "magic"), "'empirical' or 'sampled'"),
        (("--projection", "random", "--hessian", "kfac"), "kfac needs the spectra"),
        (("--projection", "random", "--rank", "auto"), "auto needs the spectra"),
        (("--damping", "inf"), "finite number"),
        (("--null-queries", "-1"), "greater than or equal to 0"),
        (("--rank", "0"), "neither auto nor a whole number"),
    ],
)
def test_unknown_and_impossible_choices_are_usage_errors(tmp_path, arguments, said):
    result = _run("index", "corpus.jsonl", "--model", "m", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
