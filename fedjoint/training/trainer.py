"""Trains and evaluates cohorts on one device."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.limit import LateError, limited
from fedjoint._util.stretches import stretches
from fedjoint.config.schema import Config
from fedjoint.data.base import CENTRAL, SPLITS, Client
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError
from fedjoint.model.front import Front, divided
from fedjoint.model.frozen import changes_what_is_held, digest
from fedjoint.model.joint import JointModel
from fedjoint.model.layout import Layout
from fedjoint.model.mode import evaluating
from fedjoint.model.stream import Stream, loaded
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, cat, each, nbytes
from fedjoint.problem import Problem
from fedjoint.randomness import seeded, seeded_elsewhere
from fedjoint.training.accumulation import scales
from fedjoint.training.again import comes_again
from fedjoint.training.alone import Alone, laid_out
from fedjoint.training.augment import make_augmentations
from fedjoint.training.balance import Balance, make_balance
from fedjoint.training.chunk import Need, gpu_memory, most_on_cpu, most_on_gpu
from fedjoint.training.cohort import Cohort, Stack, everyones, gather
from fedjoint.training.descent import Descent
from fedjoint.training.deviations import deviations, pulls
from fedjoint.training.gradients import (
    Kernel,
    Measure,
    make_descent,
    make_kernel,
    make_measure,
    passes,
)
from fedjoint.training.job import Job, Tensors
from fedjoint.training.memory import computed_bytes, keep_freed_memory
from fedjoint.training.method import LocalMethod
from fedjoint.training.optimisers import Optimiser
from fedjoint.training.outputs import Outputs, make_outputs
from fedjoint.training.probe import Traits, examine
from fedjoint.training.residents import Residents
from fedjoint.training.side_effects import side_effects
from fedjoint.training.slow_operations import in_words
from fedjoint.training.targets import scaling_rules
from fedjoint.training.traced import Traced
from fedjoint.training.within import (
    Differentiate,
    TaskGradients,
    inner_products,
    make_differentiate,
)

log = logging.getLogger("fedjoint.training")

#: Examples of which the model is tried on those that differ.
_TRIED = 64


_Programs = tuple[Balance, Kernel, Measure, Descent | Traced | Alone | None]


class Trainer:
    """What a worker keeps between rounds: the model, its kernels, and resident data.

    Args:
        problem: tasks, backbone and data.
        config: the run's configuration.
        device: where to train.
        model: the problem's, where there is one already; its own weights are never trained.

    Attributes:
        model: the problem's.
    """

    def __init__(
        self,
        problem: Problem,
        config: Config,
        device: torch.device,
        model: JointModel | None = None,
    ):
        keep_freed_memory()
        self.problem, self.config, self.device = problem, config, device
        self.model: JointModel = (model or problem.model(config)).to(device)
        self.layout: Layout = self.model.layout()
        self.trainable = {n for n, p in self.model.named_parameters() if p.requires_grad}
        self._held = [(n, t, t._version) for n, t in self.model.frozen().items()]
        private = {} if self.layout.heads() else dict(self.model.heads.items())
        self.rules = scaling_rules(problem.tasks, private)
        self.augmentations = make_augmentations(config.local.augment)
        self._balances: dict[tuple[str, ...], Balance] = {}
        self._kernels: dict[tuple[str, ...], _Programs] = {}
        self._differentiate: dict[tuple[str, ...], Differentiate] = {}
        self._forward: dict[tuple[str, ...], Outputs] = {}
        self._residents = Residents(self._gather, config.engine.data_mb << 20)
        self.squeezed: str | None = None  # why jobs are smaller than intended

    @property
    def front(self) -> Front | None:
        """What of the model is computed once for each example, as nothing in it trains.

        Cohorts have what it makes of their examples in place of these.
        """
        return self.parts[0]

    @property
    def above(self) -> JointModel:
        """The model but for :attr:`front`."""
        return self.parts[1]

    @property
    def example(self) -> Input:
        """``[1, ...]`` an input as :attr:`above` takes it."""
        return self._fronted(self._here(self.problem.example))

    @cached_property
    def parts(self) -> tuple[Front | None, JointModel]:
        """:attr:`front` and :attr:`above`.

        Raises:
            UserError: the model remembers something where no client can keep it for itself.
        """
        if self.augmentations:  # they change the examples themselves, at every step
            return None, self.model
        with seeded(self.device, 0), seeded_elsewhere(0):
            few = cache(self._few)  # asked for only where something does not train
            front, above = divided(self.model, few)
            pays = front and comes_again(self.problem.data.sizes, front.nbytes, self.config)
            if pays and not side_effects(self.model, few()):
                return front, above
        return None, self.model

    @cached_property
    def fallback(self) -> str | None:
        """Why clients are trained one by one, or None where they are batched.

        Raises:
            UserError: a batch is to have fewer examples than the model takes.
        """
        local, traits = self.config.local, self.traits
        reason = local.alone or traits.sequential
        if reason is None and traits.slow:
            log.warning("%s", in_words(traits.slow))
        if traits.train > 1 and local.steps is None and not local.drop_last:
            return f"{reason}; an epoch's last minibatch of one example is left out"
        return reason

    @cached_property
    def traits(self) -> Traits:
        """How the model treats the examples of a batch.

        Raises:
            UserError: a batch is to have fewer examples than the model takes, or the model
                remembers something where no client can keep it for itself.
        """
        balance = self.balance(tuple(t for t in self.problem.tasks if t.name in self.model.heads))
        found = examine(self.above, balance, self._fronted(self._few()))
        self.check_held()
        for name, least in (("local", found.train), ("evaluate", found.evaluate)):
            size = getattr(self.config, name).batch_size
            if size < least:
                raise UserError(
                    f"{name}.batch_size is {size}, and the model takes no batch of fewer than "
                    f"{least} examples: raise it"
                )
        return found

    @cached_property
    def digest(self) -> str:
        """Of what does not train of the backbone, see :mod:`fedjoint.model.frozen`."""
        return digest(self.model.frozen())

    def check_held(self) -> None:
        """Make sure that the model's passes leave alone what serves all clients.

        Raises:
            UserError: a pass has changed it.
        """
        for name, tensor, version in self._held:
            if tensor._version != version:
                raise changes_what_is_held(name)

    @cached_property
    def _batch_size(self) -> int:
        """Examples in a minibatch; no more than some client has."""
        largest = int(self.problem.data.sizes.max())
        wanted = self.config.local.batch_size
        return wanted if self.config.local.drop_last else max(1, min(wanted, largest))

    def _few(self) -> Input:
        """Return a few inputs to try the model on, of one client where that has any."""
        data, example = self.problem.data, self.problem.example
        try:
            with limited(self.config.strategy.limit / 4):  # of a round, on a node that starts anew
                train = load_client(data, int((data.sizes > 1).argmax())).train
            own = train.take(torch.arange(min(_TRIED, len(train)))).x
            few = cat([loaded(self._fitted(own, "the inputs")), example])
        except (Exception, LateError):  # of a client's data, said when it is trained
            few = example
        return self._here(few)

    @cached_property
    def chunk(self) -> int:
        """Most clients in one job."""
        if self.fallback:
            return 1
        if self.device.type == "cuda":
            engine = self.config.engine
            memory = gpu_memory(self.device, engine.workers_per_gpu, engine.data_mb << 20)
            return most_on_gpu(self._need(computed=True), memory)
        adapted = any(not parameter.requires_grad for parameter in self.above.parameters())
        return most_on_cpu(self._need(computed=adapted))

    def _need(self, *, computed: bool) -> Need:
        """Return the bytes that a client takes; of what the model computes, where asked."""
        local, evaluate = self.config.local, self.config.evaluate
        example = self.example
        largest = int(self.problem.data.sizes.max())
        rows = min(largest, max(local.batch_size, evaluate.batch_size))
        kept = sum(tensor.numel() for tensor in self.model.private(()).values())
        need = Need(4 * (self.layout.size + kept), rows * nbytes(example), computed=0)
        if not computed:
            return need
        return replace(need, computed=rows * computed_bytes(self.above, example))

    def squeeze(self, clients: int) -> None:
        """Learn that a job of ``clients`` does not fit in the device's memory: halve jobs."""
        self.chunk = max(1, clients // 2)
        self.squeezed = f"jobs of more than {self.chunk} clients exceed the memory of {self.device}"

    def balance(self, tasks: tuple[Task, ...]) -> Balance:
        """Return the rule that weighs ``tasks``."""
        names = tuple(task.name for task in tasks)
        if names not in self._balances:
            known = [task.name for task in self.problem.tasks]
            self._balances[names] = make_balance(self.config.balance, tasks, known)
        return self._balances[names]

    def fresh(self, tasks: tuple[Task, ...], method: LocalMethod, received: Tensor) -> Tensors:
        """Return the private state of a client that never trained, on the device."""
        state = self.model.private([task.name for task in tasks])
        state |= self.balance(tasks).private()
        state |= method.private(self.model, tasks, received)
        if method.shares and self.config.strategy.compression.name != "none":
            state["compression.residual"] = torch.zeros_like(received)
        # In the order in which clients' state comes back, which a trace goes by.
        return {name: state[name].to(self.device) for name in sorted(state)}

    @cached_property
    def mixes(self) -> bool:
        """Whether a client trains as it does alone, beside others with tasks that it lacks."""
        return self.fallback is None and not self.traits.draws

    def chunks(self, clients: np.ndarray, *, mixed: bool = False) -> Iterator[slice]:
        """Divide ``clients`` into runs, evenly, short enough for one job.

        Args:
            clients: ``[clients]`` positions.
            mixed: whether those of a run may have different tasks.
        """
        alike = stretches(self.problem.data.tasks[clients])
        for at in [slice(0, len(clients))] if mixed else alike:
            start, count = at.start, at.stop - at.start
            parts = math.ceil(count / self.chunk)
            for part in range(parts):
                yield slice(start + count * part // parts, start + count * (part + 1) // parts)

    def cohort(self, places: np.ndarray, clients: np.ndarray) -> Cohort:
        """Return the data of clients, resident on the device.

        Args:
            places: ``[clients]`` their positions in the data.
            clients: ``[clients]`` their ids.
        """
        return self._residents.cohort(places, clients)

    def _gather(
        self, places: np.ndarray, clients: np.ndarray, known: Sequence[Client | None]
    ) -> Cohort:
        data, tasks = self.problem.data, self.problem.tasks
        return gather(data, tasks, self.fit, places, clients, known, self.device, self.rules)

    def fit(self, x: Input | Stream, who: str) -> Input | Stream:
        """Return inputs as :attr:`above` takes them, see :meth:`fedjoint.Problem.fitted`."""
        found = self._fitted(x, who)
        return found if self.front is None else self.front(found)

    def _fitted(self, x: Input | Stream, who: str) -> Input | Stream:
        return self.problem.fitted(x, who, self.model.ids)

    def _here(self, x: Input) -> Input:
        there: Input = each(lambda tensor: tensor.to(self.device), x)
        return there

    def _fronted(self, x: Input) -> Input:
        return x if self.front is None else self.front(x)

    def job(
        self,
        cohort: Cohort,
        round: int,
        received: Tensor,
        broadcast: Mapping[str, Tensor],
        shared: Tensor,
        private: Tensors,
        rates: np.ndarray | None = None,
    ) -> Job:
        """Return a job that trains ``shared`` and ``private`` in place.

        Args:
            cohort: the clients.
            round: the round.
            received: ``[P]`` the global backbone.
            broadcast: what else the strategy sent.
            shared: ``[clients, P]``, holding ``received`` in every row.
            private: name -> ``[clients, ...]`` the clients' private state.
            rates: ``[clients]`` float32, further factors on the learning rate.
        """
        local = self.config.local
        balance, kernel, measure, descent = self._kernel(cohort.tasks)
        rule = local.optimiser.model_copy(update={"lr": local.rate(round)})
        own = self._scales(cohort, rates)
        scale = own if local.lr_scales or rates is not None else None
        return Job(
            cohort=cohort,
            round=round,
            seed=self.config.seed,
            layout=self.layout,
            received=received,
            broadcast=broadcast,
            shared=shared,
            private=private,
            kernel=kernel,
            measure=measure,
            descent=descent if scale is None else None,
            optimiser=lambda parameters: Optimiser(rule, parameters, scale),
            balance=balance,
            trainable=self.trainable | set(balance.trained),
            budget={
                "batch_size": self._batch_size,
                "epochs": local.epochs,
                "steps": local.steps,
                "drop_last": local.drop_last,
            },
            padded=self.traits.sequential is None and self.traits.draws,
            least=self.traits.train,
            rate=rule.lr * own,
            lr=rule.lr,
            momentum=rule.momentum,
            last=round >= self.config.rounds,
            model=self.above,
            batched=self.fallback is None,
            public=self.public,
            augmentations=self.augmentations,
        )

    def _scales(self, cohort: Cohort, rates: np.ndarray | None) -> Tensor:
        """``[clients]``, factors on the learning rate: the configured ones, and ``rates``."""
        factors = scales(self.config.local, cohort.clients)
        return torch.from_numpy(factors if rates is None else factors * rates).to(self.device)

    def _kernel(self, tasks: tuple[Task, ...]) -> _Programs:
        key = tuple(task.name for task in tasks)
        if key not in self._kernels:
            local, balance, batched = self.config.local, self.balance(tasks), self.fallback is None
            kernel = make_kernel(
                self.above,
                balance,
                batched=batched,
                precision=local.precision,
                compiled=local.compile,
            )
            measure = make_measure(
                self.above,
                tasks,
                batched=batched,
                precision=local.precision,
                rows=self.config.evaluate.batch_size,
                least=self.traits.evaluate,
            )
            descent = None
            as_they_are = not (self.traits.draws or self.augmentations)
            if as_they_are and not (batched and local.compile):
                last = self._channels_last
                descent = make_descent(self.above, balance, local, self._how, channels_last=last)
            self._kernels[key] = balance, kernel, measure, descent
        return self._kernels[key]

    def within(self, job: Job) -> Tensor:
        """Return how the tasks of each of the job's clients pull at the backbone they received.

        Args:
            job: of clients with several tasks, before it trains.

        Returns:
            ``[clients, tasks, tasks]`` float64 on the CPU, the inner products of the gradients of
            the tasks' mean losses, on the first ``evaluate.batch_size`` training examples; a task
            without labels there has a gradient of zero.
        """
        few = slice(self.config.evaluate.batch_size)
        return inner_products(self._task_gradients(job, few).mean()[0]).cpu()

    def pulls(self, job: Job) -> Tensor:
        """``[clients, tasks, P]``, see :mod:`fedjoint.training.deviations`.

        Args:
            job: of clients with several tasks, before it trains.
        """
        rows = int(job.cohort.train.sizes.max()) + (self.fallback is None)  # and the padding
        first, *others = passes(rows, self.config.evaluate.batch_size, self.traits.evaluate)
        found = self._task_gradients(job, first)
        for at in others:
            found = found + self._task_gradients(job, at)
        return pulls(job, found)

    def deviations(self, job: Job, pulls: Tensor, update: Tensor) -> Tensor:
        """``[clients, tasks - 1, P]``, see :func:`fedjoint.training.deviations.deviations`."""
        return deviations(job, pulls, update, self.config.local.optimiser)

    def _task_gradients(self, job: Job, at: slice) -> TaskGradients:
        """Differentiate the tasks' losses on some of the training examples."""
        tasks = job.cohort.tasks
        key = tuple(task.name for task in tasks)
        if key not in self._differentiate:
            self._differentiate[key] = make_differentiate(
                self.above,
                tasks,
                self.trainable & self.layout.parameters.shapes.keys(),
                batched=self.fallback is None,
                precision=self.config.local.precision,
            )
        train = job.cohort.learnt
        train = train if self.fallback is None else train.alone
        weights = {**self.layout.views(job.shared), **job.private}
        return self._differentiate[key](weights, *train.at(at))

    @torch.no_grad()
    def evaluate(
        self, cohort: Cohort, shared: Tensor, private: Tensors, *, train: bool = True
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the metrics' statistics of every client, and which of them have any.

        Args:
            cohort: the clients.
            shared: ``[clients, P]`` backbones, or ``[clients, tasks, P]``, one for each task.
            private: name -> ``[clients, ...]`` private state.
            train: whether on the training examples, too.

        Returns:
            ``<split>/<task>`` -> ``[clients, k]`` float64 on the CPU, for the splits train, valid,
            test and central, as far as they are measured; and ``[clients]`` bool, whose outputs
            are all finite. The statistics of the others mean nothing.
        """
        if shared.ndim == 2:
            parts = [(shared, cohort.tasks)]
        else:
            parts = [(shared[:, at], (task,)) for at, task in enumerate(cohort.tasks)]
        names = [task.name for task in cohort.tasks]
        result: dict[str, Tensor] = {}
        finite = torch.ones(len(cohort), dtype=torch.bool, device=self.device)
        with evaluating(self.above):
            for backbones, tasks in parts:
                weights = self._to_evaluate(backbones, private)
                for split, stack in self._measured(cohort, names, train):
                    sums = self._statistics(cohort, tasks, stack, weights, finite)
                    result |= {f"{split}/{key}": values.cpu() for key, values in sums.items()}
        self.check_held()
        return result, finite.cpu()

    def _to_evaluate(self, shared: Tensor, private: Tensors) -> Tensors:
        """Return the weights of models as a forward pass takes them."""
        weights = {**self.layout.views(shared), **private}
        weights = {n: t for n, t in weights.items() if n in self._state_names}
        if self.fallback is None:
            return weights
        return {n: laid_out(t[0], self._channels_last) for n, t in weights.items()}

    def _measured(
        self, cohort: Cohort, names: Sequence[str], train: bool
    ) -> Iterator[tuple[str, Stack]]:
        for split in SPLITS if train else SPLITS[1:]:
            yield split, getattr(cohort, split)
        if self.central is not None:
            yield CENTRAL, self.central.shared(len(cohort), names)

    @cached_property
    def central(self) -> Stack | None:
        """The examples on which every client is measured, on the device; None: there are none.

        Raises:
            UserError: they do not fit the model or the tasks.
        """
        problem = self.problem
        if problem.central is None:
            return None
        return everyones(problem.central, problem.tasks, self.fit, self.device)

    @cached_property
    def public(self) -> Input | None:
        """The examples that all clients have, on the device; None: there are none.

        Raises:
            UserError: they do not fit the model.
        """
        if self.problem.public is None:
            return None
        return self._here(loaded(self.fit(self.problem.public, "the public inputs")))

    def _statistics(
        self,
        cohort: Cohort,
        tasks: Sequence[Task],
        stack: Stack,
        weights: Tensors,
        finite: Tensor,
    ) -> Tensors:
        outputs_of, sums = self._outputs(tuple(task.name for task in tasks)), dict[str, Tensor]()
        stack = stack if self.fallback is None else stack.alone
        for at in passes(stack.rows, self.config.evaluate.batch_size, self.traits.evaluate):
            x, y = stack.at(at)
            outputs = outputs_of(weights, x)
            for task in tasks:
                output, scale = outputs[task.name], cohort.scales.get(task.name)
                # Padding repeats an example of the client's own, so it is finite where they are.
                fine = output.flatten(1).isfinite().all(1)
                if (lacks := cohort.lacking.get(task.name)) is not None:
                    fine |= lacks
                finite &= fine
                if scale is not None:
                    output = scale.units(output)
                for key, metric in task.measures.items():  # the padding's labels are missing
                    found = metric.summed(output, y[task.name])
                    sums[key] = sums.get(key, 0) + found
        return sums

    def _outputs(self, names: tuple[str, ...]) -> Outputs:
        """Return what computes the outputs of clients with these tasks, in evaluation mode."""
        if names not in self._forward:
            self._forward[names] = make_outputs(
                self.above,
                names,
                batched=self.fallback is None,
                channels_last=self._channels_last,
            )
        return self._forward[names]

    @property
    def _how(self) -> Literal["batched", "sequential", "traced"]:
        """How clients take their steps."""
        if self.fallback is None:
            return "batched"
        traced = self.config.local.path in ("traced", "channels_last")
        return "traced" if traced and not self.traits.sequential else "sequential"

    @property
    def _channels_last(self) -> bool:
        return self.config.local.path == "channels_last"

    @cached_property
    def _state_names(self) -> set[str]:
        return set(self.above.state_dict())
