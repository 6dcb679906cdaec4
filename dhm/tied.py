"""The command line for a process that ends with the one it was started from, however that ends.

Its standard input is a pipe from there: when nothing holds the other end any more, it stops as by SIGTERM.
"""

import os
import signal
import sys
import threading

from dhm.__main__ import main


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main())
