"""What an operator's interface makes of a SuperLink's refusals."""

import json

import httpx
import pytest

from fedjoint.errors import UserError
from fedjoint.flower.control import Control


def refusing(code):
    """An interface whose server refuses every key with one of Flower's codes."""
    control = Control("127.0.0.1:1", None)
    text = json.dumps({"code": code, "public_message": "Flower says little."})
    answer = httpx.Response(409, text=text, request=httpx.Request("POST", "http://x"))

    def call(request):
        raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)

    control._client.RegisterNode = call
    return control


def test_a_key_that_someone_else_has_just_registered_is_not_new():
    assert refusing(23).register("a", b"key") is False
    with pytest.raises(UserError, match=r"the server at 127\.0\.0\.1:1 refuses"):
        refusing(1).register("a", b"key")
