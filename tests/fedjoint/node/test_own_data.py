"""The settings with which a node replaces those of a run."""

import pytest

from fedjoint.errors import UserError
from fedjoint.node.own_data import own_data


def test_own_data_replace_settings_of_the_run(tmp_path):
    assert own_data(None, []) == {}
    with pytest.raises(UserError, match="--tasks belongs to --data"):
        own_data(None, ["digit"])
    with pytest.raises(UserError, match="no such file"):
        own_data(tmp_path / "none.csv", [])
    table = tmp_path / "own.toml"
    table.write_text('path = "x.csv"\nclients = 2\n')
    assert own_data(table, ["a"]) == {"path": "x.csv", "clients": 2, "task_mix": [["a"]]}
