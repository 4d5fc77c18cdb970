"""Messages, opened."""

import json


def settings(message):
    """Return the ``config`` of a message, unchecked."""
    return json.loads(str(message.content.config_records["config"]["json"]))
