"""How the process begins, before anything of the agent runs."""

import subprocess
import sys

PROBE = """
import threading
from agent import app
from agent.config import AgentConfig

async def serve(config, **options):
    print("serve")

app.tune_malloc = lambda: print("malloc", threading.active_count())
app.serve = serve
app.run(AgentConfig())  # no share of any kind is configured
"""


def test_malloc_is_tuned_before_any_thread_starts_whatever_the_shares() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["malloc 1", "serve", ""]
