import pytest

from relay.signer.log import REDACTED, redact

TOKEN = "t-0123456789abcdef." + "A" * 43 + "." + "a2" * 26


@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"token": TOKEN}, TOKEN),
        ({"why": f"refused {TOKEN} again"}, "A" * 43),
        ({"detail": "key ipk-" + "Zz09_-" * 7}, "Zz09"),
        ({"error": "got Authorization: Bearer abcdefgh12345678"}, "abcdefgh"),
        ({"url": "https://a.example/c?sv=1&sig=SECRETSIG%3D&se=2"}, "SECRETSIG"),
        ({"url": "https://user:pa55@proxy.example/"}, "pa55"),
        ({"nested": {"sas": "?x", "list": [{"client_secret": "cs"}]}}, "cs'"),
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(fields: dict[str, object], secret: str) -> None:
    shown = redact(None, "info", {"event": "something happened", **fields})
    assert secret not in repr(shown)
    assert REDACTED in repr(shown)


def test_facts_stay_as_they_are() -> None:
    facts = {"event": "token made", "appliance": "site-1", "seq": 7, "digest": "ab" * 32}
    assert redact(None, "info", dict(facts)) == facts
