"""The ``data`` table of the configuration: which data, and which client holds what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedjoint.config.section import Section

Kind = Literal["multiclass", "multilabel", "regression"]


class HubConfig(Section):
    """A dataset of the Hugging Face hub (``source = "hub"``); ``data.targets`` names its labels."""

    name: str | None = Field(None, description="name of the dataset, such as ylecun/mnist")
    split: str = Field("train", description="split to use; clients make their own splits of it")
    input: str = Field("image", description="column of images, texts or numbers")


class SyntheticConfig(Section):
    """Regression tasks that conflict by a known angle (``source = "synthetic"``)."""

    tasks: int = Field(2, ge=1, description="number of tasks, named task0, task1, ...")
    inputs: int = Field(16, ge=2, description="number of features")
    conflict_degrees: float = Field(
        90.0, ge=0, le=180, description="angle between the first and the last task"
    )
    noise: float = Field(0.1, ge=0, allow_inf_nan=False, description="standard deviation on y")
    learned_heads: bool = Field(
        False, description="linear heads, which can undo a conflict, in place of fixed ones"
    )


class DataConfig(Section):
    """The data, how it is divided among the clients, and which client has which task."""

    source: Literal["digits", "text", "idx", "csv", "hub", "synthetic"] = "digits"
    path: str | list[str] | None = Field(
        None,
        description="a file, a folder of files or a list of files (text, idx, csv); for text, "
        "files whose names agree up to the first dot are one task, named by that part",
    )
    clients: int = Field(20, ge=1, description="ignored by partition = 'natural'")
    task_mix: list[list[str]] = Field(
        [],
        description="client i has the tasks task_mix[i % len]; default: every task (digits: see "
        "fedjoint.data.digits.MIX, synthetic: one task each, in turn)",
    )
    partition: Literal["iid", "dirichlet", "quantity", "shards", "one_task", "natural"] = Field(
        "dirichlet",
        description="iid; dirichlet: skewed labels; quantity: skewed sizes; shards: few labels "
        "each; one_task: iid, client i has only task i % tasks; natural: by client_column. "
        "Generated data (synthetic) is always iid",
    )
    alpha: float = Field(
        0.5, gt=0, allow_inf_nan=False, description="of dirichlet and quantity; smaller: more skew"
    )
    shards_per_client: int = Field(2, ge=1)
    by: str | None = Field(
        None,
        description="task (or csv column) whose values skew the partition; default: the first "
        "multiclass task. Numbers are skewed over ten quantile bins",
    )
    client_column: str | None = Field(None, description="column that names the client (csv, hub)")
    targets: dict[str, Kind] = Field(
        {}, description="column -> kind of task (csv, hub); other cells hold features"
    )
    features: list[str] = Field(
        [], description="csv: feature columns; default: every other column of numbers"
    )
    standardise: bool = Field(
        True,
        description="csv: each client standardises features by its own training examples' mean "
        "and deviation; no statistics are shared",
    )
    outputs: dict[str, int] = Field(
        {}, description="task -> number of classes, labels or targets; default: as in the data"
    )
    encoding: str | None = Field(
        None, description="of text and csv files; default: UTF-8, and Latin-1 where that fails"
    )
    max_length: int = Field(40, ge=1, description="text: words kept of a sentence")
    vocabulary: int = Field(4096, ge=2, description="text: hash buckets of words, and padding")
    valid_fraction: float = Field(0.1, ge=0, lt=1, description="share of each client's examples")
    test_fraction: float = Field(0.2, ge=0, lt=1, description="share of each client's examples")
    min_examples: int = Field(8, ge=0, description="fewest examples of a client, splits together")
    examples_per_client: int | None = Field(
        None,
        ge=1,
        description="most examples of a client. With partition = 'iid', clients draw exactly so "
        "many on demand, and two clients may draw the same example: any number of clients costs "
        "little memory. Generated data: how many are generated, default 64",
    )
    hub: HubConfig = HubConfig()
    synthetic: SyntheticConfig = SyntheticConfig()

    @property
    def owner_column(self) -> str | None:
        """The column that says whose an example is, where the partition follows it."""
        return self.client_column if self.partition == "natural" else None

    @model_validator(mode="after")
    def _splits(self) -> DataConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must be below 1")
        return self

    @model_validator(mode="after")
    def _source(self) -> DataConfig:
        reads_files = self.source in ("text", "idx", "csv")
        if reads_files and not self.path:
            raise ValueError(f"source = '{self.source}' needs path, to a file or folder")
        if not reads_files and self.path:
            raise ValueError(f"path does not belong to source = '{self.source}'")
        has_columns = self.source in ("csv", "hub")
        if has_columns and not self.targets:
            raise ValueError(f"source = '{self.source}' needs targets: column -> kind of task")
        if not has_columns and (self.targets or self.client_column):
            raise ValueError("targets and client_column belong to source = 'csv' or 'hub'")
        if self.features and self.source != "csv":
            raise ValueError("features belong to source = 'csv'")
        if self.source == "hub" and not self.hub.name:
            raise ValueError("source = 'hub' needs hub.name, the dataset's name")
        return self

    @model_validator(mode="after")
    def _division(self) -> DataConfig:
        if self.partition == "natural" and not self.client_column:
            raise ValueError("partition = 'natural' needs client_column (csv and hub)")
        if self.partition == "one_task" and self.task_mix:
            raise ValueError("partition = 'one_task' decides the tasks: leave out task_mix")
        if any(not mix or len(set(mix)) < len(mix) for mix in self.task_mix):
            raise ValueError("each entry of task_mix needs one or more different tasks")
        if any(outputs < 1 for outputs in self.outputs.values()):
            raise ValueError("outputs must be positive")
        return self
