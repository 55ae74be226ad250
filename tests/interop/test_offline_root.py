"""A CA that never has a root's key: certified by an offline root of ours, or by other people's programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.interop.administering import acts, answer, issue, told
from tests.interop.house import Done, House
from tests.tools import require_tool

_CONFIG = """
[ca]
default_ca = theirs
[theirs]
dir = {home}
database = {home}/index.txt
serial = {home}/serial
crlnumber = {home}/crlnumber
new_certs_dir = {home}
default_md = sha256
default_days = 200
default_crl_days = 30
policy = any
copy_extensions = {copy}
unique_subject = no
[any]
organizationName = optional
organizationalUnitName = optional
commonName = supplied
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[between]
basicConstraints = critical,CA:true,pathlen:{above}
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[ours]
{ours}
"""
_OURS = """basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always"""


@frozen
class OpensslCa:
    """A root and an intermediate of somebody else's, by ``openssl ca``."""

    house: House
    home: Path

    @classmethod
    def found(
        cls, house: House, *, ours: str = _OURS, copy: str = "copy", above: int = 1
    ) -> "OpensslCa":
        home = house.home / "theirs"
        home.mkdir()
        (home / "index.txt").touch()
        for name in ("serial", "crlnumber"):
            (home / name).write_text("1000\n")
        made = cls(house, home)
        (home / "ca.conf").write_text(_CONFIG.format(home=home, ours=ours, copy=copy, above=above))
        for name in ("root", "between"):
            made.run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-out", home / f"{name}.key")  # fmt: skip
        subject = "/O=Example Corp/CN=Root of theirs"
        made.run("req", "-x509", "-new", "-key", home / "root.key", "-subj", subject, "-days", "3650",
                 "-config", home / "ca.conf", "-extensions", "root", "-out", home / "root.crt")  # fmt: skip
        made.run("req", "-new", "-key", home / "between.key", "-subj", "/O=Example Corp/CN=Issuing of theirs",
                 "-config", home / "ca.conf", "-out", home / "between.csr")  # fmt: skip
        made.certify("root", home / "between.csr", home / "between.crt", "between", days=1000)
        return made

    def run(self, *arguments: str | Path) -> Done:
        done = self.house.run("openssl", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    def certify(
        self, issuer: str, csr: Path, out: Path, extensions: str = "ours", days: int = 200
    ) -> None:
        signer = ("-cert", self.home / f"{issuer}.crt", "-keyfile", self.home / f"{issuer}.key")
        self.run("ca", "-batch", "-notext", "-config", self.home / "ca.conf", *signer,
                 "-extensions", extensions, "-days", str(days), "-in", csr, "-out", out)  # fmt: skip

    def crl(self) -> Path:
        path = self.home / "root.crl"
        signer = ("-cert", self.home / "root.crt", "-keyfile", self.home / "root.key")
        self.run("ca", "-gencrl", "-config", self.home / "ca.conf", *signer, "-out", path)
        return path


@pytest.fixture
def home(house: House) -> Iterator[House]:
    require_tool("openssl")
    require_tool("curl")
    yield house


def verified(house: House, *anchors: Path, untrusted: Path) -> Done:
    files = [word for path in anchors for word in ("-CAfile", str(path))]
    leaf = house.identity("shop").cert
    return house.run("openssl", "verify", "-x509_strict", *files, "-untrusted", leaf, leaf)


@pytest.mark.slow
def test_an_offline_root_certifies_the_first_ca_and_the_next(home: House) -> None:
    offline, stick = home.home / "offline", home.home / "stick"
    made = answer(home, "ca", "root", "offline", str(offline), "--algorithm", "ec-p256")
    csr = home.home / "first.csr"
    first = answer(home, "ca", "root", "csr", "--out", str(csr))
    assert answer(home, "ca", "root", "csr")["csr"] == csr.read_text(), "it is the same each time"
    away = home.start_ca(wait=False)
    assert away.wait() != 0
    assert "mesh-ctl ca root install" in away.text
    home.processes.remove(away)

    signing = ("ca", "root", "sign", "--root", offline, "--out", stick, "--yes")
    assert "already" not in told(home.ctl(*signing, "--days", "180", csr), 0)
    files = [stick / name for name in ("issuing-1.crt", "root.crl", "root.crt")]
    assert told(home.ctl("ca", "root", "install", *files[:2], "--yes"), 2).startswith(
        "not-a-root: "
    )
    assert "would be installed" in home.ctl("ca", "root", "install", *files, "--dry-run").stdout
    installed = answer(home, "ca", "root", "install", *map(str, files), "--yes")
    (certificate,) = installed["certificates"]
    assert (certificate["key"], certificate["root"]) == (first["key"], made["fingerprint"])

    ca = home.start_ca()
    assert not (home.state / "ca" / "private" / "root.key").exists()
    (act,) = acts(home, first["key_id"], 1)
    assert act["entry"]["facts"]["step"] == "installed"
    assert act["entry"]["facts"]["fingerprint"] == certificate["fingerprint"]
    home.start_server()
    home.identity("shop")
    home.assert_it_serves()
    assert verified(home, stick / "root.crt", untrusted=stick).returncode == 0

    # The next one, while the CA runs.
    second = answer(home, "ca", "root", "csr", "--out", str(csr))
    assert second["generation"] == 2
    assert answer(home, "ca", "root", "csr")["fingerprint"] == second["fingerprint"]
    assert home.ctl(*signing, csr).returncode == 0
    installing = ("ca", "root", "install", stick / "issuing-2.crt", stick / "root.crl")
    assert "It fits" in home.ctl(*installing, "--dry-run").stdout
    assert not (home.state / "ca" / "issuing-2.crt").exists()
    done = home.ctl(*installing, "--yes")
    assert "the next issuing CA is prepared" in done.stdout, done.stderr
    again = told(home.ctl(*installing, "--yes"), 1)
    assert "was installed before" in again
    assert {row["entry"]["facts"]["step"] for row in acts(home, second["key_id"], 3)} == {
        *("requested", "installed", "prepared"),
    }
    served = home.run(
        "openssl", "crl", "-in", home.state / "ca" / "root.crl", "-noout", "-crlnumber"
    )
    newest = home.run("openssl", "crl", "-in", stick / "root.crl", "-noout", "-crlnumber")
    assert served.stdout == newest.stdout != ""
    assert ca.stop() == 0
    log = home.ctl("audit", "verify", "--file", offline / "ca" / "audit.jsonl")
    assert log.returncode == 0, log.stdout
    assert second["fingerprint"] in (offline / "ca" / "audit.jsonl").read_text()
    home.start_ca()
    issue(home, "spiffe://mesh.local/service/x")
    shown = answer(home, "ca", "show")
    assert [each["name"] for each in shown["certificates"]] == [
        *("root", "issuing.crt", "issuing-2.crt"),
    ]


@pytest.mark.slow
def test_a_root_of_the_cas_own_is_followed_by_one_that_is_offline(home: House) -> None:
    ca = home.start_ca()
    offline, stick, csr = (home.home / name for name in ("offline", "stick", "i.csr"))
    making = ("ca", "root", "offline", offline, "--algorithm", "ec-p256")
    wrong = home.home / "wrong"
    assert home.ctl(*making[:3], wrong, *making[4:]).returncode == 0
    preparing = ("ca", "root", "prepare", "--yes", "--root-cert")
    assert "--generation" in told(home.ctl(*preparing, wrong / "ca" / "root.crt"), 1)
    assert home.ctl(*making, "--generation", "2").returncode == 0
    done = home.ctl(*preparing, offline / "ca" / "root.crt")
    assert done.returncode == 0, done.stderr
    early = told(home.ctl("ca", "root", "activate", "--force", "--yes"), 1)
    assert "mesh-ctl ca root csr" in early
    answer(home, "ca", "root", "csr", "--out", str(csr))
    signing = ("ca", "root", "sign", "--root", offline, "--out", stick, "--yes")
    assert home.ctl(*signing, csr).returncode == 0
    # The old root's key is here: it certifies the same key without being asked.
    own = home.ctl("ca", "root", "install", stick / "issuing-2.crt", stick / "root.crl", "--yes")
    assert own.returncode == 0, own.stderr
    for step in ("activate", "retire"):
        done = home.ctl("ca", "root", step, "--force", "--yes")
        assert done.returncode == 0, done.stderr
    assert home.root.read_bytes() == (stick / "root.crt").read_bytes()
    assert not list((home.state / "ca" / "private").glob("root*"))
    home.start_server()  # one from before rests on the old root alone: that was forced
    assert home.client("--repeat", "2").returncode == 0
    assert ca.stop() == 0
    home.start_ca()
    issue(home, "spiffe://mesh.local/service/x")


@pytest.mark.slow
def test_what_does_not_fit_is_refused_by_a_running_ca(home: House) -> None:
    home.start_ca()
    csr = home.home / "i.csr"
    answer(home, "ca", "root", "csr", "--out", str(csr))
    other = home.home / "other"
    answer(home, "ca", "root", "offline", str(other), "--algorithm", "ec-p256")
    stick = home.home / "stick"
    done = home.ctl("ca", "root", "sign", "--root", other, "--out", stick, "--yes", csr)
    assert done.returncode == 0, done.stderr
    sentence = told(
        home.ctl("ca", "root", "install", stick / "issuing-2.crt", stick / "root.crl", "--yes"), 1
    )
    assert "unknown-authority" in sentence
    assert "crl-bad-signature" in sentence or "crl-other-issuer" in sentence
    own = home.state / "ca" / "issuing.crt"
    assert "was installed before" in told(home.ctl("ca", "root", "install", own, "--yes"), 1)
    key = home.state / "ca" / "private" / "issuing.key"
    assert "certificates and CRLs only" in told(home.ctl("ca", "root", "install", key, "--yes"), 2)
    assert not (home.state / "ca" / "issuing-2.crt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1])
def test_openssl_ca_stands_above_us(depth: int, home: House) -> None:
    theirs = OpensslCa.found(home)
    csr, made = home.home / "i.csr", home.home / "ours.crt"
    answer(home, "ca", "root", "csr", "--out", str(csr))
    theirs.certify(("root", "between")[depth], csr, made)
    files = [made, theirs.home / "root.crt", theirs.crl(), *[theirs.home / "between.crt"][:depth]]
    installed = answer(home, "ca", "root", "install", *map(str, files), "--yes")
    assert len(installed["certificates"][0]["chain"]) == depth
    ca = home.start_ca()
    server = home.start_server()
    assert home.client("--repeat", "2").returncode == 0
    shop = home.identity("shop")
    home.assert_it_serves()
    assert shop.cert.read_text().count("BEGIN") == 2 + depth, "the leaf, ours, theirs, and no root"
    done = verified(home, theirs.home / "root.crt", untrusted=shop.cert)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = home.home / "saved.tar"
    assert home.ctl("backup", "create", saved).returncode == 0
    assert server.stop() == ca.stop() == 0
    (home.state / "ca").rename(home.home / "lost")
    root = installed["certificates"][0]["root"]
    restored = home.ctl("backup", "restore", saved, "--fingerprint", root)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    home.start_ca()
    issue(home, "spiffe://mesh.local/service/x")


#: What is wrong with the section of openssl's configuration, and what is said of it.
ODD = {
    "no constraints": ("keyUsage = critical,keyCertSign,cRLSign", "not-a-ca", "pathlen:0"),
    "no path length": (_OURS.replace(",pathlen:0", ""), "path-too-long", "pathlen:0"),
    "no identifiers": (
        "\n".join(_OURS.splitlines()[:2]) + "\nauthorityKeyIdentifier = none",
        "profile-violation",
        "authorityKeyIdentifier = keyid:always",
    ),
    "no CRLs": (_OURS.replace(",cRLSign", ""), "not-a-crl-issuer", "keyCertSign,cRLSign"),
    "servers only": (f"{_OURS}\nextendedKeyUsage = serverAuth", "wrong-usage", "extendedKeyUsage"),
    "name constraints": (
        f"{_OURS}\nnameConstraints = critical,permitted;URI:.example.org",
        "unknown-extension",
        "no nameConstraints",
    ),
}


@pytest.mark.slow
def test_what_openssl_makes_of_other_settings_is_refused_in_its_own_words(home: House) -> None:
    csr = home.home / "i.csr"
    answer(home, "ca", "root", "csr", "--out", str(csr))
    theirs = OpensslCa.found(home)
    for at, (what, (ours, code, remedy)) in enumerate(ODD.items()):
        config = _CONFIG.format(home=theirs.home, ours=ours, copy="none", above=1)
        (theirs.home / "ca.conf").write_text(config)
        made = home.home / f"odd-{at}.crt"
        theirs.certify("root", csr, made)
        done = home.ctl("ca", "root", "install", made, theirs.home / "root.crt", "--yes")
        sentence = told(done, 2)
        assert code in sentence, (what, sentence)
        assert remedy in sentence, (what, sentence)
    assert not (home.state / "ca" / "root.crt").exists()


@pytest.mark.slow
def test_cfssl_stands_above_us(home: House) -> None:
    cfssl = str(require_tool("cfssl"))
    key = {"algo": "ecdsa", "size": 256}
    files = {
        "root.json": {"CN": "Root of theirs", "key": key, "ca": {"expiry": "87600h"}},
        "config.json": {
            "signing": {
                "profiles": {
                    "issuing": {
                        "usages": ["cert sign", "crl sign"],
                        "expiry": "4000h",
                        "ca_constraint": {
                            "is_ca": True,
                            "max_path_len": 0,
                            "max_path_len_zero": True,
                        },
                    }
                },
                "default": {"expiry": "24h", "usages": ["signing"]},
            }
        },
    }
    for name, content in files.items():
        (home.home / name).write_text(json.dumps(content))
    root = json.loads(home.run(cfssl, "gencert", "-initca", home.home / "root.json").stdout)
    (home.home / "root.crt").write_text(root["cert"])
    (home.home / "root.key").write_text(root["key"])
    csr = home.home / "i.csr"
    answer(home, "ca", "root", "csr", "--out", str(csr))
    done = home.run(
        *(cfssl, "sign", "-ca", home.home / "root.crt", "-ca-key", home.home / "root.key"),
        *("-config", home.home / "config.json", "-profile", "issuing", csr),
    )
    made = home.home / "ours.crt"
    made.write_text(json.loads(done.stdout)["cert"])
    installing = ("ca", "root", "install", made, home.home / "root.crt", "--yes")
    assert home.ctl(*installing).returncode == 0, home.ctl(*installing).stderr
    home.start_ca()
    home.start_server()
    assert home.client("--repeat", "2").returncode == 0
    home.identity("shop")
    assert verified(home, home.home / "root.crt", untrusted=made).returncode == 0
