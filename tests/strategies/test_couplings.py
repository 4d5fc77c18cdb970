"""What FedProto's and FedMD's servers make of what clients tell them, in closed form."""

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.server.strategy import make_strategy
from fedjoint.strategies.fedmd import FedMD
from fedjoint.strategies.fedproto import FedProto


def told(sums, counts):
    return {"sums/digit": torch.tensor(sums), "counts/digit": torch.tensor(counts)}


def test_a_prototype_is_the_mean_feature_of_all_examples_of_its_class():
    rule = FedProto()
    assert rule.tell() == {}
    # Class 0: two clients with 1 and 3 examples; class 1: one client; class 2: nobody.
    rule.hear(
        told(
            [[[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[6.0, 4.0], [1.0, 3.0], [0.0, 0.0]]],
            [[1.0, 0.0, 0.0], [3.0, 2.0, 0.0]],
        )
    )
    found = rule.tell()
    assert found["seen/digit"].tolist() == [1, 1, 0]
    assert found["prototypes/digit"].tolist() == [[2, 1], [0.5, 1.5], [0, 0]]
    rule.hear(told([[[0.0, 0.0], [4.0, 4.0], [0.0, 0.0]]], [[0.0, 1.0, 0.0]]))
    assert rule.tell()["prototypes/digit"].tolist() == [[2, 1], [4, 4], [0, 0]]
    assert rule.tell()["seen/digit"].tolist() == [1, 1, 0]


def test_the_consensus_is_the_mean_over_the_clients_that_have_the_task():
    rule = FedMD()
    logits = torch.tensor([[[1.0, 2.0]], [[9.0, 9.0]], [[3.0, 6.0]]])
    rule.hear(
        {
            "logits/digit": logits,
            "has/digit": torch.tensor([1.0, 0.0, 1.0]),
            "public": torch.tensor([7, 7, 7]),
        }
    )
    assert rule.tell()["consensus/digit"].tolist() == [[2, 4]]
    rule.hear(
        {
            "logits/digit": logits,
            "has/digit": torch.zeros(3),
            "public": torch.tensor([7, 7, 7]),
        }
    )
    assert rule.tell()["consensus/digit"].tolist() == [[2, 4]]


def test_clients_with_other_public_examples_are_refused():
    with pytest.raises(UserError, match="give every node the same"):
        FedMD().hear({"public": torch.tensor([7, 8])})


def test_feddf_is_of_whole_models():
    tree = {"strategy": {"name": "feddf"}}
    with pytest.raises(UserError, match=r"set model\.heads = 'shared'"):
        make_strategy(check(tree))
    rule = make_strategy(check(tree | {"model": {"heads": "shared"}}))
    assert rule.method_options == {"digest_steps": 10}


def test_one_client_with_other_public_examples_has_no_part_in_the_consensus(caplog):
    rule = FedMD()
    rule.hear(
        {
            "logits/digit": torch.tensor([[[1.0, 2.0]], [[9.0, 9.0]], [[3.0, 6.0]]]),
            "has/digit": torch.ones(3),
            "public": torch.tensor([7, 8, 7]),
        }
    )
    assert rule.tell()["consensus/digit"].tolist() == [[2, 4]]
    assert "1 of 3 clients have other public examples than most" in caplog.text
