"""Checks that a cluster answers at an address, before Ray is loaded, which takes seconds."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from importlib.metadata import version
from typing import Any

from ctray.core.errors import AccessError, ConfigError, JobError, one_line

TIMEOUT_S = 10.0


def check_dashboard(address: str) -> None:
    """Refuse an address unless a cluster answers there that this ctray can talk to.

    Parameters
    ----------
    address
        URL of a dashboard, such as http://127.0.0.1:8265.

    Raises
    ------
    ConfigError
        If it is no URL.
    JobError
        If no cluster answers there, or one with another version of Ray.
    AccessError
        If it asks for another token.
    """
    if not re.match(r"https?://", address):
        raise ConfigError(
            f"{address} is not a URL; give that of the dashboard, such as http://{address}:8265"
            if ":" not in address
            else f"{address} is not a URL; give that of the dashboard, such as http://127.0.0.1:8265"
        )
    _check_version(address.rstrip("/"))


def token_headers() -> dict[str, str]:
    """Return the header with the token of the environment. Ray itself finds tokens in files."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return {}
    return {"Authorization": f"Bearer {token}"}


def _check_version(address: str) -> None:
    """Raise `JobError` unless a cluster with this machine's minor version of Ray answers."""
    request = urllib.request.Request(f"{address}/api/version", headers=token_headers())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            found: Any = json.load(answer)
        theirs = str(found["ray_version"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise AccessError(
                f"{address} asks for a token; set RAY_AUTH_TOKEN to the cluster's"
                if error.code == 401
                else f"{address} refuses the token; set RAY_AUTH_TOKEN to the cluster's"
            ) from error
        raise JobError(f"{address} is no Ray dashboard: it answers {error.code}") from error
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise JobError(
            f"no cluster answers at {address} ({one_line(Exception(reason))}); give the address "
            "of its dashboard with --address or RAY_API_SERVER_ADDRESS, on Kubernetes after "
            "kubectl port-forward svc/NAME-head-svc 8265"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{address} is no Ray dashboard: its answer has no version") from error
    ours = version("ray")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise JobError(
            f"the cluster at {address} runs Ray {theirs} and ctray here needs Ray "
            f"{ours}; use the cluster's image with the same version of ctray"
        )
