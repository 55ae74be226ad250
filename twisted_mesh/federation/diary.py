"""What the log hears of federated trust domains: what is new as such, and the rest for debugging."""

from datetime import datetime

from attrs import frozen
from twisted.logger import Logger

from pki.codes import Code
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.federation.following import Following
from twisted_mesh.runtime.log import codes, reasons


@frozen
class Diary:
    """Tells each thing once, while it stays as it is."""

    log: Logger

    def had(self, before: Following, state: Following) -> None:
        """Its endpoint has answered, with a bundle that is believed."""
        bundle = state.bundle
        if bundle is None:
            return
        is_news = bundle != before.bundle or before.failures
        (self.log.info if is_news else self.log.debug)(
            "The bundle of {trust_domain} was had from {url}: number {sequence}, roots: {roots}, keys for JWT: {keys}",
            event="federation-believed",
            trust_domain=str(bundle.trust_domain),
            url=state.relationship.url,
            sequence=bundle.sequence,
            roots=len(bundle.roots),
            keys=len(bundle.jwt_authorities),
        )
        self.reviewed(before, state)

    def reviewed(self, before: Following, state: Following) -> None:
        """What is held of it was looked through."""
        if state.passed_over and state.passed_over != before.passed_over:
            self.log.warn(
                "Of the bundle of {trust_domain} something is not believed: {reasons}",
                event="federation-passed-over",
                trust_domain=str(state.relationship.trust_domain),
                codes=codes(state.passed_over),
                reasons=reasons(state.passed_over),
            )

    def failed(self, before: Following, state: Following, now: datetime) -> None:
        """No bundle was had from its endpoint, or none that is believed."""
        age = state.age(now)
        meanwhile = (
            "there was none before"
            if age is None
            else f"what is held was had {spoken_duration(age)} ago"
        )
        is_news = codes(before.problems) != codes(state.problems)
        (self.log.warn if is_news else self.log.debug)(
            "The bundle of {trust_domain} was not had from {url}: {reasons}; {meanwhile}",
            event="federation-failed",
            trust_domain=str(state.relationship.trust_domain),
            url=state.relationship.url,
            codes=codes(state.problems),
            reasons=reasons(state.problems),
            failures=state.failures,
            meanwhile=meanwhile,
        )

    def too_old(self, state: Following) -> None:
        """What is held of it is not believed any more."""
        self.log.error(
            "The bundle of {trust_domain} is too old: nobody of that trust domain is believed until {url} answers",
            event="federation-too-old",
            codes=Code.STALE_BUNDLE,
            trust_domain=str(state.relationship.trust_domain),
            url=state.relationship.url,
            fetched_at=rfc3339(state.fetched_at) if state.fetched_at else "",
            reasons=reasons(state.problems),
        )
