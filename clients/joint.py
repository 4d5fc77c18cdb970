"""The plain local method: train the backbone and the heads together."""

from fedjoint.training.method import LocalMethod


class Joint(LocalMethod):
    """Minimise the tasks' combined loss over the shared backbone and the client's heads.

    Paper: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019,
    https://arxiv.org/abs/1912.00818
    """

    mu = 0.0
