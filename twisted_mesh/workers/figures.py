"""The pages of all workers made into one: metrics with a label, whether any serves, and what each carries."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pki.codes import Code

#: The label that says which process a figure is of.
LABEL = "worker"
#: What it says of the parent.
PARENT = "parent"
#: Connections that a page lists one by one.
_MOST_SHOWN = 1000


@frozen
class _Families(Collector):
    families: Sequence[Metric]

    def collect(self) -> Iterator[Metric]:
        """As they are."""
        return iter(self.families)


def merged_metrics(pages: Mapping[str, bytes]) -> bytes:
    """Pages for Prometheus, by process, as one: each figure says by :data:`LABEL` whose it is.

    They are not summed: a worker that is replaced begins at nothing, and a sum that falls reads as a new start of all.
    """
    families: dict[str, Metric] = {}
    for name, page in pages.items():
        for family in text_string_to_metric_families(page.decode()):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            whole.samples += [
                sample._replace(labels={LABEL: name, **sample.labels}) for sample in family.samples
            ]
    return generate_latest(_Families(list(families.values())))


def merged_readiness(pages: Iterable[tuple[str, int, bytes]], count: int) -> dict[str, Any]:
    """What ``/readyz`` tells of ``count`` workers, by the pages of those that have answered: name, status, page.

    One that serves is enough to be ready: the others' connections go to it.
    """
    told = [(name, status, json.loads(page)) for name, status, page in pages]
    ready = [page for _, status, page in told if status == 200]
    found: dict[str, Any] = {"status": "ready"}
    if not ready:
        found |= next(
            (page for _, _, page in told),
            {
                "status": Code.NO_WORKER,
                "code": Code.NO_WORKER,
                "detail": "no worker serves: the log says why",
            },
        )
    shown = ready or [page for _, _, page in told]
    lives = [page["seconds_to_expiry"] for page in shown if "seconds_to_expiry" in page]
    ages = [page.get("revocation_age_seconds") for page in shown]
    if lives:
        found["seconds_to_expiry"] = min(lives)
    known = [age for age in ages if age is not None]
    found["revocation_age_seconds"] = max(known) if known and len(known) == len(ages) else None
    found |= {"workers": count, "workers_ready": len(ready)}
    degraded = [
        {**one, "worker": name} for name, _, page in told for one in page.get("degraded", ())
    ]
    degraded += [
        {"name": f"worker {name}", "detail": page.get("detail") or page["status"], "remedy": ""}
        for name, status, page in told
        if status != 200 and ready
    ]
    if degraded:
        found["degraded"] = degraded
    return found


def merged_listeners(pages: Iterable[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """What ``/status`` tells of listeners, all workers together: numbers are sums, lists of connections joined."""
    whole: dict[str, dict[str, Any]] = {}
    for name, page in pages:
        for listener in json.loads(page)["listeners"]:
            for one in listener["connections"]:
                one["worker"] = name
            before = whole.get(listener["name"])
            whole[listener["name"]] = listener if before is None else _sum(before, listener)
    for listener in whole.values():
        del listener["connections"][_MOST_SHOWN:]
    return list(whole.values())


def _sum(one: Any, other: Any) -> Any:
    """Numbers are added, objects member by member, lists of connections joined; of all else the first counts."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: _sum(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list) and one and isinstance(one[0], dict):
        return one + other
    if (
        isinstance(one, int | float)
        and not isinstance(one, bool)
        and isinstance(other, int | float)
    ):
        return one + other
    return other if one is None or one == [] else one
