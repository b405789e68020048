"""Cores behind TLS, and behind mutual TLS."""

import datetime
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.colink.client import Connections
from engine.model.errors import CoreUnavailableError
from engine.model.manifest import TlsSpec
from tests.support.plain_core import PlainCore, token


@pytest.fixture
def identity(tmp_path: Path) -> TlsSpec:
    """A key, and a certificate for localhost that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    cert = str(tmp_path / "cert.pem")
    return TlsSpec(ca=cert, cert=cert, key=str(tmp_path / "key.pem"))


class TlsCore(PlainCore):
    """Speaks TLS; `mutual` demands a certificate of the client."""

    def __init__(self, valkey: Any, identity: TlsSpec, *, mutual: bool) -> None:
        super().__init__(valkey)
        self.address = self.address.replace("http:", "https:")
        pair = (Path(identity.key).read_bytes(), Path(identity.cert).read_bytes())
        self._credentials = grpc.ssl_server_credentials(
            [pair], root_certificates=pair[1] if mutual else None, require_client_auth=mutual
        )

    def listen(self, server: Any) -> None:
        server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
async def core(request: Any, valkey: Any, identity: TlsSpec) -> AsyncIterator[TlsCore]:
    core = TlsCore(valkey, identity, mutual=request.param)
    await core.start()
    yield core
    await core.stop()


async def test_a_core_behind_tls_is_reached_at_its_loopback_address(
    core: TlsCore, identity: TlsSpec, connections: Connections
):
    client = connections.client(core.address, token("anna"), identity)
    await client.create("k", b"v")
    assert await client.read("k") == b"v"
    assert client.as_user(token("bob")).tls == identity


async def test_a_core_of_an_unknown_authority_is_not_trusted(
    core: TlsCore, connections: Connections
):
    with pytest.raises(CoreUnavailableError):
        await connections.client(core.address, token("anna")).read("k")
