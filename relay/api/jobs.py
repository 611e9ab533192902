"""`GET /v1/jobs` and `/v1/jobs/{id}`: jobs as people read them, with the device-signed result as proof."""

import msgspec
from aiohttp import web

from protocol.codec import decode
from protocol.messages import MAX_RESULT, Result
from protocol.signed import parse_envelope
from relay.api.auth import Caller
from relay.api.context import Api, answer_json, make_cursor, number_cursor, read_query
from relay.api.models import JobPage, JobsQuery, JobView, ResultView
from relay.errors import NotFound
from relay.store.base import Job


async def get_jobs(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer one page, newest first."""
    query = read_query(request, JobsQuery)
    jobs = await api.shared.store.jobs(
        caller.tenant,
        before=number_cursor(query.cursor),
        limit=query.limit + 1,
        appliance=query.appliance or "",
        state=query.state or "",
    )
    page = jobs[: query.limit]
    more = make_cursor(page[-1].order) if len(jobs) > len(page) else None
    return answer_json(JobPage(items=[view_of(job) for job in page], next=more))


async def get_job(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Answer one job."""
    return answer_json(view_of(await find(api, caller, request)))


async def find(api: Api, caller: Caller, request: web.Request) -> Job:
    """Return the job that the path names, if it is the caller's. Raises NotFound."""
    name = request.match_info["id"]
    job = await api.shared.store.job(caller.tenant, bytes.fromhex(name))
    if job is None:
        raise NotFound(f"no job {name}", job=name)
    return job


def view_of(job: Job) -> JobView:
    """Return a job as REST shows it."""
    return JobView(
        id=job.id.hex(),
        appliance=job.appliance,
        op=job.op,
        epoch=job.epoch,
        seq=job.seq,
        digest=job.digest.hex(),
        state=job.state,  # type: ignore[arg-type]  # the store writes states of this list only
        created=job.created,
        updated=job.updated,
        workflow=job.workflow,
        progress=job.progress,
        message=job.message,
        code=job.code,
        result=None if job.result is None else _result(job.result, job.report),
    )


def _result(env: bytes, report: bytes) -> ResultView:
    result = decode(parse_envelope(env, limit=MAX_RESULT).p, Result, limit=MAX_RESULT)
    return ResultView(
        status=result.status,
        ended=result.ended,
        attempt=result.attempt,
        outputs=[msgspec.to_builtins(output) for output in result.outputs],
        envelope=env,
        started=result.started,
        code=result.code,
        root=result.root,
        report=_json(report),
    )


def _json(report: bytes) -> object:
    """Return a report's JSON; what is none is shown as text, because it is signed all the same."""
    if not report:
        return None
    try:
        return msgspec.json.decode(report)
    except (msgspec.DecodeError, RecursionError):
        return report.decode("utf-8", "replace")
