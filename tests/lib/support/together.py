"""All cases of the zoo as one problem: a group of clients for each of their groups."""

from dataclasses import replace

import numpy as np
from support.zoo import cases

from fedjoint import Client, Examples, Group, Problem
from fedjoint.registry import load_object


def problem(config):
    """Return the problem of all cases that can be made here; tasks are named by their case."""
    made = {}
    for case in cases():
        reference = case.values[0]
        if reference:
            made[reference.partition(":")[2]] = load_object(reference)(config)
    tasks = [
        replace(task, name=f"{case}_{task.name}")
        for case, own in made.items()
        for task in own.tasks
    ]
    groups, first = {}, 0
    for case, own in made.items():
        for group in own.group_names:
            part = own.of(group)
            places = np.flatnonzero(own.member == own.group_names.index(group))
            name = f"{case}_{group}" if group else case
            groups[name] = Group((first + places).tolist(), part.backbone, part.example)
        first += len(own.data.sizes)
    return Problem.of_groups(tasks, _Everyone(made), groups)


class _Everyone:
    """The clients of all cases, one after the other."""

    def __init__(self, made):
        self.task_names = tuple(
            f"{c}_{name}" for c, own in made.items() for name in own.data.task_names
        )
        self.sizes = np.concatenate([own.data.sizes for own in made.values()])
        self.tasks = np.zeros((len(self.sizes), len(self.task_names)), bool)
        self._homes, column = [], 0
        for case, own in made.items():
            clients, tasks = own.data.tasks.shape
            rows = slice(len(self._homes), len(self._homes) + clients)
            self.tasks[rows, column : column + tasks] = own.data.tasks
            self._homes += [(case, own, place) for place in range(clients)]
            column += tasks

    def client(self, index):
        case, own, place = self._homes[index]
        data, home = own.data.client(place), own.of(own.group_names[own.member[place]])

        def renamed(examples):
            y = {f"{case}_{name}": labels for name, labels in examples.y.items()}
            return Examples(home.fitted(examples.x, f"client {index}"), y)

        return Client(*map(renamed, (data.train, data.valid, data.test)))
