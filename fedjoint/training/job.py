"""One round of local training of a cohort: what a local method works with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.joint import JointModel
from fedjoint.model.layout import Layout
from fedjoint.model.tree import Input
from fedjoint.training.alone import Alone
from fedjoint.training.augment import Augmentations, seeds_of_steps
from fedjoint.training.balance import Balance
from fedjoint.training.cohort import Cohort
from fedjoint.training.descent import Descent
from fedjoint.training.draws import take_turns
from fedjoint.training.gradients import Gradients, Kernel, Measure
from fedjoint.training.minibatches import Schedule, schedule
from fedjoint.training.optimisers import Optimiser
from fedjoint.training.stepper import Few
from fedjoint.training.traced import Traced

Tensors = dict[str, Tensor]

#: Is told of every minibatch before its step.
Beside = Callable[["Batch"], None]

#: Changes the gradients in place before a step: ``(gradients, parameters, active) -> None``, active
#: being that of the :class:`Batch`: the clients that take the step.
Correct = Callable[[Tensors, Tensors, Tensor | None], None]


class Batch(NamedTuple):
    """One minibatch of every client.

    Attributes:
        x: ``[clients, batch, ...]`` inputs, a tensor or a dict of them.
        y: task name -> ``[clients, batch, ...]`` labels.
        active: ``[clients]`` bool, who still has a batch; None where everyone has.
        labelled: ``[clients, tasks]`` bool, where it has a label of the task; None where the
            clients' data lack none.
    """

    x: Input
    y: Tensors
    active: Tensor | None
    labelled: Tensor | None


@dataclass
class Job:
    """Local training of the clients of ``cohort`` in one round.

    Attributes:
        cohort: the clients and their data.
        round: the round, from 1.
        seed: the run's seed.
        layout: of the P shared parameters.
        received: ``[P]`` the global backbone; of several, ``[clients, P]`` each client's own.
        start: ``[P]`` or ``[clients, P]``, what an update is measured from: ``received``, unless
            the method says otherwise.
        broadcast: what else the strategy sent.
        shared: ``[clients, P]``, the clients' backbones, to be trained in place.
        private: name -> ``[clients, ...]`` heads and other private state, trained in place.
        kernel: computes gradients.
        measure: measures losses.
        descent: takes the steps at once, where the optimiser has such.
        optimiser: makes an optimiser of the configured kind over some parameters.
        balance: weighs the tasks.
        trainable: names of the parameters that training may change.
        budget: the batch size, epochs or steps (one number, or ``[clients]``), and whether short
            batches are left out.
        padded: whether minibatches have the configured size, whoever trains together or alone, for
            models that draw random numbers: how many they take is then the client's own affair.
        least: fewest examples in a minibatch; more than one only where clients train alone.
        rate: ``[clients]`` learning rates of this round.
        lr: the learning rate of all clients, before each has its own.
        momentum: of SGD.
        model: says what is computed; its own weights are never used.
        batched: whether all clients are trained in one batched program; if not, there is one.
        public: ``[n, ...]`` the problem's examples that all clients have; None: there are none.
        last: whether the run ends with this round, as it is configured.
        augmentations: what changes minibatches; None: nothing does.
        losses: ``[clients, tasks]``, filled by :meth:`descend`: mean losses over the steps whose
            minibatch had a label of the task; NaN without any. Of tasks that are trained apart,
            each has those of its own steps.
        steps: ``[clients]`` int64, optimiser steps taken on ``shared``.
        work: ``[clients]`` int64, gradients computed, whatever was trained with them.
        backbone: ``[clients]`` int64, which of several backbones each has; None: there is one.
    """

    cohort: Cohort
    round: int
    seed: int
    layout: Layout
    received: Tensor
    broadcast: Mapping[str, Tensor]
    shared: Tensor
    private: Tensors
    kernel: Kernel
    measure: Measure
    descent: Descent | Traced | Alone | None
    optimiser: Callable[[Tensors], Optimiser]
    balance: Balance
    trainable: Collection[str]
    budget: Mapping[str, Any]
    padded: bool
    least: int
    rate: Tensor
    lr: float
    momentum: float
    last: bool
    model: JointModel
    batched: bool
    public: Input | None = None
    augmentations: Augmentations | None = None
    losses: Tensor = field(init=False)
    steps: np.ndarray = field(init=False)
    work: np.ndarray = field(init=False)
    start: Tensor = field(init=False)
    backbone: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.start = self.received
        shape = (len(self.cohort), len(self.cohort.tasks))
        self.losses = torch.zeros(shape, device=self.shared.device)
        self.steps = np.zeros(len(self.cohort), np.int64)
        self.work = np.zeros(len(self.cohort), np.int64)

    def batches(
        self, steps: int | None = None, stream: int = 0, *, epochs: int | None = None
    ) -> Iterator[Batch]:
        """Yield the round's minibatches, in an order drawn from (seed, round, client).

        An epoch's last minibatch is left out where it has fewer examples than the model takes.

        Args:
            steps: this many instead of the configured budget.
            stream: another number gives another, independent order.
            epochs: this many passes over the data instead.

        Raises:
            UserError: a client has too few examples for any minibatch; or both ``steps`` and
                ``epochs`` are given.
        """
        data, device = self.cohort.learnt, self.shared.device
        budget = self._budget(steps, epochs)
        drawn = self._draw(budget, stream, padded=self.padded)
        rows, labelled = self._places(drawn, np.arange(len(self.cohort)))
        present = np.any(drawn.mask, axis=2)
        full = np.all(present, axis=1)
        own = (self.seed, stream, self.round, self.cohort.clients, present)
        seeds = seeds_of_steps(*own) if self.augmentations else None
        for step, mask in enumerate(drawn.mask):
            at, who, everyone = rows[step], present[step], bool(full[step])
            take_turns(who)
            if len(mask) == 1 and not self.padded:
                # One client on its own: no padding, which takes time, and BatchNorm for data.
                count = int(mask.sum())
                if count < self.least:
                    continue
                at = at[:, :count]
            active = None if everyone else torch.from_numpy(who).to(device)
            x, y = data.take(at)
            if self.augmentations and seeds is not None:
                x = self.augmentations.apply(x, mask.sum(1), seeds[step])
            yield Batch(x, y, active, None if labelled is None else labelled[step])
        take_turns(None)

    def _draw(self, budget: Mapping[str, Any], stream: int, *, padded: bool) -> Schedule:
        clients, sizes = self.cohort.clients, self.cohort.train.sizes
        return schedule(
            self.seed, self.round, clients, sizes, stream=stream, padded=padded, **budget
        )

    def _places(self, drawn: Schedule, order: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Return where minibatches lie, and which tasks they have labels of.

        Args:
            drawn: the minibatches.
            order: ``[clients]`` whose they are.

        Returns:
            ``[steps, clients, batch]`` rows of all clients' examples one below the other, which are
            faster to select than pairs; ``[steps, clients, tasks]``, None where no data lack any.
        """
        data = self.cohort.learnt
        padding = data.rows - 1
        index = np.where(drawn.mask, drawn.index, padding)
        index += (padding + 1) * order[:, None]
        rows = torch.from_numpy(index).to(self.shared.device)
        known = data.known
        return rows, None if known is None else known.flatten(0, 1)[rows].any(2)

    def _budget(self, steps: int | None, epochs: int | None) -> Mapping[str, Any]:
        given = {"steps": steps, "epochs": epochs}
        if None not in given.values():
            raise UserError("train for so many steps or so many epochs, not both")
        budget = dict(self.budget)
        for name, number in given.items():
            if number is not None and number < 1:
                raise UserError(f"train for one or more {name}, not {number}")
            if number is not None:
                budget |= {"steps": None, "epochs": None, name: number}
        sizes, batch = self.cohort.train.sizes, budget["batch_size"]
        if 0 < sizes.max() < self.least:
            raise UserError(
                f"it has {sizes.max()} training example, and the model learns from no fewer than "
                f"{self.least} at once: give it more, or use a model that takes examples one by one"
            )
        short = sizes[(sizes > 0) & (sizes < batch)]
        if budget["drop_last"] and budget["steps"] is None and len(short):
            raise UserError(
                f"it has {short[0]} training examples, and local.drop_last leaves out minibatches "
                f"of fewer than local.batch_size = {batch}: lower that, or give it more"
            )
        return budget

    def gradients(
        self, batch: Batch, shared: Tensor, private: Tensors, names: Collection[str]
    ) -> Gradients:
        """Differentiate the clients' losses on ``batch`` by the parameters ``names``.

        Args:
            batch: the minibatch.
            shared: ``[clients, P]`` backbones.
            private: the rest of the model.
            names: the parameters.
        """
        self.work += 1 if batch.active is None else batch.active.cpu().numpy()
        trained, frozen = self._divided(shared, private, names)
        return self.kernel(trained, frozen, batch.x, batch.y, self.weights(private))

    def _divided(
        self, shared: Tensor, private: Tensors, names: Collection[str]
    ) -> tuple[Tensors, Tensors]:
        everything = {**self.layout.views(shared), **private}
        trained = {n: t for n, t in everything.items() if n in names}
        return trained, {n: t for n, t in everything.items() if n not in names}

    def loss(self, shared: Tensor) -> Tensor:
        """``[clients]``, what training minimises, of ``shared`` ``[clients, P]`` on its data."""
        losses = self.measure({**self.layout.views(shared), **self.private}, self.cohort.learnt)
        state = {n: t for n, t in self.private.items() if n.startswith("balance.")}
        weights, known = self.weights(self.private), torch.ones_like(losses)
        return torch.vmap(self.balance.total)(losses, weights, state, known)

    def weights(self, private: Tensors, task: str | None = None) -> Tensor:
        """``[clients, tasks]``, the weights of the tasks; zero of all but ``task``, if given."""
        weights = self._weights(private)
        if task is None:
            return weights
        own = [float(other.name == task) for other in self.cohort.tasks]
        return weights * weights.new_tensor(own)

    def _weights(self, private: Tensors) -> Tensor:
        state = {n: t for n, t in private.items() if n.startswith("balance.")}
        if not state:
            weights = self.balance.weights({}).to(self.shared.device)
            # Laid out alike for one client and for many, which a trace goes by.
            return weights.expand(len(self.cohort), -1).contiguous()
        return torch.vmap(self.balance.weights)(state).to(self.shared.device)

    def descend(  # noqa: PLR0913 - all by name, and rarely more than two
        self,
        *,
        shared: Tensor | None = None,
        private: Tensors | None = None,
        trainable: Callable[[str], bool] = lambda name: True,
        task: str | None = None,
        beside: Beside | None = None,
        correct: Correct | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        stream: int = 0,
        record: bool = True,
    ) -> None:
        """Train with the configured optimiser and budget, in place.

        Args:
            shared: ``[clients, P]`` backbones instead of the job's own.
            private: the heads that go with them.
            trainable: which of the trainable parameters to train, by name.
            task: train for this task alone: the others weigh nothing, and their heads stay.
            beside: is called with every minibatch before its step, to train something else on it.
            correct: changes the gradients in place before every step, and is told who takes it.
            steps: this many steps instead of the configured budget.
            epochs: this many passes over the data instead.
            stream: which order of minibatches, see :meth:`batches`.
            record: count these steps and losses as the clients' training.
        """
        shared = self.shared if shared is None else shared
        private = self.private if private is None else private
        names = {name for name in self._trained_for(task) if trainable(name)}
        parameters, frozen = self._divided(shared, private, names)
        if self.descent is not None and beside is None and correct is None:
            budget, padded = self._budget(steps, epochs), not isinstance(self.descent, Alone)
            drawn, order = self._draw(budget, stream, padded=padded).packed(self.least)
            weights = self.weights(private, task)
            sums = self._descend_at_once(self.descent, parameters, frozen, weights, drawn, order)
            if sums is not None:
                self._count(*sums, drawn.steps[np.argsort(order)], private, record, task)
                return
        optimiser = self.optimiser(parameters)
        weights, fixed = self.weights(private, task), not self.balance.private()
        total = torch.zeros_like(self.losses)
        taken = torch.zeros(len(self.cohort), device=shared.device)
        counted = torch.zeros_like(self.losses)  # steps whose minibatch had a label of the task
        for batch in self.batches(steps, stream, epochs=epochs):
            if beside is not None:
                beside(batch)
            if not fixed:
                weights = self.weights(private, task)
            found = self.kernel(parameters, frozen, batch.x, batch.y, weights)
            if correct is not None:
                correct(found.of, parameters, batch.active)
            optimiser.step(found.of, batch.active)
            counts = batch.labelled  # whoever is not active has no label either
            if counts is None and batch.active is not None:
                counts = batch.active[:, None]
            if found.norms is not None or self.balance.each_step:
                losses = found.losses
                if counts is not None:
                    losses = torch.where(counts, losses, torch.nan)
                self.balance.after_step(found.norms, losses, private)
            total += found.losses if counts is None else torch.where(counts, found.losses, 0)
            counted += 1 if counts is None else counts
            taken += 1.0 if batch.active is None else batch.active.float()
        self._count(total, counted, taken.long().cpu().numpy(), private, record, task)

    def _trained_for(self, task: str | None) -> Collection[str]:
        """Return the names of what may change where ``task`` is trained; None: all of them."""
        if task is None:
            return self.trainable
        heads = tuple(f"heads.{own.name}." for own in self.cohort.tasks if own.name != task)
        return {name for name in self.trainable if not name.startswith(heads)}

    def _descend_at_once(
        self,
        descent: Descent | Traced | Alone,
        parameters: Tensors,
        frozen: Tensors,
        weights: Tensor,
        drawn: Schedule,
        order: np.ndarray,
    ) -> tuple[Tensor, Tensor] | None:
        """Descend in steps that write no gradients down.

        Args:
            descent: takes them.
            parameters: trained in place.
            frozen: the rest of the model.
            weights: ``[clients, tasks]`` of the tasks.
            drawn: the minibatches, packed.
            order: ``[clients]`` whose they are.

        Returns:
            As :meth:`fedjoint.training.descent.Descent.run`, for the job's clients.
        """
        in_order = np.array_equal(order, np.arange(len(order)))
        at = slice(None) if in_order else torch.from_numpy(order).to(self.shared.device)
        own = parameters
        if isinstance(descent, Descent):  # products go into weights that lie one after the other
            whole = torch.contiguous_format
            own = {n: p[at].clone(memory_format=whole) for n, p in parameters.items()}
        rest = {n: t[at] for n, t in frozen.items()}
        sums = descent.run(own, rest, self._few(drawn, order), weights[at], self.lr)
        if sums is None:
            return None
        if own is not parameters:
            for name, parameter in parameters.items():
                parameter[at] = own[name]
        if not in_order:
            for values in sums:
                values[at] = values.clone()
        return sums

    def _few(self, drawn: Schedule, order: np.ndarray) -> Iterator[Few]:
        data = self.cohort.learnt
        rows, labelled = self._places(drawn, order)
        examples = drawn.mask.sum(2)
        taking = (examples > 0).sum(1).tolist()
        # No padding for one that trains alone: BatchNorm would take it for data.
        alone = isinstance(self.descent, Alone)
        lengths = examples[:, 0].tolist() if alone else [rows.shape[2]] * len(rows)
        for step, (x, y) in enumerate(data.in_turn(rows, taking, lengths)):
            some = taking[step]
            yield Few(some, x, y, None if labelled is None else labelled[step, :some])

    def _count(
        self,
        total: Tensor,
        counted: Tensor,
        taken: np.ndarray,
        private: Tensors,
        record: bool,
        task: str | None,
    ) -> None:
        """Note the losses ``[clients, tasks]`` and the steps ``[clients]`` of a descent."""
        # A loss that was infinite or undefined shows as infinite: NaN says that there was none.
        mean = torch.where((counted > 0) & ~total.isfinite(), torch.inf, total / counted)
        self.work += taken
        if record:
            if task is None:
                self.losses = mean
            else:
                own = [other.name for other in self.cohort.tasks].index(task)
                self.losses[:, own] = mean[:, own]
            self.steps = self.steps + taken
            self.balance.after_round(mean, private)
