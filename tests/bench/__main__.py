"""All benchmarks, one after the other, each in a process of its own.

    python -m tests.bench [--store s3://bucket/prefix] [--only crops reading] [--quick]

Prints what they print: Markdown tables of ratios within one run, medians of at least five rounds.
`--store` adds the rows of an object store to those of the local disk; it takes keys and endpoint
from the usual ``AWS_*`` variables. `big_volume.py` is no part of it: it writes several gigabytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

# Benchmarks that read and write volumes run once for each store.
STORED = ("crops", "reading")
ALONE = ("training", "driver", "nodes")
# Enough to see that all of it works, and no figure to be quoted.
QUICK = {
    "crops": ["--size", "256", "--repeats", "1"],
    "reading": ["--size", "128", "--repeats", "1"],
    "training": ["--volumes", "2", "--rounds", "1", "--repeats", "1"],
    "driver": ["--volumes", "100", "--localize", "4", "--repeats", "1"],
    "nodes": ["--seconds", "0.1", "--volumes", "2", "--repeats", "1"],
}


def main() -> None:
    """Run those that are asked for; the exit status tells whether any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="s3://bucket/prefix to measure beside the local disk")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the local disk")
    parser.add_argument("--only", nargs="+", choices=[*STORED, *ALONE], default=[*STORED, *ALONE])
    parser.add_argument("--quick", action="store_true", help="small and once")
    options = parser.parse_args()
    failed = []
    for name in options.only:
        for place in [options.folder, options.store] if name in STORED else [None]:
            if name in STORED and place is None:
                continue
            arguments = ["--store", place] if place else []
            arguments += QUICK[name] if options.quick else []
            print(f"\n## {name}\n", flush=True)
            command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
            if done.returncode:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
