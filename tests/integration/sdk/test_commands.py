"""The `topb` command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from support.scripted_server import stall, whole_answer
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk


def test_ctrl_c_ends_a_running_selection_with_exit_code_130(server):
    server.select_batch = stall
    arguments = ["select", "/p", "--budget", "1", "--server", server.address]
    # Where the tests run in the background SIGINT is ignored, and a child would inherit that.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from topb.commands import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOPB_TRACEBACK": ""},
    ) as process:
        assert server.called.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "error: interrupted\n")


def test_a_closed_output_pipe_is_no_error(server):
    server.select_batch = lambda _request, _context: whole_answer(
        selection_pb2.SelectBatchResponse, pick_count=5000
    )
    arguments = ["select", "/p", "--budget", "5000", "--json", "--server", server.address]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from topb.commands import main; sys.exit(main())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=10)
    assert err == b""
