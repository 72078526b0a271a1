"""What running on Ray raises on purpose."""

from __future__ import annotations

from models.errors import ClipdexError, UserError


class RayMissingError(UserError):
    """Ray isn't installed."""

    code = "ray_missing"


class ClusterAddressError(UserError):
    """No Ray cluster answers at the address."""

    code = "cluster_unreachable"


class ClusterFailedError(ClipdexError):
    """The cluster gave the work up, or answered something else than was asked."""

    code = "cluster_failed"
