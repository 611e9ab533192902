"""The small routes: appliances, keys, audit log, health, metrics and the OpenAPI document."""

from aiohttp import web

from relay.api.auth import Caller
from relay.api.context import (
    Api,
    answer_json,
    make_cursor,
    number_cursor,
    read_cursor,
    read_query,
)
from relay.api.models import (
    AppliancePage,
    ApplianceView,
    AuditPage,
    AuditView,
    Health,
    KeysView,
    PageQuery,
    RecordView,
)
from relay.errors import NotFound
from relay.store.base import EVERYWHERE, Appliance

TEXT = "text/plain; version=0.0.4; charset=utf-8"


async def get_appliances(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer one page, by id."""
    query = read_query(request, PageQuery)
    after = read_cursor(query.cursor) if query.cursor else ""
    rows = await api.shared.store.appliances(caller.tenant, after=after, limit=query.limit + 1)
    page = rows[: query.limit]
    more = make_cursor(page[-1].id) if len(rows) > len(page) else None
    return answer_json(AppliancePage(items=[_appliance(row) for row in page], next=more))


async def get_appliance(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer one appliance."""
    name = request.match_info["appliance"]
    row = await api.shared.store.appliance(caller.tenant, name)
    if row is None:
        raise NotFound(f"no appliance {name}", appliance=name)
    return answer_json(_appliance(row))


async def get_record(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer an appliance's record, with which its results are verified."""
    name = request.match_info["appliance"]
    kept = await api.shared.store.kept(caller.tenant, name, "record")
    if kept is None:
        raise NotFound(f"no record of an appliance {name}", appliance=name)
    return answer_json(RecordView(serial=kept.serial, record=kept.env))


def _appliance(row: Appliance) -> ApplianceView:
    return ApplianceView(
        id=row.id,
        connected=row.connected,
        since=row.since,
        last_seen=row.last_seen,
        generation=row.generation,
        epoch=row.epoch,
        have=row.have,
        queued=row.queued,
        results=row.through,
    )


async def get_keys(api: Api, caller: Caller, _request: web.Request) -> web.StreamResponse:
    """Answer the tenant's key manifest."""
    kept = await api.shared.store.kept(caller.tenant, EVERYWHERE, "manifest")
    if kept is None:
        raise NotFound("this relay was given no key manifest for the tenant")
    return answer_json(KeysView(serial=kept.serial, manifest=kept.env))


async def get_audit(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer one page of the audit log, oldest first."""
    query = read_query(request, PageQuery)
    rows = await api.shared.store.audit(
        caller.tenant, after=number_cursor(query.cursor), limit=query.limit + 1
    )
    page = rows[: query.limit]
    more = make_cursor(page[-1].n) if len(rows) > len(page) else None
    items = [
        AuditView(
            n=row.n,
            at=row.at,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            detail=row.detail,
            hash=row.hash.hex(),
        )
        for row in page
    ]
    return answer_json(AuditPage(items=items, next=more))


async def get_health(_api: Api, _caller: Caller, _request: web.Request) -> web.StreamResponse:
    """The process lives."""
    return answer_json(Health(status="ok"))


async def get_ready(api: Api, _caller: Caller, _request: web.Request) -> web.StreamResponse:
    """The store answers; raises StoreError if not."""
    await api.shared.store.appliances("", after="", limit=1)
    return answer_json(Health(status="ok"))


async def get_metrics(api: Api, _caller: Caller, _request: web.Request) -> web.StreamResponse:
    """Prometheus' text format."""
    return web.Response(body=api.shared.metrics.text(), headers={"Content-Type": TEXT})


async def get_openapi(api: Api, _caller: Caller, _request: web.Request) -> web.StreamResponse:
    """The OpenAPI document."""
    return web.Response(body=api.openapi, content_type="application/json")
