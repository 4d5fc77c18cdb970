"""The configuration of a run: one checked tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fedjoint.config.data import DataConfig
from fedjoint.config.section import Plugin, Section

_HOUR = 3600.0  # seconds


class OptimiserConfig(Section):
    """The clients' optimiser."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="which optimiser")
    lr: float = Field(0.1, ge=1e-12, le=1e6, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(
        0.0, ge=0, le=1e6, description="L2 (sgd, adam) or decoupled (adamw)"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="of adam and adamw: of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="of adam and adamw: of the mean square")
    epsilon: float = Field(
        1e-8, ge=1e-30, le=1, description="of adam and adamw: added to the root of that"
    )


class LocalConfig(Section):
    """Training on the clients."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="passes over the client's data per round; 1 where steps is not given",
    )
    steps: int | None = Field(None, ge=1, le=1_000_000, description="optimiser steps per round")
    batch_size: int = Field(16, ge=1, description="examples in a minibatch")
    drop_last: bool = Field(
        False, description="leave out an epoch's last minibatch where it is short"
    )
    optimiser: OptimiserConfig = OptimiserConfig()
    lr_decay: float = Field(1.0, ge=0.01, le=1, description="factor on the rate after each round")
    lr_scales: list[float] = Field(
        [], description="client i multiplies the rate by entry i % len; default: all by one"
    )
    method: str | None = Field(
        None, description="local method, by registered name; default: the strategy's"
    )
    options: dict[str, Any] = Field({}, description="options of the local method named here")
    path: Literal["auto", "batched", "sequential", "traced", "channels_last"] = Field(
        "auto",
        description="clients batched, or one by one: as PyTorch does, replayed from a trace of one "
        "client's step, or with the channels of images last; auto: what a trial before the first "
        "round of a simulation finds fastest",
    )
    pack: int = Field(
        0,
        ge=0,
        le=1024,
        description="clients that train in one job, whatever their tasks, where blocks have fewer; "
        "1: blocks train by themselves; 0: in a simulation, as many as take as long for a step "
        "as it takes to start one",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the forward and the backward pass"
    )
    compile: bool = Field(False, description="torch.compile the batched step")
    augment: list[Plugin] = Field(
        [],
        description="how minibatches are changed at random, one after the other: see fedjoint list "
        "augmentations, or file.py:Class",
    )

    @model_validator(mode="after")
    def _rates(self) -> LocalConfig:
        if any(not 1e-30 <= scale <= 1e30 for scale in self.lr_scales):
            raise ValueError("lr_scales must be above zero, from 1e-30 to 1e30")
        return self

    @property
    def alone(self) -> str | None:
        """What has clients train one by one, or None: nothing that is set."""
        path = self.path
        return None if path in ("auto", "batched") else f"local.path is {path}"

    @model_validator(mode="after")
    def _decays(self) -> LocalConfig:
        rule = self.optimiser
        if rule.name != "adam" and rule.weight_decay >= self.strongest_pull:
            raise ValueError(
                f"optimiser.weight_decay = {rule.weight_decay:g} throws weights further beyond "
                f"zero than they were, at every step: keep it below {self.strongest_pull:g}, or "
                "lower optimiser.lr"
            )
        return self

    @model_validator(mode="after")
    def _whose_options(self) -> LocalConfig:
        if self.options and self.method is None:
            raise ValueError("options belong to method; the strategy's own are strategy.options")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            given = [key for key in ("epochs", "steps") if values.get(key) is not None]
            if len(given) == 2:
                raise ValueError("give epochs or steps, not both")
            if values.get("drop_last") and "steps" in given:
                raise ValueError("steps take full minibatches anyway: leave out drop_last")
            if not given:
                return {**values, "epochs": 1}
        return values

    @property
    def strongest_pull(self) -> float:
        """The m from which on SGD or AdamW diverges on ``m / 2 * weight^2``, for some client.

        By its rate alone without momentum: ``rate * m < 2``; with it, ``2 * (1 + momentum)``
        (Polyak 1964). AdamW's decay has none.
        """
        rule = self.optimiser
        momentum = rule.momentum if rule.name == "sgd" else 0.0
        return 2 * (1 + momentum) / (rule.lr * max(self.lr_scales, default=1.0))

    def rate(self, round: int) -> float:
        """Return the learning rate of ``round``, from 1, before ``lr_scales``."""
        return self.optimiser.lr * self.lr_decay ** (round - 1)


class BalanceConfig(Plugin):
    """How the losses of several tasks on one client are weighted."""

    name: str = Field("fixed", description="see fedjoint list balances, or file.py:Class")


class BackboneConfig(Plugin):
    """The architecture of the backbone."""

    name: str = Field(
        "mlp", description="see fedjoint list backbones, or file.py:function, (inputs) -> module"
    )


class GroupConfig(Section):
    """Clients with an architecture of their own."""

    clients: list[int] = Field(description="numbers of the clients in the group")
    backbone: BackboneConfig = BackboneConfig()


class ModelConfig(Section):
    """The backbone."""

    backbone: BackboneConfig = BackboneConfig()
    groups: dict[str, GroupConfig] = Field(
        {},
        description="name -> clients and backbone of a group with an architecture of its own; "
        "every client is in one (docs/how-to/groups.md)",
    )
    common: list[str] = Field(
        [],
        description="patterns of the names of the shared tensors that all groups have in common, "
        "which are merged over all clients; the others are merged within each group",
    )
    initial: str | None = Field(
        None,
        description="what the shared weights begin as: a run directory, or a safetensors file of a "
        "state_dict; default: drawn by seed",
    )
    share: list[str] = Field(
        ["*"],
        description="patterns of the names of the backbone's tensors that are shared; one after ! "
        "takes away, later ones win; clients keep the others that train; frozen ones never travel",
    )
    heads: Literal["private", "shared"] = Field(
        "private",
        description="whether heads stay with their clients, or travel, too: shared, the head of a "
        "task is averaged over the clients of the task, as FedAvg of a whole model does",
    )
    norm: Literal["shared", "local"] = Field(
        "shared", description="share BatchNorm parameters and buffers, or keep them (FedBN)"
    )


class CompressionConfig(Plugin):
    """What clients send in place of the whole update."""

    name: str = Field("none", description="none, see fedjoint list compressions, or file.py:Class")

    @model_validator(mode="after")
    def _none_alone(self) -> CompressionConfig:
        if self.name == "none" and self.options:
            raise ValueError("options belong to a compression: set its name")
        return self


class StrategyConfig(Plugin):
    """Aggregation."""

    name: str = Field("fedavg", description="see fedjoint list strategies, or file.py:Class")
    weight_by: Literal["examples", "client", "task"] | None = Field(
        None,
        description="task: the clients of every task have the same weight together; default: "
        "examples, of robust rules client, as examples are what clients claim",
    )
    max_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="most that one of three or more clients weighs among all; default: 1, on real "
        "machines 0.5",
    )
    max_node_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="most that the clients of one of three or more nodes weigh together, and count "
        "in metrics; default: 1, on real machines 0.5",
    )
    clip: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="updates, and what is sent with them, longer than this many times the round's "
        "median are scaled down to that, and named; 0: never; default: 0, on real machines 10",
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of clients trained per round")
    min_clients: int = Field(1, ge=1, description="fewer successful clients: no merge")
    timeout: float | None = Field(
        None,
        gt=0,
        le=1e8,
        description="seconds that a node has for a round; a late client fails; default: 3600, on "
        "real machines ten times what the slowest node took of late, but at least 60",
    )
    compression: CompressionConfig = CompressionConfig()

    @property
    def limit(self) -> float:
        """Seconds that a node has at most, where nothing is measured."""
        return _HOUR if self.timeout is None else self.timeout


class EvaluateConfig(Section):
    """Evaluation on the clients."""

    every: int = Field(1, ge=1, description="rounds between evaluations; the last is evaluated")
    fraction: float = Field(1.0, gt=0, le=1, description="share of clients evaluated")
    initial: bool = Field(False, description="evaluate before the first round, too, as round 0")
    train: bool = Field(
        False,
        description="evaluate on training examples in every evaluation; else in the last round",
    )
    batch_size: int = Field(1024, ge=1, description="examples per forward pass and client")
    min_examples: int | None = Field(
        None,
        ge=1,
        description="fewest examples behind a loss or a metric that a node tells; default: 1, on "
        "real machines 5",
    )
    shared: bool = Field(
        False,
        description="where the local method personalises, measure the shared backbone, too, under "
        "the clients' own heads: splits shared_train, shared_valid and shared_test",
    )


class DiagnosticsConfig(Section):
    """Conflict diagnostics."""

    every: int = Field(1, ge=0, description="rounds between diagnostics; 0: never")
    within_every: int = Field(
        5,
        ge=0,
        description="rounds between measurements of how the tasks of one client conflict, on up "
        "to evaluate.batch_size of its training examples; 0: never",
    )
    clients: int = Field(64, ge=2, description="most clients compared, drawn anew every round")
    reference: str | None = Field(
        None,
        description="run directory of independent training on the same seed and data: every "
        "evaluation then tells each task's gain over it (transfer), negative where joint hurts",
    )


class EngineConfig(Plugin):
    """What executes the rounds."""

    name: str = Field("ray", description="see fedjoint list engines, or file.py:Class")
    workers: int = Field(0, ge=0, description="workers; 0: one per GPU share, else per CPU core")
    min_nodes: int = Field(1, ge=1, description="nodes without which no round starts (deployed)")
    blocks: int = Field(0, ge=0, description="blocks of clients; 0: 4 to 64, by their number")
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a node; 0: a worker's one, or as many as a trial finds to be "
        "faster where there are at most half as many clients as threads",
    )
    cpus_per_worker: float = Field(
        1.0, ge=0, le=1e6, description="CPUs that Ray sets aside for each"
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="whole or fraction; default: 1 / workers_per_gpu where Ray has GPUs",
    )
    workers_per_gpu: int = Field(1, ge=1, description="workers that share a GPU")
    address: str | None = Field(None, description="join this Ray cluster (auto, or host:port)")
    cache_clients: int = Field(
        20_000, ge=1, description="clients whose private state a worker keeps in memory"
    )
    data_mb: int = Field(
        4096, ge=1, description="megabytes of clients' data that a worker keeps, on its device"
    )


class OutputConfig(Section):
    """The run directory."""

    dir: str = Field("runs", description="parent of the run directories")
    checkpoint_every: int = Field(5, ge=1, description="rounds between checkpoints")
    keep_best: bool = Field(
        False, description="keep the models of the round with the best validation metrics, too"
    )


class Config(Section):
    """A scenario: everything that decides a run's numbers, and where they go."""

    name: str = Field("run", description="begins the names of run directories")
    seed: int = Field(0, ge=0, lt=2**63, description="decides every random choice")
    rounds: int = Field(30, ge=1, description="rounds of training")
    problem: str | None = Field(
        None, description="package.module:function or file.py:function, (config) -> Problem"
    )
    metrics: dict[str, list[Plugin]] = Field(
        {},
        description="task -> its metric, or a list of them, of which the first decides the best "
        "round; see fedjoint list metrics; default: by the kind of task",
    )
    losses: dict[str, Plugin] = Field(
        {}, description="task -> its loss, see fedjoint list losses; default: by the kind of task"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    local: LocalConfig = LocalConfig(epochs=1)
    balance: BalanceConfig = BalanceConfig()
    strategy: StrategyConfig = StrategyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    engine: EngineConfig = EngineConfig()
    callbacks: list[Plugin] = Field(
        [], description="what follows the run on its server: file.py:Class or file.py:function"
    )
    output: OutputConfig = OutputConfig()

    @field_validator("metrics", mode="before")
    @classmethod
    def _one_alone(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {n: each if isinstance(each, list) else [each] for n, each in values.items()}
