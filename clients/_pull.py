"""The pull of some methods towards the received backbone, ``m / 2 * |backbone - received|^2``."""

from __future__ import annotations

from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.training.job import Correct
from fedjoint.training.method import Tensors


def pull_to(target: Tensors, strength: float) -> Correct:
    """Return what adds the pull's gradient, ``strength * (parameter - target)``.

    Args:
        target: name -> tensor that broadcasts against the parameter; others are not pulled.
        strength: m.
    """

    def pull(gradients: Tensors, parameters: Tensors, _active: Tensor | None) -> None:
        for name in gradients.keys() & target.keys():
            gradients[name] = gradients[name] + strength * (parameters[name] - target[name])

    return pull


def check_pull(option: str, strength: float, config: Config) -> None:
    """Refuse a pull under which steps end further from the received backbone than they began.

    Steps of Adam are as long as its rate whatever the gradient, and no pull is too strong.

    Args:
        option: name of the option that says how strong it is.
        strength: m.
        config: the run's.

    Raises:
        UserError: it is too strong for the learning rate.
    """
    local = config.local
    if local.optimiser.name != "sgd":
        return
    most = local.strongest_pull - local.optimiser.weight_decay
    if strength >= most:
        raise UserError(
            f"{option} = {strength:g} is too strong a pull for local.optimiser.lr = "
            f"{local.optimiser.lr:g}: every step would end further from the received backbone than "
            f"it began; keep {option} below {most:g}, or lower the rate"
        )
