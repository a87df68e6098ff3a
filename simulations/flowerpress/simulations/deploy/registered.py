"""Whether a server knows a device's key, asked without taking part in anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowerpress.simulations.deploy.tls import Address

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["is_registered"]

# Flower's ApiErrorCode: FLEET_INVALID_HEARTBEAT_INTERVAL, FLEET_NODE_ACTIVATION_FAILED.
_KNOWN, _UNKNOWN = 2003, 2004


def is_registered(
    address: Address, authority: Path | None, key: ec.EllipticCurvePrivateKey
) -> bool | None:
    """Return whether the SuperLink knows the key; None where its answer says nothing about it.

    A SuperNode says that it is there with its key and how often it will send a heartbeat. Flower
    looks the key up first and at the interval then: with one that is never accepted, nothing
    changes on the server, and a device that is connected stays so.
    """
    import httpx
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.error import FlowerError
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    public = key.public_key()
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=0)
    try:
        with FleetHttpClient.from_server_address(
            str(address),
            insecure=False,
            root_certificates=None if authority is None else authority.read_bytes(),
            interceptors=[NodeAuthHttpInterceptor(key, public)],
        ) as client:
            client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        told = FlowerError.from_json(error.response.text)
        return None if told is None else {_KNOWN: True, _UNKNOWN: False}.get(told.code)
    except httpx.HTTPError:
        pass
    return None
