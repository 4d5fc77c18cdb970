"""How long a SuperLink for simulations waits for a run's process."""

import subprocess
import sys

CODE = """
from fedjoint.flower.simulation_link import be_patient
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE
before = HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL
be_patient()
from flwr.supercore.corestate import in_memory_corestate, sql_corestate
for state in (in_memory_corestate, sql_corestate):
    assert state.HEARTBEAT_DEFAULT_INTERVAL == 600, "as long as a process has to start"
    assert state.HEARTBEAT_PATIENCE * state.HEARTBEAT_DEFAULT_INTERVAL == before
"""


def test_it_waits_long_for_the_start_and_as_before_for_signs_of_life():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
