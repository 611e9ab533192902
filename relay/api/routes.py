"""The table of every REST route. Order is the order of the OpenAPI document."""

from relay.api import commands, files, jobs, passing, reads, streams
from relay.api.context import JSON
from relay.api.models import (
    AppliancePage,
    ApplianceView,
    ArtifactView,
    AuditPage,
    CommandAnswer,
    CommandBody,
    EnrolQuery,
    Health,
    JobPage,
    JobsQuery,
    JobView,
    KeysView,
    PageQuery,
    RecordView,
    StreamQuery,
)
from relay.api.route import Route

SSE = "text/event-stream"
OCTETS = files.OCTETS
MSGPACK = commands.MSGPACK

ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/commands", commands.post_command, "Queue a finished, signed command",
        role="operator", body={MSGPACK: None, JSON: CommandBody}, answers={202: (JSON, CommandAnswer)},
        errors=(404, 409, 413, 415, 422), keyed=False,
    ),
    Route(
        "POST", "/v1/jobs", passing.pass_on, "Ask the signer for a job (its answer, opaque to the relay)",
        role="operator", body={JSON: None}, answers={202: (JSON, CommandAnswer)},
        errors=(404, 409, 413, 415, 422, 501, 504), keyed=True,
    ),
    Route(
        "GET", "/v1/jobs", jobs.get_jobs, "List jobs, newest first",
        query=JobsQuery, answers={200: (JSON, JobPage)},
    ),
    Route(
        "GET", "/v1/jobs/{id}", jobs.get_job, "Show one job with its signed result",
        answers={200: (JSON, JobView)}, errors=(404,),
    ),
    Route(
        "POST", "/v1/jobs/{id}/cancel", passing.pass_on, "Ask the signer to cancel a job",
        role="operator", body={JSON: None}, answers={202: (JSON, CommandAnswer)},
        errors=(404, 409, 413, 415, 422, 501, 504), keyed=True,
    ),
    Route(
        "GET", "/v1/jobs/{id}/events", streams.job_events, "Stream one job's events until it ends",
        query=StreamQuery, answers={200: (SSE, None), 204: ("", None)}, errors=(404,),
    ),
    Route(
        "GET", "/v1/events", streams.tenant_events, "Stream every event of the tenant",
        query=StreamQuery, answers={200: (SSE, None)},
    ),
    Route(
        "GET", "/v1/appliances", reads.get_appliances, "List appliances",
        query=PageQuery, answers={200: (JSON, AppliancePage)},
    ),
    Route(
        "GET", "/v1/appliances/{appliance}", reads.get_appliance, "Show one appliance",
        answers={200: (JSON, ApplianceView)}, errors=(404,),
    ),
    Route(
        "GET", "/v1/appliances/{appliance}/record", reads.get_record,
        "Show the signed record of an appliance: its keys",
        answers={200: (JSON, RecordView)}, errors=(404,),
    ),
    Route(
        "POST", "/v1/enrolments", passing.enrol, "Enrol an appliance (the signer answers)",
        role=None, query=EnrolQuery, body={MSGPACK: None}, answers={200: (MSGPACK, None)},
        errors=(409, 413, 415, 422, 501, 504),
    ),
    Route(
        "GET", "/v1/keys", reads.get_keys, "Show the tenant's key manifest",
        answers={200: (JSON, KeysView)}, errors=(404,),
    ),
    Route(
        "PUT", "/v1/artifacts/{sha256}", files.put_artifact, "Upload a file, whole or by chunks",
        role="operator", body={OCTETS: None},
        answers={200: (JSON, ArtifactView), 201: (JSON, ArtifactView), 202: (JSON, ArtifactView)},
        errors=(404, 409, 413, 422),
    ),
    Route(
        "GET", "/v1/artifacts/{sha256}", files.get_artifact, "Download a file, whole or by range",
        answers={200: (OCTETS, None), 206: (OCTETS, None)}, errors=(404, 416),
    ),
    Route(
        "GET", "/v1/audit", reads.get_audit, "Read the audit log",
        role="admin", query=PageQuery, answers={200: (JSON, AuditPage)},
    ),
    Route(
        "GET", "/openapi.json", reads.get_openapi, "This document",
        role=None, answers={200: (JSON, None)},
    ),
    Route("GET", "/healthz", reads.get_health, "The process lives", role=None, answers={200: (JSON, Health)}),
    Route("GET", "/readyz", reads.get_ready, "The relay can serve", role=None, answers={200: (JSON, Health)}),
)  # fmt: skip

METRICS = Route(
    "GET", "/metrics", reads.get_metrics, "Prometheus metrics",
    role="admin", answers={200: ("text/plain", None)},
)  # fmt: skip
