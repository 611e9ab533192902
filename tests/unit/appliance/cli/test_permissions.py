"""What `imageport permissions` prints is whole: nothing in it has to be filled in; what is missing is asked for."""

import json

import pytest

from agent.targets.permissions import role_of
from appliance.cli.main import main
from appliance.cli.permissions import FORMATS

GROUP = "/subscriptions/00000000-0000-4000-8000-00000000a2e0/resourceGroups/images"
SCOPES = {
    ("azure", "json"): GROUP,
    ("azure", "terraform"): GROUP,
    ("gcp", "terraform"): "golden-images",
}
ALL = [(cloud, form) for cloud, forms in FORMATS.items() for form in forms]


@pytest.mark.parametrize(("cloud", "form"), ALL)
def test_every_format_names_every_action_and_the_scope(
    cloud: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = SCOPES.get((cloud, form))
    more = ["--scope", scope] if scope else []
    assert main(["permissions", cloud, "--format", form, *more]) == 0
    text = capsys.readouterr().out
    assert [action for action in role_of(cloud).all if action not in text] == []
    assert scope is None or scope in text
    if form == "json":
        json.loads(text)


@pytest.mark.parametrize(("cloud", "form"), SCOPES)
@pytest.mark.parametrize("given", ["", "nonsense/../x", "PROJECT"])
def test_a_scope_that_is_missing_or_none_is_asked_for(
    cloud: str, form: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--scope", given] if given else []
    assert main(["permissions", cloud, "--format", form, *more]) == 2
    said = capsys.readouterr()
    assert "--scope" in said.err
    assert "expected" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "words",
    [
        "aws --scope x",
        "aws --format bicep",
        "gcp --format powercli",
        "gcp --strategy register-image",
        "gcp --target aws-s3",
        "aws --result snapshot",
        "azure --upload resumable",
        "aws --strategy object-only",
        "aws --target azure-disk",
        "azure --for publish",
        "azure --for everything",
    ],
)
def test_what_there_is_not_is_refused_by_name(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["permissions", *words.split()]) == 2
    assert capsys.readouterr().out == ""
