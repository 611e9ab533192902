"""How a refusal explains itself in a job's report."""

from protocol.verdicts import VERDICTS, explained


def test_a_known_code_says_what_to_do_and_keeps_the_message() -> None:
    said = explained("policy.share-forbidden", "fs01 is not allowed")
    assert said["message"] == "fs01 is not allowed"
    assert said["fix"] == VERDICTS["policy.share-forbidden"].fix


def test_without_a_message_the_cause_is_said() -> None:
    assert explained("job.start-by", "")["message"] == VERDICTS["job.start-by"].cause


def test_an_unknown_code_stays_as_it_is() -> None:
    assert explained("newer.code", "") == {"code": "newer.code", "message": "newer.code"}


def test_every_verdict_has_cause_and_remedy() -> None:
    assert [code for code, said in VERDICTS.items() if not (said.cause and said.fix)] == []
