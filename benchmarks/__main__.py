"""Run every benchmark and write the table and the figures into ``docs/``."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import torch

from pyjlode import engine_info

from . import independent, limit, memory, neural, report, stiff
from .timing import Row, measure

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="cases whose name contains this; writes no files")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rounds for each case")
    options = parser.parse_args()
    # Small tensors: more threads would only wait for each other. Peers that gain by two get them.
    torch.set_num_threads(1)
    print(engine_info("julia"))
    rows: list[Row] = []
    try:
        for case in chain(neural.cases(), stiff.cases(), independent.cases()):
            if options.only and options.only not in case.name:
                continue
            rows.append(measure(case, options.seconds))
            print(report.line(rows[-1]), flush=True)
    except KeyboardInterrupt:
        print("Interrupted; what was measured is written.")
    if options.only:
        return
    report.write_table(
        rows, list(limit.shares()), DOCS / "benchmarks.md", str(engine_info("julia"))
    )
    report.draw(rows, DOCS / "benchmarks.png")
    memory.draw(memory.measure(), DOCS / "memory.png")


if __name__ == "__main__":
    main()
