"""How a plan shows the order: one line a table, inner tables by their whole names, nothing of a credential."""

from appliance.cli.imageplan import _one_line


def test_inner_tables_are_shown_by_their_whole_names() -> None:
    target = {"kind": "azure-disk", "gallery": {"name": "g", "more": {"deep": 1}}, "disk": "golden"}
    assert _one_line(target) == "kind azure-disk, gallery.name g, gallery.more.deep 1, disk golden"


def test_no_credential_is_shown_wherever_it_stands() -> None:
    target = {"kind": "x", "credential": {"a": "secret"}, "inner": {"credential": {"b": "secret"}}}
    assert _one_line(target) == "kind x"
