"""Examples: inputs with the labels of every task."""

import torch

from fedjoint import Client, Examples


def examples():
    y = {"kind": torch.tensor([0, -1, 2]), "size": torch.tensor([[1.0], [2.0], [torch.nan]])}
    return Examples(torch.arange(6.0).view(3, 2), y)


def test_examples_are_counted_by_their_inputs():
    assert len(examples()) == 3


def test_examples_are_taken_with_all_their_labels():
    x, y = examples().take(torch.tensor([2, 0, 2]))
    assert x.tolist() == [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]
    assert y["kind"].tolist() == [2, 0, 2]
    assert y["size"].nan_to_num(-9).tolist() == [[-9], [1], [-9]]


def test_a_client_is_its_three_splits():
    parts = [examples().take(torch.tensor([at])) for at in range(3)]
    client = Client(*parts)
    assert client.train is parts[0] and client.valid is parts[1] and client.test is parts[2]
