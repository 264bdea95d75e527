"""The Docker driver towards an engine that is reached by TCP and asks for a client certificate."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.backends.docker_kit import Lab, lab_of, started
from tests.backends.relay import Relay

from workspace_operator.backends.protocol import Reading
from workspace_operator.errors import BackendUnreachable, BadRequest

pytestmark = pytest.mark.engine
SECRET = ("platform", "engine")
REF = {"namespace": "platform", "name": "engine"}


class Authority:
    """A certificate authority of one test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
        self.certificate = self._sign(self._name, self._key, authority=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A certificate and its key, both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._sign(subject, key, authority=False), pem

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id."""
    async with lab_of(engine) as made:
        yield made


@pytest.fixture
async def door(engine: Any, authority: Authority, tmp_path: Path) -> AsyncIterator[Relay]:
    """The engine behind TLS that admits clients of the authority only."""
    certificate, key = authority.issue("engine")
    for name, content in {"ca": authority.certificate, "cert": certificate, "key": key}.items():
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca"))
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    made = Relay(engine.host.removeprefix("unix://"), tls=context)
    yield made
    made.close()


def secret(authority: Authority, trusted: Authority | None = None) -> Mapping[str, bytes]:
    """What the class's Secret holds."""
    certificate, key = authority.issue("operator")
    return {"ca.crt": (trusted or authority).certificate, "tls.crt": certificate, "tls.key": key}


def _secrets_open() -> int:
    """Files that exist in this process's memory only, so that a kill leaves nothing of a key."""
    links = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return sum(link.startswith(("/memfd:ca.crt", "/memfd:tls.")) for link in links)


async def test_an_engine_behind_tls_is_used_with_the_classs_certificates(
    lab: Lab, door: Relay, authority: Authority
) -> None:
    driver = lab.driver(host=door.host, tls_secret_ref=REF, secrets={SECRET: secret(authority)})
    assert (await started(driver, lab.request())).reading is Reading.RUNNING
    assert len(await driver.list_owned()) == 1
    assert _secrets_open() == 3
    await driver.close()
    assert _secrets_open() == 0, "no key stays behind"


async def test_certificates_are_read_anew_after_a_lost_connection(lab: Lab, door: Relay, authority: Authority) -> None:
    secrets = {SECRET: secret(authority, trusted=Authority())}
    driver = lab.driver(host=door.host, tls_secret_ref=REF, secrets=secrets)
    with pytest.raises(BackendUnreachable, match=r"check docker\.tlsSecretRef"):
        await driver.list_owned()
    secrets[SECRET] = secret(authority)
    assert await driver.list_owned() == ()


async def test_an_incomplete_secret_is_named(lab: Lab, door: Relay) -> None:
    driver = lab.driver(host=door.host, tls_secret_ref=REF, secrets={SECRET: {"ca.crt": b"x"}})
    with pytest.raises(BadRequest, match=r"docker\.tlsSecretRef: .* lacks tls\.crt, tls\.key"):
        await driver.check()


async def test_a_secret_that_holds_no_certificates_is_named(lab: Lab, door: Relay) -> None:
    junk = {"ca.crt": b"junk", "tls.crt": b"junk", "tls.key": b"s3cret junk"}
    driver = lab.driver(host=door.host, tls_secret_ref=REF, secrets={SECRET: junk})
    with pytest.raises((BadRequest, BackendUnreachable), match=r"docker\.tlsSecretRef") as caught:
        await driver.check()
    assert "s3cret" not in str(caught.value)
