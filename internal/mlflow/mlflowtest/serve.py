"""Run `mlflow server` with the given arguments until standard input is closed,
so that it ends with the test, however that ends."""

import os
import signal
import subprocess
import sys
import threading

server = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *sys.argv[1:]], stdin=subprocess.DEVNULL, start_new_session=True)


def watch():
    sys.stdin.read()
    os.killpg(server.pid, signal.SIGKILL)


threading.Thread(target=watch, daemon=True).start()
sys.exit(server.wait() != 0)
