"""docker-compose.kafka.yml and the image, held to the code without a Docker engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from deploy.embedded.kafka import PROPERTIES
from deploy.embedded.mlflow import Mlflow
from deploy.embedded.pipeline import PROCESSES
from deploy.embedded.redis import Redis
from millrace.settings import Settings, StackSettings, StreamSettings
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "millrace")
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()

# The image's entrypoint turns these into the command line of the JVM and the identity of the node; the embedded
# broker has them elsewhere, or none because it is alone on its machine.
NODE = {
    *("KAFKA_HEAP_OPTS", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"),
    *("KAFKA_INTER_BROKER_LISTENER_NAME", "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "KAFKA_LOG_DIRS"),
}


def environment(name: str) -> Mapping[str, str]:
    found: Mapping[str, str] = SERVICES[name].get("environment", {})
    return found


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_schema() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


@pytest.mark.parametrize("broken", ["ports", "volumes", "environment"])
def test_the_schema_refuses_what_it_should(broken: str) -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose.schema.json").read_text())
    value: object = {"ports": ["9092:9092"], "volumes": ["/etc:/etc"], "environment": {"KAFKA_NODE_ID": 1}}[broken]
    changed = {**COMPOSE, "services": {"kafka": {**SERVICES["kafka"], broken: value}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(changed)


def test_every_process_of_the_pipeline_is_there_by_its_own_name() -> None:
    commands = {name: service["command"][:3] for name, service in SERVICES.items() if name in PROCESSES}
    assert commands == {name: ["python", "-m", module] for name, module in PROCESSES.items()}


@pytest.mark.parametrize("name", OURS)
def test_its_command_runs_and_knows_its_options(name: str) -> None:
    """With ``--help`` behind it: click refuses unknown options before it prints the help."""
    program, *arguments = SERVICES[name]["command"]
    path = sys.executable if program == "python" else str(Path(sys.executable).parent / program)
    done = subprocess.run(
        [path, *arguments, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("name", [name for name in OURS if name != "mlflow"])
def test_its_variables_are_settings_and_their_values_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        f"{group.model_config['env_prefix']}{field}".upper()
        for group in Settings.groups.values()
        for field in group.model_fields
    }
    assert set(environment(name)) <= known
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value)
    read = Settings()
    assert read.kafka.bootstrap_servers == environment(name)["KAFKA_BOOTSTRAP_SERVERS"]


def test_the_broker_is_set_as_the_embedded_one() -> None:
    embedded = {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in PROPERTIES.items()}
    assert {key: value for key, value in environment("kafka").items() if key not in NODE} == embedded
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{StackSettings().kafka_version}"


def test_redis_is_set_as_the_embedded_one(tmp_path: Path) -> None:
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    given = dict(zip(options[::2], options[1::2], strict=True))
    embedded = Redis(tmp_path, port=0).configuration()
    elsewhere = {"port", "bind", "dir", "daemonize"}
    assert given == {f"--{key}": value.strip('"') for key, value in embedded.items() if key not in elsewhere}


def test_mlflow_is_set_as_the_embedded_one_and_answers_to_its_name(tmp_path: Path) -> None:
    given = dict(option.removeprefix("--").split("=", 1) for option in SERVICES["mlflow"]["command"][2:])
    embedded = Mlflow(tmp_path, port=0)
    options = embedded.command()[4:]
    own = {"host", "port", "allowed-hosts", "backend-store-uri", "artifacts-destination"}
    assert {key: value for key, value in given.items() if key not in own} == {
        key.removeprefix("--"): value
        for key, value in zip(options[::2], options[1::2], strict=True)
        if key.removeprefix("--") not in own
    }
    assert environment("mlflow") == embedded.environment()
    allowed = given["allowed-hosts"].split(",")
    for name in PROCESSES:
        assert urlsplit(environment(name)["MLFLOW_TRACKING_URI"]).netloc in allowed


@pytest.mark.parametrize("name", [name for name in OURS if name != "mlflow"])
def test_it_is_told_where_the_others_listen(name: str) -> None:
    here = environment(name)
    assert f"PLAINTEXT://{here['KAFKA_BOOTSTRAP_SERVERS']}" in environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]
    for variable in ("REDIS_URL", "MLFLOW_TRACKING_URI"):
        address = urlsplit(here[variable])
        assert SERVICES[str(address.hostname)]["ports"] == [f"127.0.0.1:{address.port}:{address.port}"]


@pytest.mark.parametrize("name", ["recommender", "gateway"])
def test_a_service_is_reachable_from_this_machine(name: str) -> None:
    port = environment(name)[f"MILLRACE_{name.upper()}_PORT"]
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_gateway_is_told_where_the_recommender_listens() -> None:
    port = environment("recommender")["MILLRACE_RECOMMENDER_PORT"]
    assert environment("gateway")["MILLRACE_RECOMMENDER_TARGET"] == f"recommender:{port}"


@pytest.mark.parametrize("name", PROCESSES)
def test_health_is_readiness_on_the_port_that_it_listens_on(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"][-1]
    assert f"http://127.0.0.1:{environment(name)['MILLRACE_METRICS_PORT']}/readyz" in check
    assert environment(name)["MILLRACE_METRICS_HOST"] == "0.0.0.0"


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_time_to_drain(name: str) -> None:
    assert seconds(SERVICES[name]["stop_grace_period"]) * 1_000 > StreamSettings().drain_timeout_ms


def test_what_waits_for_another_can_get_it() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
            else:
                assert SERVICES[other]["restart"] == "on-failure", (name, other)  # a job that ends


def test_volumes_are_declared_and_no_secret_is_inside() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"])
    assert not [key for name in SERVICES for key in environment(name) if re.search("PASSWORD|SECRET|TOKEN", key)]


def test_the_image() -> None:
    """Unprivileged, with the extras of its processes, of a Python that the project supports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"pip install '\.\[([a-z,-]+)\]'", DOCKERFILE)[0].split(",")
    assert {name.replace("_", "-") for name in PROCESSES} == set(extras) <= set(project["optional-dependencies"])
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.12-slim"] * 2
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["millrace"]


def test_the_build_context_holds_what_the_image_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {source for sources in copied for source in sources.split()} == allowed
    assert lines[1] == "*"
    assert all((ROOT / source).exists() for source in allowed)
