"""The shared backbone is measured beside the clients' own models, against plain runs."""

import pytest

from fedjoint.simulation import simulate

SHARED = ("shared_train", "shared_valid", "shared_test")


def run(folder, strategy, shared=True):
    tree = {
        "rounds": 2,
        "data": {"clients": 6},
        "model": {"backbone": {"options": {"hidden": [8]}}},
        "local": {"optimiser": {"lr": 0.05}},
        "strategy": strategy,
        "evaluate": {"shared": shared},
        "engine": "inline",
        "output": {"dir": str(folder)},
    }
    return simulate(tree).metrics


def test_ditto_s_shared_model_is_that_of_fedavg(tmp_path):
    """Li et al., 2021: the personal model never touches the shared training."""
    ditto, plain = run(tmp_path, "ditto"), run(tmp_path, "fedavg")
    for split in SHARED:
        assert ditto[split] == pytest.approx(plain[split.removeprefix("shared_")])
        assert ditto[split] != ditto[split.removeprefix("shared_")]
    assert run(tmp_path, "ditto", shared=False).keys() == plain.keys() == {"train", "valid", "test"}
    assert run(tmp_path, "ditto", shared=False) == {s: ditto[s] for s in plain}


@pytest.mark.parametrize("strategy", ["apfl", "fedbabu"])
def test_every_method_that_personalises_has_both(strategy, tmp_path):
    found = run(tmp_path, strategy)
    assert found.keys() == {"train", "valid", "test", *SHARED}
    assert all(value is not None for split in SHARED for value in found[split].values())
