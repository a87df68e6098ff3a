"""A certificate authority of one's own, and the server certificates that it signs.

ECDSA on P-256, X.509 version 3 as RFC 5280 wants it. Certificates begin a day before they are made:
a device whose clock is an hour behind should not take a new certificate for one of the future.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowerpress.compression.errors import ConfigError

__all__ = ["AUTHORITY_DAYS", "LOCAL", "SERVER_DAYS", "Authority", "Pair", "hosts_of"]

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397

LOCAL = ("localhost", "127.0.0.1")
"""In every server certificate: Flower's own processes on the server speak to it by these."""

_BEHIND = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes


@dataclass(frozen=True, eq=False)
class Authority:
    """The key that signs server certificates, and the certificate that devices trust."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str, days: int = AUTHORITY_DAYS) -> Authority:
        """Make an authority called ``name`` that is trusted for ``days``."""
        key = ec.generate_private_key(ec.SECP256R1())
        called = _name(name)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(called, called, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def read(cls, pair: Pair) -> Authority:
        """Read an authority from its two PEM files.

        Raises:
            ConfigError: one of them is not what it should be, or they do not belong together.
        """
        try:
            key = serialization.load_pem_private_key(pair.key, password=None)
            certificate = x509.load_pem_x509_certificate(pair.certificate)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the authority's key or certificate is not PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("the authority's key is of another kind than certs make writes")
        if key.public_key() != certificate.public_key():
            raise ConfigError("the authority's key and certificate do not belong together")
        return cls(key, certificate)

    @property
    def pair(self) -> Pair:
        """Key and certificate as files hold them."""
        return _pair(self.key, self.certificate)

    def issue(
        self, hosts: Sequence[str], days: int = SERVER_DAYS, *, start: datetime | None = None
    ) -> Pair:
        """Make a key and a certificate for a server.

        Args:
            hosts: its names and addresses; ``LOCAL`` is added.
            days: for how long it is valid, from ``start`` (default: now).

        Raises:
            ConfigError: there is no name or address in ``hosts``, or one is neither.
        """
        if not hosts:
            raise ConfigError("a server certificate needs a name or an address of the server")
        every = list(dict.fromkeys([*hosts, *LOCAL]))
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(host) for host in every]
        builder = (
            _builder(_name(every[0]), self.certificate.subject, key.public_key(), days, start=start)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        return _pair(key, builder.sign(self.key, hashes.SHA256()))


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for; empty if it names none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = found.get_values_for_type(x509.DNSName)
    return [*names, *map(str, found.get_values_for_type(x509.IPAddress))]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    *,
    start: datetime | None = None,
) -> x509.CertificateBuilder:
    began = start or datetime.now(UTC) - _BEHIND
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after((start or datetime.now(UTC)) + timedelta(days=days))
    )


def _pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(private, certificate.public_bytes(serialization.Encoding.PEM))


def _name(text: str) -> x509.Name:
    # A common name has at most 64 characters (RFC 5280, upper bounds); clients read the others.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.removeprefix("*.").rstrip(".").split(".")
    plain = all(
        0 < len(label) <= 63
        and label.replace("-", "").isalnum()
        and label.isascii()
        and label.strip("-") == label
        for label in labels
    )
    if not plain or len(host) > 253:
        raise ConfigError(
            f"{host!r} is neither a host name nor an address; give it without scheme and port"
        )
    return x509.DNSName(host)
