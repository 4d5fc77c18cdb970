"""Strategies with a backbone for each task, or for each client, whose runs are known in parts."""

PLUGIN = '''
import torch
from fedjoint import JointStrategy, Steps

class PerTask(JointStrategy):
    """One backbone for those with the first task, another for the others."""
    per_client = False
    def first_backbones(self, backbone):
        return backbone.repeat(2, 1)
    def receives(self, round, clients, tasks):
        return (~tasks[:, 0]).long()
    def merge(self, updates):
        return updates.means()

class Parity(PerTask):
    """One for clients with even numbers, another for the others."""
    per_client = True
    def receives(self, round, clients, tasks):
        return clients % 2

class Later(Parity):
    """The same, from round 2 on; and one for all again after round 3."""
    def first_backbones(self, backbone):
        return backbone[None]
    def merge(self, updates):
        if updates.round == 1:
            return Steps(torch.tensor([0, 0]), updates.means().repeat(2, 1))
        if updates.round == 3:
            return Steps(torch.tensor([1]), updates.means()[1:])
        return updates.means()

class OddLater(JointStrategy):
    """One for all, which clients with even numbers do not train after round 1."""
    def select(self, round, clients):
        return clients.ids if round == 1 else clients.ids[clients.ids % 2 == 1]
    def merge(self, updates):
        return updates.mean()
'''


def named(folder, kind):
    """Write the strategies to a file; return the settings that name one."""
    (folder / "several.py").write_text(PLUGIN)
    return {"name": f"{folder / 'several.py'}:{kind}"}
