"""An option that several backbones have."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from fedjoint.options import Count

#: layer widths, one or more
Widths = Annotated[Sequence[Count], Field(min_length=1)]
