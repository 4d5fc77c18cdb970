"""FedPer: heads stay with their client whatever the strategy, so it is FedAvg."""

from strategies.fedavg import FedAvg as FedPer

__all__ = ["FedPer"]
