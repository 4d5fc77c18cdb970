"""FedPer: heads stay with their client whatever the strategy, so it is FedAvg."""

from .fedavg import FedAvg as FedPer

__all__ = ["FedPer"]
