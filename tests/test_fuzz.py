"""What the fuzzer finds in so many attempts, or in a minute, is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="installed with the newest versions only")

FUZZER = Path(__file__).with_name("fuzz.py")
SECONDS = 60  # beside those in which the targets are imported
RUNS = 50_000  # for each target, so that no quicker machine tries what nobody has looked at


def test_readers_answer_or_refuse_whatever_they_are_given(tmp_path):
    """Always with the same seed; `make fuzz` goes on for longer, and elsewhere."""
    done = subprocess.run(
        [sys.executable, FUZZER, f"--seconds={SECONDS}", f"--runs={RUNS}", "--seed=7",
         f"--found={tmp_path}"],
        capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("number_of_executed_units") == 7
