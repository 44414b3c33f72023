"""A fake xCAT 2: its client commands as executables, and the daemon they talk to.

Named a fake: nothing here is xCAT. It behaves as xCAT's man pages, and reports in its issue
tracker, show: arguments, output, where it is written to, exit codes. Behind it are nodes that
start, install and boot on set times, and faults by node and command.
"""

from tests.fake_xcat.faults import Fault
from tests.fake_xcat.nodes import Node, Times
from tests.fake_xcat.xcat import FakeXcat

__all__ = ["FakeXcat", "Fault", "Node", "Times"]
