"""How the listeners of this process are doing: for Prometheus, and as a page of JSON."""

from collections.abc import Iterator, Sequence

import msgspec
from attrs import define
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pki.codes import Code
from pki.errors import Problem, printable
from twisted_mesh.http.status_site import Page
from twisted_mesh.proxy.front import Front

#: Connections that the page lists one by one, those that were let in first.
_MOST_SHOWN = 1000


@define(eq=False)
class Report(Collector):
    """Of all listeners."""

    fronts: Sequence[Front]

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        gauges = {
            "open": GaugeMetricFamily(
                "mesh_proxy_open", "Connections that are carried.", labels=["listener"]
            ),
            "waiting": GaugeMetricFamily(
                "mesh_proxy_waiting", "Connections that wait for room.", labels=["listener"]
            ),
            "up": GaugeMetricFamily(
                "mesh_proxy_target_up",
                "1 while the last connection to the target came about, or none was tried.",
                labels=["listener"],
            ),
        }
        carried = CounterMetricFamily(
            "mesh_proxy_connections",
            "Connections that were carried, by who has proven to be at the far side.",
            labels=["listener", "peer"],
        )
        volume = CounterMetricFamily(
            "mesh_proxy_bytes",
            "Bytes that were carried, by which side said them.",
            labels=["listener", "side"],
        )
        ended = CounterMetricFamily(
            "mesh_proxy_ended",
            "Connections that have ended, by why.",
            labels=["listener", "reason"],
        )
        refused = CounterMetricFamily(
            "mesh_proxy_not_carried",
            "Connections whose target could not be reached, or was refused, by code.",
            labels=["listener", "code"],
        )
        plain = CounterMetricFamily(
            "mesh_proxy_plaintext",
            "Callers of a permissive listener that spoke no TLS.",
            labels=["listener"],
        )
        for front in self.fronts:
            name = printable(front.listener.name, 100)
            plain.add_metric([name], front.tally.plain.total())
            gauges["open"].add_metric([name], len(front.links))
            gauges["waiting"].add_metric([name], front.waiting)
            gauges["up"].add_metric([name], float(front.health.problem is None))
            for peer, one in front.tally.peers.items():
                carried.add_metric([name, peer], one.connections)
            there, back = _volume(front)
            volume.add_metric([name, "caller"], there)
            volume.add_metric([name, "target"], back)
            for reason, count in front.tally.ended.items():
                ended.add_metric([name, reason], count)
            for code, count in front.tally.refused.items():
                refused.add_metric([name, code], count)
        yield from (*gauges.values(), carried, plain, volume, ended, refused)

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry that is told nothing does not look all of it up beforehand."""
        return iter(())

    def lack(self) -> Problem | None:
        """Why nobody should be sent here, by what is known of the targets."""
        return next((front.health.problem for front in self.fronts if front.health.problem), None)

    def troubles(self) -> Sequence[tuple[str, Problem]]:
        """What is the worse for it, and serves all the same: listeners that ask for no proof."""
        return [
            (
                f"permissive {front.listener.name}",
                Problem(
                    Code.NOT_TLS,
                    f"listener {front.listener.name} lets callers in without TLS: "
                    f"{front.tally.plain.total()} connections so far",
                    "once nobody comes so any more, take permissive away",
                ),
            )
            for front in self.fronts
            if front.listener.permissive
        ]

    async def look(self) -> None:
        """Know of each target whether it can be reached."""
        for front in self.fronts:
            await front.health.look()

    async def page(self) -> Page:
        """``/status``."""
        told = {"listeners": [self._told(front) for front in self.fronts]}
        return Page(msgspec.json.encode(told))

    @staticmethod
    def _told(front: Front) -> dict[str, object]:
        listener, problem = front.listener, front.health.problem
        there, back = _volume(front)
        links = front.links
        return {
            "name": listener.name,
            "mode": listener.mode,
            "listen": listener.address,
            "address": None if front.port is None else _spoken(front.port.getHost()),
            "target": str(listener.target),
            "target_problem": None if problem is None else str(problem),
            "http": listener.http,
            "proxy_protocol": listener.proxy_protocol,
            "permissive": listener.permissive,
            "allow": [*map(str, listener.allow), *listener.allow_dns],
            "verify": [*map(str, listener.verify), *listener.verify_dns],
            "room": front.room,
            "open": len(links),
            "waiting": front.waiting,
            "from_caller_bytes": there,
            "from_target_bytes": back,
            "ended": dict(front.tally.ended),
            "not_carried": dict(front.tally.refused),
            "peers": dict(front.tally.shown()),
            "plain_callers": dict(front.tally.plain),
            "connections": [
                {
                    "address": link.where,
                    "peer": None if link.peer is None else str(link.peer.spiffe_id),
                    "seconds": round(link.age, 1),
                    "from_caller_bytes": link.bytes_heard[0],
                    "from_target_bytes": link.bytes_heard[1],
                }
                for link in links[:_MOST_SHOWN]
            ],
        }


def _volume(front: Front) -> tuple[int, int]:
    """Bytes from callers and from the target, of all connections."""
    total = front.tally.total
    heard = [link.bytes_heard for link in front.links]
    return (
        total.from_caller + sum(there for there, _ in heard),
        total.from_target + sum(back for _, back in heard),
    )


def _spoken(address: object) -> str:
    name = getattr(address, "name", None)
    if isinstance(name, bytes):
        return f"unix:{printable(name.decode('utf-8', 'replace'), 200)}"
    host = str(getattr(address, "host", ""))
    return f"{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', '')}"
