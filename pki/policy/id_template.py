"""Templates of SPIFFE IDs: what a registration entry buys, filled with what was proven of the caller."""

import re
from collections.abc import Collection
from itertools import zip_longest
from typing import Self

from attrs import frozen

from pki.codes import Code
from pki.errors import PkiError, printable
from pki.policy.selector import Selector, is_label, values_of
from pki.spiffe import (
    AGENTS,
    ALIASES,
    RESERVED_SEGMENT,
    NotASpiffeId,
    SpiffeId,
    SpiffePattern,
    TrustDomain,
)

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
#: What may stand in braces, and which kind of selector tells its value. Each kind has one value at most.
_FACTS = {
    "unix.uid": "unix:uid",
    "unix.user": "unix:user",
    "systemd.unit": "systemd:unit",
    "token": "token",
    "k8s.ns": "k8s:ns",
    "k8s.sa": "k8s:sa",
    "k8s.pod-name": "k8s:pod-name",
    "k8s_psat.cluster": "k8s_psat:cluster",
    "k8s_psat.agent_ns": "k8s_psat:agent_ns",
    "k8s_psat.agent_sa": "k8s_psat:agent_sa",
    "k8s_psat.agent_node_name": "k8s_psat:agent_node_name",
    "k8s_psat.agent_node_uid": "k8s_psat:agent_node_uid",
    "aws_iid.account": "aws_iid:account",
    "aws_iid.region": "aws_iid:region",
    "aws_iid.az": "aws_iid:az",
    "aws_iid.instance_id": "aws_iid:instance:id",
    "gcp_iit.project-id": "gcp_iit:project-id",
    "gcp_iit.instance-name": "gcp_iit:instance-name",
    "x509pop.cn": "x509pop:subject:cn",
    "x509pop.serialnumber": "x509pop:serialnumber",
}
_TRUST_DOMAIN = "{trust_domain}"
#: A value becomes part of one path segment, and no two values become the same.
_VALUE = re.compile(r"[a-z0-9_-][a-z0-9._-]*", re.ASCII)


@frozen
class IdTemplate:
    """Which SPIFFE IDs an entry buys: a pattern, in whose segments facts of the caller may stand in braces.

    ``spiffe://mesh.local/user/{unix.user}``. ``IdTemplate.parse(str(x), x.trust_domain) == x``.
    """

    trust_domain: TrustDomain
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, trust_domain: TrustDomain) -> Self:
        """Raises :class:`NotASpiffeId`. ``{trust_domain}`` stands for ``trust_domain``, which any ID must be of."""
        authority = f"spiffe://{_TRUST_DOMAIN}"
        if text == authority or text.startswith(f"{authority}/"):
            text = f"spiffe://{trust_domain}{text[len(authority) :]}"
        unknown = [name for name in _PLACEHOLDER.findall(text) if name not in _FACTS]
        if unknown:
            raise NotASpiffeId(
                text,
                f"in braces stands one of {', '.join(_FACTS)}, or trust_domain for all of that",
            )
        if "{" in text.removeprefix("spiffe://").partition("/")[0]:
            raise NotASpiffeId(text, "no fact of the caller stands in the trust domain")
        # A placeholder is judged as the letter that it could be.
        pattern = SpiffePattern.parse(_PLACEHOLDER.sub("x", text))
        if pattern.trust_domain != trust_domain:
            raise NotASpiffeId(text, f"it is below spiffe://{trust_domain}/")
        segments = tuple(text.removeprefix(f"spiffe://{trust_domain}").split("/")[1:])
        if not segments:
            raise NotASpiffeId(text, "a workload's ID has a path")
        if any(segment.count("{") > 1 for segment in segments):
            # ab and c would make the same ID as a and bc.
            raise NotASpiffeId(text, "a path segment has one fact of the caller at most")
        if segments[0] in ("*", "**") or "{" in segments[0]:
            raise NotASpiffeId(
                text, "its first path segment is a word: the subtree that it stays in"
            )
        if segments[0] == RESERVED_SEGMENT:
            raise NotASpiffeId(text, "/mesh/** names the mesh itself, and no entry buys it")
        return cls(trust_domain, segments)

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{'/'.join(self.segments)}"

    @classmethod
    def of(cls, spiffe_id: SpiffeId) -> Self:
        """That one ID, which may be one of the mesh's own."""
        return cls(spiffe_id.trust_domain, spiffe_id.segments)

    @classmethod
    def of_agents(cls, text: str, trust_domain: TrustDomain) -> Self:
        """``spiffe://TD/mesh/agent/TEMPLATE``: the IDs of agents, of which a fact tells one from another.

        Raises :class:`NotASpiffeId`.
        """
        name = text.removeprefix(f"{trust_domain.member(*AGENTS)}/")
        facts = _PLACEHOLDER.findall(name)
        if len(facts) != 1 or facts[0] not in _FACTS:
            raise NotASpiffeId(
                text,
                "the name of agents has one fact in braces, by which they are told from one another: one of "
                f"{', '.join(_FACTS)}",
            )
        if name == text or not is_label(_PLACEHOLDER.sub("x", name)):
            raise NotASpiffeId(
                text,
                "besides the fact there are lower-case letters, digits, dots, dashes and underscores in the name of "
                "agents, as in prod.{k8s_psat.agent_node_name}",
            )
        return cls(trust_domain, (*AGENTS, name))

    @classmethod
    def of_alias(cls, text: str, trust_domain: TrustDomain) -> Self:
        """``spiffe://TD/mesh/alias/NAME``: what agents are called together. Raises :class:`NotASpiffeId`."""
        name = text.removeprefix(f"{trust_domain.member(*ALIASES)}/")
        if name == text or not is_label(name):
            raise NotASpiffeId(
                text,
                "an alias is called by 1 to 64 lower-case letters, digits, dots, dashes and underscores, a letter or "
                "digit first",
            )
        return cls(trust_domain, (*ALIASES, name))

    @property
    def agents(self) -> str | None:
        """What the agents are called that it lets in, a fact in braces; None where it is of no agents."""
        return self.segments[2] if self.segments[:2] == AGENTS and not self.is_literal else None

    @property
    def alias(self) -> str | None:
        """The name of the alias that it is; None where it is none."""
        return self.segments[2] if self.segments[:2] == ALIASES else None

    @property
    def is_literal(self) -> bool:
        """Whether it is one ID, whoever asks."""
        return not any("{" in s or s in ("*", "**") for s in self.segments)

    @property
    def agent(self) -> str | None:
        """The name of the agent whose ID it is; None where it is none's."""
        return (
            SpiffeId(self.trust_domain, f"/{'/'.join(self.segments)}").agent
            if self.is_literal
            else None
        )

    def fill(self, selectors: Collection[Selector]) -> SpiffePattern:
        """The IDs that a caller with those selectors gets. Raises :class:`CannotFill`."""
        return SpiffePattern(
            self.trust_domain,
            tuple(
                _PLACEHOLDER.sub(lambda match: _value(match[1], selectors), segment)
                for segment in self.segments
            ),
        )

    def covers(self, spiffe_id: SpiffeId) -> bool:
        """Whether there can be a caller who gets that ID."""
        filled = tuple(
            found if _fits(found, segment) else segment
            for segment, found in zip_longest(
                self.segments, spiffe_id.segments[: len(self.segments)], fillvalue=""
            )
        )
        return SpiffePattern(self.trust_domain, filled).matches(spiffe_id)


class CannotFill(PkiError):
    """A template's placeholder has no value for this caller, or one that no path segment may have."""

    code = Code.NOT_AUTHORIZED


def _value(name: str, selectors: Collection[Selector]) -> str:
    found = values_of(_FACTS[name], selectors)
    if len(found) > 1:
        raise CannotFill(f"{{{name}}} has several values: {', '.join(sorted(found))}")
    if not found:
        raise CannotFill(f"{{{name}}} has no value: no {_FACTS[name]} selector was seen")
    if not _VALUE.fullmatch(found[0]):
        raise CannotFill(
            f"{{{name}}} is {printable(found[0], 80)!r}, and only lower-case letters, digits, dots, dashes and "
            "underscores go into an ID, a dot not first"
        )
    return found[0]


def _fits(found: str, segment: str) -> bool:
    """Whether ``segment`` has a placeholder, and ``found`` is that segment with a value in its place."""
    head, brace, rest = segment.partition("{")
    tail = rest.partition("}")[2]
    if not brace or not found.startswith(head) or not found.endswith(tail):
        return False
    return _VALUE.fullmatch(found[len(head) : len(found) - len(tail)]) is not None
