import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fedjoint.data.base import Client, Examples
from fedjoint.data.fingerprint import fingerprint


def client():
    x = torch.arange(24.0).reshape(8, 3)
    y = {"kind": torch.arange(8) % 2, "size": torch.arange(8.0)[:, None]}
    parts = torch.arange(8).split([4, 2, 2])
    return Client(*map(Examples(x, y).take, parts))


def with_train(change):
    return replace(client(), train=change(client().train))


def label_changed(examples):
    kind = examples.y["kind"].clone()
    kind[0] = 1
    return Examples(examples.x, {**examples.y, "kind": kind})


CHANGES = {
    "an input": lambda: with_train(lambda e: Examples(e.x + 1e-6 * (e.x == 4), e.y)),
    "a label": lambda: with_train(label_changed),
    "the order": lambda: with_train(lambda e: e.take(torch.tensor([1, 0, 2, 3]))),
    "an example fewer": lambda: with_train(lambda e: e.take(torch.arange(3))),
    "the shape": lambda: with_train(lambda e: Examples(e.x.reshape(4, 3, 1), e.y)),
    "the type": lambda: with_train(lambda e: Examples(e.x.view(torch.int32), e.y)),
    "a task fewer": lambda: with_train(lambda e: Examples(e.x, {"kind": e.y["kind"]})),
    "a task's name": lambda: with_train(
        lambda e: Examples(e.x, {"sort": e.y["kind"], "size": e.y["size"]})
    ),
    "the splits": lambda: Client(client().train, client().test, client().valid),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_changes_it(what):
    assert fingerprint(CHANGES[what]()) != fingerprint(client())


def test_the_order_of_tasks_and_the_layout_in_memory_do_not_matter():
    def rearranged(e):
        return Examples(e.x.T.contiguous().T, dict(reversed(e.y.items())))

    assert fingerprint(with_train(rearranged)) == fingerprint(client())


def test_missing_labels_and_empty_splits_have_one():
    empty = Examples(torch.zeros(0, 3), {"size": torch.zeros(0, 1)})
    missing = Examples(torch.zeros(2, 3), {"size": torch.full((2, 1), float("nan"))})
    assert fingerprint(Client(missing, empty, empty)) == fingerprint(Client(missing, empty, empty))


def test_another_process_finds_the_same():
    code = (
        "import torch; from fedjoint.data.base import Client, Examples;"
        "from fedjoint.data.fingerprint import fingerprint;"
        "e = Examples(torch.arange(6.0).reshape(3, 2), {'a': torch.arange(3)});"
        "print(fingerprint(Client(e, e, e)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    e = Examples(torch.arange(6.0).reshape(3, 2), {"a": torch.arange(3)})
    assert run.stdout.strip() == fingerprint(Client(e, e, e))
