"""``fedjoint config``: every setting with type, default and meaning."""

import pytest

from fedjoint.cli.config import config_command, describe_keys
from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError


def test_every_setting_is_there_and_has_a_meaning():
    tree = check({}).model_dump()
    for key, allowed, _, meaning in describe_keys(Config):
        value = tree
        for part in key.split("."):
            value = value[part]
        assert allowed and meaning, key


def test_a_key_has_its_type_range_and_default(capsys):
    config_command("local.epochs")
    assert capsys.readouterr().out.splitlines() == [
        "local.epochs (a whole number >= 1 and <= 1000000 or nothing; default none)",
        "    passes over the client's data per round; 1 where steps is not given",
    ]


def test_a_table_alone(capsys):
    config_command("strategy.compression")
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert keys == ["strategy.compression.name", "strategy.compression.options"]


def test_an_unknown_key_is_one_line():
    with pytest.raises(UserError, match=r"unknown setting 'local.epoch'.*mean 'local.epochs'"):
        config_command("local.epoch")
