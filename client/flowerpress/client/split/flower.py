"""How a client of a Flower run joins a round of split training."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import RecordDict

from flowerpress.client.split.link import SplitLink
from flowerpress.compression import ConfigError
from flowerpress.protos.split_terms import SplitTerms

__all__ = ["joining"]


def joining(content: RecordDict) -> Callable[[bool], SplitLink]:
    """Return what ``train_split`` connects with, from the message that asks for a round.

    Raises:
        ConfigError: the message comes from a server that does not split.
        FormatError: its terms are none that a server sends.
    """
    terms = SplitTerms.read(content)
    if terms is None:
        raise ConfigError("this run splits its network, but the server sent no terms of a split")

    def connect(restart: bool) -> SplitLink:
        return SplitLink(
            terms.address,
            run=int.from_bytes(terms.run, "big"),
            client=terms.client,
            round=terms.round,
            token=terms.token,
            root_certificates=terms.certificate or None,
            deadline=terms.patience,
            seed=terms.seed,
            restart=restart,
        )

    return connect
