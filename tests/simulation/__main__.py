"""Simulates many seeds, or one with its whole trace: PYTHONPATH=tests python -m simulation --seeds 1000."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.story import simulate


def main() -> int:
    """Run the seeds and say which fail; the exit code is 1 if one does."""
    parser = argparse.ArgumentParser("simulation", description="Simulated days of faults; a seed reproduces its day.")
    parser.add_argument("--seeds", type=int, default=50, metavar="N", help="how many (default: 50)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    given = parser.parse_args()
    started, events, failed = time.monotonic(), 0, []
    for seed in range(given.first, given.first + given.seeds):
        report = simulate(seed)
        events += report.events
        if report.failure:
            failed.append(seed)
            again = f"again: make simulate-faults FIRST={seed} SEEDS=1"
            sys.stdout.write("\n".join((*report.trace, f"seed {seed}: {report.failure}", again, "")))
        done = seed - given.first + 1
        seconds = time.monotonic() - started
        sys.stderr.write(f"{done}/{given.seeds} days, {events:,} events, {seconds:.0f} s, {len(failed)} failed\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
