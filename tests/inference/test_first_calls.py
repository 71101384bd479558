"""The first calls of an engine may come from several threads at once: a process of its own must not stand still.

openvino's bindings deadlock there in half of the runs when nothing is done about it, holding the interpreter's lock.
"""

import subprocess
import sys

FIRST_CALLS = """
import sys, threading
import numpy as np
from taxonet.inference.engines.libraries import import_openvino
openvino = import_openvino()
sys.setswitchinterval(1e-6)
start = threading.Barrier(4)
def call():
    start.wait()
    openvino.Type.u8.to_dtype()
    openvino.Tensor(np.zeros(4, np.uint8), shared_memory=True).data
threads = [threading.Thread(target=call) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_calls_from_several_threads_return():
    for _ in range(4):
        subprocess.run([sys.executable, "-c", FIRST_CALLS], check=True, timeout=120)
