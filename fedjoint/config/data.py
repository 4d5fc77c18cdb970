"""The ``data`` table of the configuration: which data, and which client holds what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedjoint.config.section import Plugin, Section


class SourceConfig(Plugin):
    """Where the examples come from."""

    name: str = Field("digits", description="see fedjoint list sources, or file.py:Class")


class DataConfig(Section):
    """The data, how it is divided among the clients, and which client has which task."""

    source: SourceConfig = SourceConfig()
    clients: int = Field(
        20, ge=1, description="number of clients; ignored by partition = 'natural'"
    )
    task_mix: list[list[str]] = Field(
        [],
        description="client i has the tasks task_mix[i % len]; default: as the source has it, "
        "which is every task where it does not say otherwise",
    )
    partition: Literal["iid", "dirichlet", "quantity", "shards", "one_task", "natural"] = Field(
        "dirichlet",
        description="iid; dirichlet: skewed labels; quantity: skewed sizes; shards: few labels "
        "each; one_task: iid, client i has only task i % tasks; natural: as the data's own "
        "clients. Generated data (synthetic) is always iid",
    )
    alpha: float = Field(
        0.5, gt=0, allow_inf_nan=False, description="of dirichlet and quantity; smaller: more skew"
    )
    shards_per_client: int = Field(2, ge=1, description="of shards: how many each client is dealt")
    by: str | None = Field(
        None,
        description="task (or csv column) whose values skew the partition; default: the first "
        "multiclass task. Numbers are skewed over ten quantile bins",
    )
    outputs: dict[str, int] = Field(
        {}, description="task -> number of classes, labels or targets; default: as in the data"
    )
    target_scale: dict[str, Literal["own", "none"] | list[float | list[float]]] = Field(
        {},
        description="task of regression -> how its targets are scaled in training: own, by each "
        "client's training examples; [mean, deviation] that all agree on; or none. Metrics and "
        "predictions have the targets' own units. Default: as the task has it, which is own",
    )
    valid_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of each client's examples, unless the data has a validation set",
    )
    test_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of each client's examples, unless the data has a test set: that is "
        "divided among the clients of its task, the whole of it",
    )
    min_examples: int = Field(
        8,
        ge=0,
        description="fewest examples of a client, without those of a test set of the data's own",
    )
    examples_per_client: int | None = Field(
        None,
        ge=1,
        description="most training examples of a client. With partition = 'iid' or 'one_task', "
        "clients draw exactly so many on demand, and two clients may draw the same example: any "
        "number of clients costs little memory. Generated data: how many are generated, default 46",
    )

    public_share: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="share of each client's training examples that becomes public, without labels: "
        "for strategies that compare what clients make of them (fedmd). All clients are loaded for "
        "that, on every machine",
    )
    unseen_clients: int = Field(
        0,
        ge=0,
        description="clients, drawn by seed, that neither train nor are evaluated: fedjoint "
        "transfer RUN --unseen adapts the backbone to them",
    )

    clients_are_tasks: bool = Field(
        False,
        description="whether every client is a task of its own under the one name of all: metrics "
        "are told by client, and compare, affinity and --groups treat clients as tasks",
    )

    @model_validator(mode="after")
    def _splits(self) -> DataConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must be below 1")
        return self

    @model_validator(mode="after")
    def _division(self) -> DataConfig:
        if self.partition == "one_task" and self.task_mix:
            raise ValueError(
                "partition = 'one_task' decides the tasks: leave out task_mix, or set partition to "
                "another, such as 'iid'"
            )
        if any(not mix or len(set(mix)) < len(mix) for mix in self.task_mix):
            raise ValueError("each entry of task_mix needs one or more different tasks")
        if any(not 1 <= outputs <= 1_000_000 for outputs in self.outputs.values()):
            raise ValueError("outputs must be positive, and a million at most")
        return self
