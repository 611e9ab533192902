"""What nobody configured is strict."""

from agent.shares.smb.policy import Dialect, Encryption, SmbPolicy


def test_the_default_requires_encryption_on_the_newest_dialect() -> None:
    policy = SmbPolicy()
    assert policy.encryption is Encryption.REQUIRE
    assert policy.oldest_dialect is Dialect.SMB_3_1_1


def test_the_default_outlives_another_clients_oplock_and_a_server_restart() -> None:
    policy = SmbPolicy()
    assert policy.answer_timeout >= 40
    assert policy.reconnect_for == 120
