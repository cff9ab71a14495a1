"""`frazil-preprocess`: runs one preprocessing job under the lease its agent gave it."""

from __future__ import annotations

import sys

from frazil.worker import run_worker, runners_in


def main() -> None:
    """Run the job of the lease in the environment and exit with the worker's code."""
    sys.exit(run_worker("frazil-preprocess", runners_in("frazil_preprocess.jobs")))


if __name__ == "__main__":
    main()
