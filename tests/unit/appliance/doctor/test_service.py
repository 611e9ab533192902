"""The doctor for the agent's `diagnostics` job: the form that the stage takes, on a machine without anything."""

import json
from pathlib import Path

import pytest

from appliance.doctor.registry import UnknownCheck
from appliance.doctor.service import agent_checks


async def test_findings_are_plain_json(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n')
    findings = await agent_checks(file, lambda: 0.0)(("enrolment",))
    assert [(finding["id"], finding["status"]) for finding in findings] == [
        ("config", "pass"),
        ("enrolment", "skip"),
    ]
    assert json.loads(json.dumps(findings)) == findings


async def test_an_unknown_name_in_an_order_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheck):
        await agent_checks(tmp_path / "none", lambda: 0.0)(("colour",))
