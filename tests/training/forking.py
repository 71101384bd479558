"""Processes that start at once: one process imports torch and Taxonet, and forks the others.

A forked process runs the command as `python -m taxonet` does, in a real process with its own environment; so tests can
start, kill and resume dozens of them in seconds.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import traceback


class Forks:
    """The process that forks."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, words, said, out=os.devnull, **environment):
        """Start the command; `said` and `out` are files for stderr and stdout."""
        return Fork(self, self.ask("start", [str(word) for word in words], str(said), str(out), environment))

    def start_together(self, count, words, folder, **environment):
        """Start `count` processes of one piece of work, as torchrun does; their words go to folder/RANK.txt."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            self.start(
                words,
                folder / f"{rank}.txt",
                folder / f"{rank}.out",
                **{k: str(v) for k, v in {**common, "RANK": rank, "LOCAL_RANK": rank, **environment}.items()},
            )
            for rank in range(count)
        ]

    def close(self):
        self.server.stdin.close()
        self.server.wait()


class Fork:
    """A forked process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, forks, pid):
        self.forks, self.pid, self.returncode = forks, pid, None

    def poll(self):
        if self.returncode is None:
            self.returncode = self.forks.ask("poll", self.pid)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self.returncode = self.forks.ask("wait", self.pid)
        return self.returncode


def _serve():
    import matplotlib.backends.backend_svg
    import sklearn.linear_model
    import sklearn.metrics
    import torch._dynamo  # what torch imports by itself in the first run
    import torch.distributed

    import taxonet.evaluation.report
    import taxonet.training
    from taxonet.cli.app import main

    torch.set_num_threads(1)
    assert taxonet.training
    assert matplotlib.backends.backend_svg
    assert sklearn.metrics
    for line in sys.stdin:
        kind, *rest = json.loads(line)
        if kind == "start":
            pid = os.fork()
            if pid == 0:
                _become(main, *rest)
            answer = pid
        else:
            found, status = os.waitpid(rest[0], os.WNOHANG if kind == "poll" else 0)
            answer = os.waitstatus_to_exitcode(status) if found else None
        print(json.dumps(answer), flush=True)


def _become(main, words, said, out, environment):
    try:
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for path, number in ((os.devnull, 0), (out, 1), (said, 2)):
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, mode), number)
        exec(environment.get("FORK_FIRST", ""), {})  # code of a test, before the command
        status = main(words) if words else 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


if __name__ == "__main__":
    _serve()
