"""FedNova: averaging that does not favour the clients that took more steps."""

from torch import Tensor

from fedjoint.updates import Updates
from strategies.fedavg import FedAvg


class FedNova(FedAvg):
    """Normalised averaging: ``step = server_lr * tau * sum_i weights_i * update_i / steps_i``.

    ``steps_i`` is the number of local steps behind ``update_i`` (``[P]``), and
    ``tau = sum_i weights_i * steps_i`` restores the length. This is the paper's rule for
    clients that run plain SGD. With equal steps it is FedAvg.

    Args:
        server_lr: factor on the merged update.

    Paper: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous
    Federated Optimization", NeurIPS 2020, https://arxiv.org/abs/2007.07481
    """

    per_client = True

    def merge(self, updates: Updates) -> Tensor:
        tau = updates.weights @ updates.steps.to(updates.weights)
        # An update of no steps is zero: any divisor will do.
        return self.step(tau * updates.combine(updates.weights / updates.steps.clamp(min=1)))
