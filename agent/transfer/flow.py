"""Which side holds a transfer back, by where its workers are. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from agent.whereabouts import At

SOURCE, CPU, LIMIT, NETWORK, CLOUD, TARGET = "source", "cpu", "limit", "network", "cloud", "target"
_READ = {At.READING: SOURCE, At.COMPUTING: CPU}
_SENT = {
    At.LIMITED: LIMIT,
    At.WRITING: TARGET,
    At.SENDING: NETWORK,
    At.BROKEN: NETWORK,
    At.ANSWER: CLOUD,
    At.SLOT: CLOUD,
    At.PAUSED: CLOUD,
}


def held_back_by(workers: Iterable[At]) -> str:
    """Return the side that most of the workers wait for.

    Those that wait for their turn to read starve: then it is the reading side, and of it the source unless somebody
    computes. Else nobody waits for bytes, and it is where they go.
    """
    places = Counter(workers)
    sent = Counter[str]()
    for at, count in places.items():
        if at in _SENT:
            sent[_SENT[at]] += count
    if places[At.TURN] or not sent:
        return CPU if places[At.COMPUTING] > places[At.READING] else SOURCE
    return sent.most_common(1)[0][0]


def shares(seen: Mapping[str, int]) -> dict[str, int]:
    """Return side -> percent of the time that it held the transfer back, the largest first; below 1 % nothing."""
    total = sum(seen.values())
    ordered = sorted(seen.items(), key=lambda item: -item[1])
    return {side: part for side, count in ordered if (part := round(100 * count / total))}
