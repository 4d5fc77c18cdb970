"""One format on every line, files that do not grow for ever, and two processes in one file."""

import json
import subprocess
import sys

import pytest

from fedjoint._util import logs
from fedjoint.errors import UserError

LOGGING = """
import logging, sys
from fedjoint._util.logs import choose_logging
choose_logging(*sys.argv[1:])
logging.getLogger("fedjoint.deploy").info("connected")
logging.getLogger("other").info("chatter")
logging.getLogger("other").warning("two\\nlines")
logging.getLogger("fedjoint.deploy").debug("details")
"""


def lines(*options):
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, *options], capture_output=True, text=True, check=True
    )
    assert not done.stdout
    return done.stderr.splitlines()


def test_text_has_time_level_and_logger_on_every_line():
    said = lines("info", "text")
    assert [line.split(" ", 1)[1] for line in said] == [
        "INFO fedjoint.deploy: connected",
        "WARNING other: two lines",
    ]
    for line in said:
        assert line[10] == "T" and line.split()[0].endswith("+00:00")


def test_json_is_one_object_a_line_and_levels_are_heeded():
    said = [json.loads(line) for line in lines("debug", "json")]
    assert said[0]["message"] == "connected"
    assert "details" in [line["message"] for line in said]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in said)
    assert [json.loads(line)["level"] for line in lines("error", "json")] == []


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("info", "xml")])
def test_an_unknown_level_or_format_is_refused(level, form):
    with pytest.raises(UserError, match=r"--log-(level|format) \w+: allowed are"):
        logs.choose_logging(level, form)


WRITER = """
import logging, pathlib, sys
from fedjoint._util.logs import log_to
log_to(pathlib.Path(sys.argv[1]), watch=True)
for line in sys.stdin:
    logging.getLogger("fedjoint.node").info(line.strip())
    print()
"""


def test_a_full_log_gives_way_to_another_and_old_ones_go(tmp_path, own_logger, monkeypatch):
    monkeypatch.setattr(logs, "_MOST", 1000)
    path = tmp_path / "log.jsonl"
    logs.log_to(path, rotate=True)
    other = subprocess.Popen(
        [sys.executable, "-u", "-c", WRITER, path], stdin=-1, stdout=-1, text=True
    )
    for number in range(200):
        own_logger.info("%s", f"own {number}")
        other.stdin.write(f"other {number}\n")
        other.stdin.flush()
        other.stdout.readline()
    other.stdin.close()
    other.wait()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs._KEPT and all(file.stat().st_size < 1500 for file in files)
    newest = [json.loads(line)["message"] for f in files for line in f.read_text().splitlines()]
    assert {"own 199", "other 199"} <= set(newest) and "own 0" not in newest
