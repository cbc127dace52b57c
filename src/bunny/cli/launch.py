"""The same command again in several processes, by torch's own launcher."""

from __future__ import annotations

import subprocess
import sys


def again(processes: int) -> int:
    """Run the command at work in so many processes on this machine; its exit code.

    Ctrl-C and SIGTERM reach all of them through the launcher.
    """
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with subprocess.Popen([*start, "-m", "bunny", *sys.argv[1:]]) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            return running.wait()
