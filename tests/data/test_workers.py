import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from made_stream import refuse_seven

from ngpt_lab.data.workers import read_ahead
from ngpt_lab.errors import InputError

TRAINER = """
import multiprocessing, sys, time
from ngpt_lab.data.workers import read_ahead

if __name__ == "__main__":
    batches = read_ahead(range(10**9), abs, 1)
    next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    if "sleep" in sys.argv:
        time.sleep(600)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(worker):
    """Until it has ended, at most half a minute."""
    for _ in range(300):
        if not alive(worker):
            return True
        time.sleep(0.1)
    return False


def trainer(tmp_path, *arguments):
    (tmp_path / "trainer.py").write_text(TRAINER)
    # The current folder has another package of the name, which the workers must not take for ours.
    other = tmp_path / "here" / "ngpt_lab" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.write_text("raise RuntimeError('another copy')")
    command = [sys.executable, str(tmp_path / "trainer.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=tmp_path / "here", env=environment, **pipes)


def test_signals_to_all_processes_of_a_run_do_not_end_the_workers():
    numbers = read_ahead(range(10**6), abs, 2)
    next(numbers)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, number)
            os.kill(int(Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")")[-1].split()[1]), number)  # its parent
    time.sleep(6)  # a worker looks every five seconds whether its parent is there
    assert list(islice(numbers, 200)) == list(range(1, 201))
    numbers.close()
    assert multiprocessing.active_children() == []


def test_the_workers_of_a_killed_process_end(tmp_path):
    process = trainer(tmp_path, "sleep")
    worker = int(process.stdout.readline())
    assert alive(worker)
    process.kill()
    process.communicate()
    assert wait_for(worker)


def test_a_process_that_ends_with_workers_at_work_ends_cleanly(tmp_path):
    process = trainer(tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert wait_for(int(out))


def test_bad_input_found_by_a_worker_is_one_sentence():
    with pytest.raises(InputError, match=r"^seven is bad$"):
        list(read_ahead(range(9), refuse_seven, 1))
    assert multiprocessing.active_children() == []
