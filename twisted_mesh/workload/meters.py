"""What is counted of the workloads of a machine: ``mesh_workload_*`` of an agent, and of a CA that serves some."""

from prometheus_client import Counter, Histogram

ISSUED = Counter(
    "mesh_workload_svids_issued",
    "SVIDs and tokens that were made for workloads of this machine.",
    ["type"],
    registry=None,  # of those alone that serve workloads
)
FAILURES = Counter(
    "mesh_workload_failures",
    "Attempts to have an SVID or a token made that have failed.",
    ["type"],
    registry=None,
)
REFUSALS = Counter(
    "mesh_workload_refusals",
    "Times that a workload was told why it has nothing, by whether it is to stop asking.",
    ["final"],
    registry=None,
)
PUSHED = Counter(
    "mesh_workload_updates_pushed",
    "Times that a workload was told what it has now.",
    registry=None,
)
ISSUE_SECONDS = Histogram(
    "mesh_workload_issue_seconds",
    "From asking for a workload's SVID to having it.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=None,
)
ALL = (ISSUED, FAILURES, REFUSALS, PUSHED, ISSUE_SECONDS)
for _kind in ("x509", "jwt"):
    ISSUED.labels(_kind)
    FAILURES.labels(_kind)
for _final in ("yes", "no"):
    REFUSALS.labels(_final)
