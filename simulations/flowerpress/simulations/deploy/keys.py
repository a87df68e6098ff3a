"""The folder of a deployment's certificates and node keys.

    ca.key       signs server certificates; never leaves this folder
    ca.pem       what devices trust: to every device
    server.key   the server's own
    server.pem
    nodes/NAME.key   a device's own (ECDSA P-384 in OpenSSH's format, as Flower wants it): to that
                     device alone
    nodes/NAME.pub   by which the server knows that device
    nodes/NAME.node  the number that the server gave it
    revoked/     what belonged to devices that are refused now

Keys are made with mode 0600 from the start, folders with 0700. Nothing is ever overwritten, except
the server's pair when it is renewed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.deploy.authority import Authority, Pair, hosts_of

__all__ = ["Keys", "Validity", "fingerprint", "node_fingerprint", "read_node_key"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Validity:
    """A certificate of the folder: its file, its names, and its first and last moment (UTC)."""

    path: Path
    hosts: tuple[str, ...]
    begins: datetime
    ends: datetime

    def days_left(self, now: datetime | None = None) -> int:
        """Return whole days until it ends; negative where it has."""
        return (self.ends - (now or datetime.now(UTC))).days


class Keys:
    """The folder, as a server works with it; ``create`` makes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"
        self.authority_key = folder / "ca.key"
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.nodes = folder / "nodes"
        self.revoked = folder / "revoked"

    @classmethod
    def create(
        cls,
        folder: Path,
        hosts: Sequence[str],
        devices: Sequence[str],
        *,
        name: str = "flowerpress",
        days: int,
    ) -> Keys:
        """Make authority, server certificate and node keys.

        Args:
            folder: a new or empty one.
            hosts: names and addresses under which devices reach the server.
            devices: a name for each device's key.
            days: validity of the server's certificate.

        Raises:
            ConfigError: the folder holds something, or a name cannot be used.
        """
        _check_names(devices)
        authority = Authority.new(name)
        pair = authority.issue(hosts, days)
        keys = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if any(folder.iterdir()):
                raise ConfigError(
                    f"{folder}: is not empty, and keys are never overwritten; name another "
                    "folder, or see certs renew and certs device"
                )
            folder.chmod(0o700)
            keys.nodes.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot make {folder}: {error.strerror}") from error
        _write(keys.authority_key, authority.pair.key, secret=True)
        _write(keys.authority, authority.pair.certificate)
        keys._write_server(pair)
        keys.add(devices)
        return keys

    def add(self, devices: Sequence[str]) -> list[Path]:
        """Make a node key for each name; return the private ones' paths.

        Raises:
            ConfigError: a name cannot be used or is taken, or the folder cannot be written.
        """
        _check_names(devices)
        for device in devices:
            if (self.nodes / f"{device}.key").exists() or (self.nodes / f"{device}.pub").exists():
                raise ConfigError(f"{self.nodes / device}.key: is there already; another name")
        made = []
        for device in devices:
            key = ec.generate_private_key(ec.SECP384R1())
            private = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
            public = key.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
            path = self.nodes / f"{device}.key"
            _write(path, private, secret=True)
            _write(path.with_suffix(".pub"), public + b" " + device.encode() + b"\n")
            made.append(path)
        return made

    def renew(self, hosts: Sequence[str], *, days: int) -> Validity:
        """Replace the server's key and certificate by new ones of the same authority.

        ``hosts`` empty keeps the names and addresses that the old one has.

        Raises:
            ConfigError: a file of the folder is missing or of another kind, or cannot be written.
        """
        old = self.served()
        authority = Authority.read(Pair(_read(self.authority_key), _read(self.authority)))
        pair = authority.issue(hosts or old.hosts, days)
        both = {self.key: pair.key, self.certificate: pair.certificate}
        # All is written before anything is moved: a full disk leaves the old pair in force.
        for path, body in both.items():
            _beside(path, "new").unlink(missing_ok=True)
            _write(_beside(path, "new"), body, secret=path == self.key)
        for path in both:
            path.replace(_beside(path, "old"))
            _beside(path, "new").rename(path)
        return self.served()

    def note(self, device: str, node: int) -> None:
        """Keep the number that a server gave a device."""
        (self.nodes / f"{device}.node").write_text(f"{node}\n", encoding="ascii")

    def node(self, device: str) -> int:
        """Return the number that ``note`` kept.

        Raises:
            ConfigError: there is no such device, or it was never registered from this folder.
        """
        _check_names([device])
        if not (self.nodes / f"{device}.pub").exists():
            raise ConfigError(f"{self.nodes / device}.pub: no such device; see certs show")
        path = self.nodes / f"{device}.node"
        number = _read(path, "the server that registers the key writes it")
        try:
            return int(number)
        except ValueError as error:
            raise ConfigError(f"{path}: holds no number") from error

    def revoke(self, device: str) -> None:
        """Put away what belongs to a device, so that no server registers it again."""
        self.revoked.mkdir(exist_ok=True, mode=0o700)
        for suffix in ("pub", "key", "node"):
            path = self.nodes / f"{device}.{suffix}"
            if path.exists():
                path.replace(self.revoked / path.name)

    def public_keys(self) -> list[Path]:
        """Return the public keys of devices, in order of their names."""
        return sorted(self.nodes.glob("*.pub"))

    def trusted(self) -> Validity:
        """Return the authority's dates."""
        return _validity(self.authority)

    def served(self) -> Validity:
        """Return the names and dates of the server's certificate."""
        return _validity(self.certificate)

    def check(self) -> None:
        """Refuse a folder that a server cannot start with.

        Raises:
            ConfigError: a file is missing, the certificate has ended, or others can read a key.
        """
        for path in (self.authority, self.certificate, self.key):
            if not path.is_file():
                raise ConfigError(
                    f"{path}: is missing; make it: flowerpress certs make {self.folder} HOST"
                )
        served = self.served()
        if served.days_left() < 0:
            raise ConfigError(
                f"{self.certificate}: ended on {served.ends:%Y-%m-%d}; "
                f"renew it: flowerpress certs renew {self.folder}"
            )
        if self.key.stat().st_mode & 0o077:
            raise ConfigError(f"{self.key}: others can read it; chmod 600 {self.key}")

    def _write_server(self, pair: Pair) -> None:
        _write(self.key, pair.key, secret=True)
        _write(self.certificate, pair.certificate)


def node_fingerprint(path: Path) -> str:
    """Return a short name of a node's public key: 16 hexadecimal digits of its SHA-256.

    Raises:
        ConfigError: the file is not an OpenSSH public key of the right kind.
    """
    try:
        key = serialization.load_ssh_public_key(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path}: is not a public key in OpenSSH's format: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path}: is of another kind than Flower takes (ECDSA)")
    return fingerprint(key)


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return a device's private key.

    Raises:
        ConfigError: the file cannot be read, is of another kind, or others can read it.
    """
    body = _read(path, "copy nodes/NAME.key from the server")
    try:
        key = serialization.load_ssh_private_key(body, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is not a private key in OpenSSH's format") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path}: is of another kind than Flower takes (ECDSA)")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others can read it; chmod 600 {path}")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the 16 hexadecimal digits by which a node key is shown."""
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return sha256(point).hexdigest()[:16]


def _validity(path: Path) -> Validity:
    try:
        certificate = x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path}: is not a certificate in PEM: {error}") from error
    return Validity(
        path,
        tuple(hosts_of(certificate)),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _check_names(devices: Sequence[str]) -> None:
    for device in devices:
        if not _NAME.fullmatch(device):
            raise ConfigError(
                f"{device!r} cannot be a device's name: letters, digits, dots, dashes, at most 63"
            )
    if len(set(devices)) != len(devices):
        raise ConfigError("two devices have the same name")


def _read(path: Path, remedy: str = "") -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        then = f"; {remedy}" if remedy else ""
        raise ConfigError(f"cannot read {path}: {error.strerror}{then}") from error


def _write(path: Path, body: bytes, *, secret: bool = False) -> None:
    """Write a file that is not there yet; a secret one is nobody else's from its first moment."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
