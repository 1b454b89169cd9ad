"""One MLflow server on sqlite that also keeps the artifacts."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.member import NotReady


@dataclass(frozen=True, slots=True)
class Mlflow:
    """An MLflow server; see :class:`deploy.embedded.member.Member`."""

    folder: Path
    port: int
    name: str = "mlflow"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Nothing to do: the server makes its tables."""

    def command(self) -> list[str]:
        # fmt: off
        return [
            sys.executable, "-m", "mlflow", "server",
            "--host", "127.0.0.1",
            "--port", str(self.port),
            "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
            # One worker takes 0.5 GB, the default four 1.2 GB; a registry answers a few requests a second.
            "--workers", "1",
        ]
        # fmt: on

    def environment(self) -> Mapping[str, str]:
        return {
            # Runs jobs of MLflow's own (evaluation, prompts) in further processes; nothing here uses them.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def check(self) -> None:
        """Ready when /health answers 200 (http.client, because it ignores the proxies of the environment)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"no answer from {self.address} ({error})") from error
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise NotReady(f"{self.address}/health answers {status}")
