"""FedAvg on the server, a personal method at the clients: FedRep, FedBABU, Ditto and APFL.

FedPer needs no entry: heads stay with their client whatever the strategy, so it is FedAvg.
"""

from strategies.fedavg import FedAvg
from strategies.options import number, switch, whole


class FedRep(FedAvg):
    """Clients first fit their heads to the frozen backbone, then the backbone to the heads.

    Args:
        head_steps: local steps on the heads; the method's usual steps go to the backbone.
        server_lr: factor on the mean update.

    Raises:
        UserError: an option is out of range.

    Paper: Collins et al., "Exploiting Shared Representations for Personalized Federated
    Learning", ICML 2021, https://arxiv.org/abs/2102.07078
    """

    method = "rep"

    def __init__(self, head_steps: int = 10, server_lr: float = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["head_steps"] = whole("head_steps", head_steps, least=1)


class FedBABU(FedAvg):
    """Clients train the backbone under heads that stay as they were made, and tune them last.

    Args:
        server_lr: factor on the mean update.

    Paper: Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", ICLR 2022, https://arxiv.org/abs/2106.06042
    """

    method = "babu"


class Ditto(FedAvg):
    """Clients also train a backbone of their own, held near the shared one.

    It minimises ``loss + lam / 2 * |own - shared|^2`` and never travels.

    Args:
        lam: strength of the pull, not negative; 0 trains it alone.
        server_lr: factor on the mean update.

    Raises:
        UserError: an option is out of range.

    Paper: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
    2021, https://arxiv.org/abs/2012.04221
    """

    method = "ditto"

    def __init__(self, lam: float = 0.1, server_lr: float = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["lam"] = number("lam", lam, least=0)


class APFL(FedAvg):
    """Clients predict with ``alpha * own backbone + (1 - alpha) * shared backbone``.

    Args:
        alpha: the share of the own backbone, in [0, 1]; if it is adaptive, the first.
        adaptive: whether every client learns an alpha of its own, which the paper proposes
            beside its algorithm with a fixed one.
        server_lr: factor on the mean update.

    Raises:
        UserError: an option is out of range.

    Paper: Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020,
    https://arxiv.org/abs/2003.13461
    """

    method = "apfl"

    def __init__(self, alpha: float = 0.5, adaptive: bool = False, server_lr: float = 1.0) -> None:
        super().__init__(server_lr)
        self.method_options["alpha"] = number("alpha", alpha, least=0, most=1)
        self.method_options["adaptive"] = switch("adaptive", adaptive)
