"""Does `clipdex classify --json` always end well? Runs it many times and counts exit codes.

    python -m benchmarks.exit_loop [--times 500] [-- FURTHER CLASSIFY ARGUMENTS]

A process once died with a segmentation fault after it had printed the right answer. Every run here
is a fresh process; a code below zero is the signal that ended it. Its answer has to be the same as
the first run's. Exits with 1 if any run did otherwise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "service" / "samples" / "red_apple.png"
_REPORTED_EVERY = 50


def classify_command(data: str, extra: list[str]) -> list[str]:
    # As the console script starts it; faulthandler tells where a signal came from.
    start = [sys.executable, "-X", "faulthandler", "-c", "from service.cli import main; main()"]
    return [*start, "classify", str(SAMPLE), "--json", "--data", data, *extra]


def run_often(times: int, extra: list[str]) -> tuple[Counter[int], int]:
    """Exit codes and how often each came, and how many runs gave another answer than the first."""
    codes: Counter[int] = Counter()
    expected: str | None = None
    differing = 0
    with tempfile.TemporaryDirectory(prefix="clipdex-") as data:
        command = classify_command(data, extra)
        for number in range(1, times + 1):
            done = subprocess.run(command, capture_output=True, text=True)
            codes[done.returncode] += 1
            expected = done.stdout if expected is None else expected
            differing += done.stdout != expected
            if done.returncode:
                print(f"run {number}: code {done.returncode}\n{done.stderr}", flush=True)
            if number % _REPORTED_EVERY == 0:
                print(f"{number} of {times}: {dict(codes)}", flush=True)
    return codes, differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("extra", nargs="*", help="passed on to clipdex classify")
    options = parser.parse_args()
    began = time.monotonic()
    codes, differing = run_often(options.times, options.extra)
    seconds = time.monotonic() - began
    print(f"{options.times} runs in {seconds:,.0f} s; exit codes: {dict(sorted(codes.items()))}")
    print(f"answers unlike the first: {differing}")
    return 1 if set(codes) != {0} or differing else 0


if __name__ == "__main__":
    sys.exit(main())
