import pytest
from pydantic import ValidationError

from fedjoint.data.config import DataConfig


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
        ({"source": "text"}, "needs path"),
        ({"path": "x"}, "path does not belong to source = 'digits'"),
        ({"source": "csv", "path": "x"}, "needs targets"),
        ({"targets": {"a": "regression"}}, "belong to source = 'csv' or 'hub'"),
        ({"features": ["a"]}, "features belong to source = 'csv'"),
        ({"source": "hub", "targets": {"a": "multiclass"}}, "needs hub.name"),
        ({"source": "csv", "path": "x", "targets": {"a": "ordinal"}}, "'multiclass'"),
        ({"partition": "natural"}, "needs client_column"),
        ({"partition": "one_task", "task_mix": [["digit"]]}, "leave out task_mix"),
        ({"task_mix": [[]]}, "one or more different tasks"),
        ({"task_mix": [["digit", "digit"]]}, "one or more different tasks"),
        ({"outputs": {"digit": 0}}, "outputs must be positive"),
        ({"synthetic": {"conflict_degrees": 181}}, "less than or equal to 180"),
        ({"synthetic": {"noise": -1}}, "greater than or equal to 0"),
        ({"shard_per_client": 2}, "Extra inputs"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(settings)
