"""The few calls to a Kubernetes API server that a lane needs, over HTTPS; a kubeconfig or our pod says who we are."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from frazil.model.errors import FrazilError
from frazil_scheduler.cluster.commands import refused, unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_CLUSTER = "https://kubernetes.default.svc"
_SECONDS = 15.0
_CONFLICT, _NOT_FOUND = 409, 404
_REFUSALS = (400, 401, 403, 404, 422)  # the server has understood and will not


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the API server is, and how we prove to it who we are."""

    server: str
    namespace: str
    tls: ssl.SSLContext
    token: str = ""
    token_file: Path | None = None  # read anew for each call: the kubelet renews it

    def headers(self) -> dict[str, str]:
        """Return the headers of a call."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def read_access(kubeconfig: str, lane: str) -> Access:
    """Read a kubeconfig's current context; without one, our pod's service account.

    Raises FrazilError CONFIG_INVALID when neither is there.
    """
    try:
        return _from_kubeconfig(Path(kubeconfig)) if kubeconfig else _from_service_account(SERVICE_ACCOUNT)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, yaml.YAMLError) as error:
        where = f"the kubeconfig {kubeconfig}" if kubeconfig else "the service account of this pod"
        sentence = f"[lanes.{lane}] cannot use {where} ({error!r}); name a kubeconfig, or run the scheduler in the cluster."
        raise FrazilError("CONFIG_INVALID", sentence) from error


class KubernetesApi:
    """Calls to one API server. Each raises FrazilError CLUSTER_UNAVAILABLE when it does not answer."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list(self, path: str, selector: str) -> list[dict[str, Any]]:
        """Return the objects with these labels."""
        items: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": "500"}
        while True:
            reply = _require_ok(await self._call("GET", path, params=query)).json()
            items += reply["items"]
            query["continue"] = reply.get("metadata", {}).get("continue") or ""
            if not query["continue"]:
                return items

    async def create(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Create an object; one of this name that is there already is success. Raises FrazilError CLUSTER_REFUSED."""
        reply = await self._call("POST", path, json=manifest)
        if reply.status_code in _REFUSALS:
            raise refused(f"Kubernetes did not take the job: {_words(reply)}")
        if reply.status_code != _CONFLICT:
            _require_ok(reply)

    async def delete(self, path: str) -> None:
        """Delete an object with what belongs to it: it is gone when they are. One that is not there is success."""
        reply = await self._call("DELETE", path, json={"propagationPolicy": "Foreground"})
        if reply.status_code != _NOT_FOUND:
            _require_ok(reply)

    async def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        access = self._access
        try:
            async with httpx.AsyncClient(verify=access.tls, timeout=_SECONDS, trust_env=False) as client:
                return await client.request(method, access.server + path, headers=access.headers(), **arguments)
        except (httpx.HTTPError, OSError) as error:
            raise unavailable(
                f"The Kubernetes API server {access.server} does not answer: {error or type(error).__name__}."
            ) from error


def _require_ok(reply: httpx.Response) -> httpx.Response:
    if reply.is_success:
        return reply
    raise unavailable(f"Kubernetes refused {reply.request.method} {reply.request.url.path}: {_words(reply)}")


def _words(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {reply.status_code}"


def _from_service_account(folder: Path) -> Access:
    return Access(
        server=IN_CLUSTER,
        namespace=(folder / "namespace").read_text().strip(),
        tls=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        token_file=folder / "token",
    )


def _from_kubeconfig(path: Path) -> Access:
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    if "exec" in user or "auth-provider" in user:
        raise ValueError("it asks another program for a token; use a service account's token instead")
    token_file = user.get("tokenFile")
    return Access(
        server=cluster["server"].rstrip("/"),
        namespace=context.get("namespace", "default"),
        tls=_tls(cluster, user, path.parent),
        token=user.get("token", ""),
        token_file=path.parent / token_file if token_file else None,
    )


def _named(entries: Any, name: str) -> Any:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    file = cluster.get("certificate-authority")
    tls = ssl.create_default_context(
        cafile=str(folder / file) if file else None,
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if "client-certificate" in user:
        tls.load_cert_chain(str(folder / user["client-certificate"]), str(folder / user["client-key"]))
    elif "client-certificate-data" in user:
        pem = b"\n".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data"))
        with tempfile.NamedTemporaryFile(suffix=".pem") as both:  # only a file can be loaded
            both.write(pem)
            both.flush()
            tls.load_cert_chain(both.name)
    return tls
