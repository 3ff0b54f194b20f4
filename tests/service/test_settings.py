import os

import pytest

from influence.errors import InvalidInput
from service.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WHENCE_")]:
        monkeypatch.delenv(name)


def test_the_environment_sets_what_the_command_line_does_not(monkeypatch, tmp_path):
    monkeypatch.setenv("WHENCE_INDEX_DIR", "from-environment")
    monkeypatch.setenv("WHENCE_PORT", "9000")
    monkeypatch.setenv("WHENCE_QUEUE_SIZE", "3")
    settings = load_settings(port=9001, host=None)
    assert str(settings.index_dir) == "from-environment"
    assert settings.port == 9001
    assert settings.queue_size == 3
    assert settings.host == "127.0.0.1"


def test_a_file_env_is_read_and_the_environment_goes_before_it(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("WHENCE_INDEX_DIR=a\nWHENCE_PORT=1\nOTHER_PROGRAM=x\n")
    monkeypatch.setenv("WHENCE_PORT", "2")
    settings = load_settings()
    assert (str(settings.index_dir), settings.port) == ("a", 2)


def test_a_misspelt_variable_is_refused_and_the_nearest_named(monkeypatch):
    monkeypatch.setenv("WHENCE_INDEX_DRI", "x")
    with pytest.raises(InvalidInput, match=r"WHENCE_INDEX_DRI.*nearest is WHENCE_INDEX_DIR"):
        load_settings(index_dir="x")


def test_a_misspelt_line_of_the_file_is_refused(tmp_path):
    (tmp_path / ".env").write_text("WHENCE_PROT=80\n")
    with pytest.raises(InvalidInput, match=r"WHENCE_PROT.*WHENCE_PORT"):
        load_settings(index_dir="x")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WHENCE_PORT", "eighty"),
        ("WHENCE_PORT", "70000"),
        ("WHENCE_QUEUE_SIZE", "-1"),
        ("WHENCE_DTYPE", "int4"),
        ("WHENCE_MAX_BODY_BYTES", "0"),
        ("WHENCE_HOST", ""),
    ],
)
def test_a_value_out_of_bounds_is_one_sentence(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=rf"is '{value}': .*Correct {variable}") as caught:
        load_settings(index_dir="x")
    assert "\n" not in str(caught.value)


def test_an_index_must_be_given():
    with pytest.raises(InvalidInput, match=r"index_dir is missing.*WHENCE_INDEX_DIR"):
        load_settings()


def test_a_name_that_is_no_setting_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="prot"):
        load_settings(index_dir="x", prot=80)


def test_settings_are_frozen_and_described():
    with pytest.raises(ValueError, match="frozen"):
        load_settings(index_dir="x").port = 1
    assert all(field.description for field in Settings.model_fields.values())
