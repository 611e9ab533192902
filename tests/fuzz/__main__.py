"""Run single cases by their names, or a campaign: `python -m tests.fuzz --help`."""

import argparse
import sys

from tests.fuzz.campaign import main as campaign
from tests.fuzz.campaign import replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("case", nargs="*", help="names of cases: SEED:KIND:NUMBER")
    parser.add_argument("--cpu", type=float, default=60, help="CPU seconds of a campaign")
    parser.add_argument("--part", default="0/1", help="N/M: of M processes, this is N")
    parser.add_argument("--only", default="", help="only seeds whose names begin so")
    parser.add_argument(
        "--start", type=int, default=0, help="cases of each kind that were done before"
    )
    parser.add_argument("--report", default="", help="a JSON file for the result")
    chosen = parser.parse_args()
    if chosen.case:
        return max(replay(name) for name in chosen.case)
    return campaign(chosen)


if __name__ == "__main__":
    sys.exit(main())
