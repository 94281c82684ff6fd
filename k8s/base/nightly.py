"""Start a copy of a suspended RayJob: `python nightly.py TEMPLATE PREFIX`.

Runs in a pod of the CronJob, with the rights of its service account, and needs the standard library
alone. While a copy that was started earlier still runs, nothing is started; finished copies beyond
the last seven are deleted.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LABEL = "ctray/copy-of"
KEPT = 7
FINISHED = ("Complete", "Failed", "ValidationFailed")


class Api:
    """The RayJobs of the pod's namespace; `account` is the folder of its service account."""

    def __init__(self, account: Path) -> None:
        # An address of IPv6 stands in brackets in a URL.
        host = os.environ["KUBERNETES_SERVICE_HOST"]
        host = f"[{host}]" if ":" in host else host
        port = os.environ["KUBERNETES_SERVICE_PORT"]
        namespace = (account / "namespace").read_text().strip()
        self._token = (account / "token").read_text().strip()
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._url = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"

    def __call__(self, method: str, path: str = "", body: Any = None) -> Any:
        """Answer to one request, from JSON."""
        request = urllib.request.Request(  # noqa: S310 - the URL begins with https
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:  # noqa: S310
            return json.load(answer)


def copy_of(template: dict[str, Any], name: str) -> dict[str, Any]:
    """The RayJob that does what `template` says, now."""
    meta = template["metadata"]
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {
            "name": name,
            "labels": {**meta.get("labels", {}), LABEL: meta["name"]},
        },
        # An id of a submission belongs to one job alone.
        "spec": {**{k: v for k, v in template["spec"].items() if k != "jobId"}, "suspend": False},
    }


def start(api: Api, template_name: str, prefix: str) -> str:
    """Start a copy where none runs; returns what was done in one line."""
    copies = api("GET", f"?labelSelector={LABEL}%3D{template_name}")["items"]
    copies.sort(key=lambda job: str(job["metadata"]["creationTimestamp"]))
    done = [job for job in copies if job.get("status", {}).get("jobDeploymentStatus") in FINISHED]
    running = [job["metadata"]["name"] for job in copies if job not in done]
    if running:
        return f"{running[-1]} still runs: nothing is started"
    for job in done[:-KEPT]:
        api("DELETE", f"/{job['metadata']['name']}")
    name = f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M}"
    api("POST", body=copy_of(api("GET", f"/{template_name}"), name))
    return f"started {name}"


def main() -> None:
    """One line about what was done, or why not; status 1 then."""
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    account = Path(sys.argv[3]) if len(sys.argv) == 4 else ACCOUNT
    try:
        print(start(Api(account), sys.argv[1], sys.argv[2]))
    except urllib.error.HTTPError as error:
        try:
            reason = json.load(error)["message"]
        except (ValueError, KeyError, TypeError):
            reason = error.reason
        sys.exit(f"error: the API server refused: {error.code} {reason}")
    except (OSError, KeyError) as error:
        sys.exit(f"error: no API server to talk to: {error!r}")


if __name__ == "__main__":
    main()
