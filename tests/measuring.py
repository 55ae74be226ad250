"""Every metric that our programs have, by name: what is counted where it happens, and what is looked up."""

from prometheus_client.metrics import MetricWrapperBase

from twisted_mesh import monitoring, observe
from twisted_mesh.attest import meters as attest_meters
from twisted_mesh.ca import meters as ca_meters
from twisted_mesh.ca import metrics
from twisted_mesh.ctlog import metrics as ctlog_metrics
from twisted_mesh.files import keeper, tellers
from twisted_mesh.monitor import figures
from twisted_mesh.proxy.report import Report
from twisted_mesh.runtime import meters
from twisted_mesh.runtime.meters import Reading
from twisted_mesh.signer.meters import OF_A_SIGNER
from twisted_mesh.state.memory import reading_of
from twisted_mesh.taps import ct_audit, parent, witness, workload_socket
from twisted_mesh.workload import meters as workload_meters

_LOOKED_UP: tuple[Reading[object], ...] = (
    *metrics.READINGS,  # type: ignore[arg-type]
    *ctlog_metrics.READINGS,  # type: ignore[arg-type]
    *witness.READINGS,  # type: ignore[arg-type]
    *ct_audit.READINGS,  # type: ignore[arg-type]
    *monitoring.OF_IDENTITY,  # type: ignore[arg-type]
    monitoring.EVENTS,  # type: ignore[list-item]
    *keeper.READINGS,  # type: ignore[arg-type]
    *figures.READINGS,  # type: ignore[arg-type]
    *workload_socket.READINGS,  # type: ignore[arg-type]
    *OF_A_SIGNER,  # type: ignore[arg-type]
    *parent.OF_WORKERS,  # type: ignore[arg-type]
    reading_of([]),
)
MEASURED = {reading.name for reading in _LOOKED_UP} | {
    family.name + ("_total" if family.type == "counter" else "")
    for module in (
        meters,
        monitoring,
        ca_meters,
        ctlog_metrics,
        observe,
        keeper,
        tellers,
        workload_meters,
        attest_meters,
    )
    for metric in vars(module).values()
    if isinstance(metric, MetricWrapperBase)
    for family in metric.collect()
}
MEASURED |= {
    family.name + ("_total" if family.type == "counter" else "") for family in Report([]).collect()
}
