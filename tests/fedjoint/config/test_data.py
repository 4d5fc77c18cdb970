import pytest
from pydantic import ValidationError

from fedjoint.config.data import DataConfig, SourceConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clients": 0}, "greater than or equal to 1"),
        ({"alpha": 0}, "greater than 0"),
        ({"alpha": float("inf")}, "finite"),
        ({"valid_fraction": -0.1}, "greater than or equal to 0"),
        ({"test_fraction": -0.1}, "greater than or equal to 0"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "must be below 1"),
        ({"min_examples": -1}, "greater than or equal to 0"),
        ({"examples_per_client": 0}, "greater than or equal to 1"),
        ({"partition": "random"}, "'iid', 'dirichlet'"),
        ({"partition": "one_task", "task_mix": [["digit"]]}, "leave out task_mix"),
        ({"task_mix": [[]]}, "one or more different tasks"),
        ({"task_mix": [["digit", "digit"]]}, "one or more different tasks"),
        ({"outputs": {"digit": 0}}, "outputs must be positive"),
        ({"shard_per_client": 2}, "Extra inputs"),
        ({"source": {"options": 3}}, "valid dictionary"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(settings)


def test_a_source_may_be_named_alone():
    assert DataConfig.model_validate({"source": "hub"}).source == SourceConfig(name="hub")
    assert DataConfig().source == SourceConfig(name="digits", options={})
