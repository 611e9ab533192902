"""`python -m agent [CONFIG]`: the agent without the command line, as a service or a test starts it."""

import sys
from pathlib import Path

from agent.app import run
from agent.config import load

if __name__ == "__main__":
    run(load(Path(sys.argv[1]) if len(sys.argv) > 1 else None).config)
