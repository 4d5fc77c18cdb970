"""What backbones for sentences have in common."""

from __future__ import annotations

from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.inputs import Description, Words, one_tensor


def words_of(inputs: Description) -> Words:
    """Return how the sentences are encoded.

    Raises:
        UserError: inputs are no sentences.
    """
    read = one_tensor(inputs)
    if read.words is None:
        has = f"{read.shape} {read.dtype}"
        raise UserError(f"it does not take inputs of {has}; set model.backbone")
    return read.words


class Embedded(nn.Module):
    """Word embeddings ``[n, words] -> [n, words, size]``, zero where there is no word (id 0).

    Args:
        vocabulary: number of word ids.
        size: of an embedding.
    """

    def __init__(self, vocabulary: int, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, size)
        nn.init.uniform_(self.table.weight, -0.25, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x) * (x != 0).unsqueeze(-1)
