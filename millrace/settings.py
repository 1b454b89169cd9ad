"""Every setting of Millrace, in one typed place.

Values come, first match wins, from arguments, from environment variables, from ``.env`` in the working
directory, from ``stack.env`` in the project's folder (written by ``millrace stack up``), and from the
defaults here. ``millrace config`` shows each with its variable, its value and where that came from.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from millrace.errors import MillraceError
from millrace.redis_address import cluster_address

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]


def home() -> Path:
    """Folder of everything that Millrace keeps on this machine (``MILLRACE_HOME``, default ``.millrace``)."""
    return Path(os.environ.get("MILLRACE_HOME", ".millrace")).resolve()


def _env_files() -> tuple[Path, Path]:
    return home() / "stack.env", Path(".env")


class _Group(BaseSettings):
    """A group of settings with a common prefix of its environment variables."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    def __init__(self, **values: object) -> None:
        # The files are looked up when settings are read, not when this module is imported: tests and the
        # embedded stack move MILLRACE_HOME.
        values.setdefault("_env_file", _env_files())
        try:
            super().__init__(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            prefix = self.model_config["env_prefix"]
            problems = (f"{prefix}{problem['loc'][0]}".upper() + f": {problem['msg']}" for problem in error.errors())
            raise MillraceError(f"setting {'; '.join(problems)} (see `millrace config`)") from error


class KafkaSettings(_Group):
    """The broker."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", extra="ignore", frozen=True)

    bootstrap_servers: str = Field("localhost:9092", description="Brokers, host:port[,host:port].")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: str = Field("", description="SASL mechanism, for example SCRAM-SHA-512; empty: none.")
    sasl_username: str = Field("", description="SASL user.")
    sasl_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    ssl_ca_location: str = Field("", description="File with the certificate authorities; empty: the system's.")
    group_protocol: Literal["consumer", "classic"] = Field(
        "consumer", description="Consumer group protocol: KIP-848 (Kafka 4.0 or newer), or the classic one."
    )
    partitions: Positive = Field(6, description="Partitions of interactions, impressions and outcomes when made.")
    replication_factor: Positive = Field(1, description="Replicas of each partition when a topic is made.")


class RedisSettings(_Group):
    """The feature store."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore", frozen=True)

    url: str = Field(
        "redis://localhost:6379/0",
        description="Address of Redis; rediss:// for TLS. A cluster: redis+cluster://host:port,host:port (some of its "
        "nodes), or rediss+cluster://.",
    )
    timeout_ms: Positive = Field(2_000, description="Time limit of one round trip of a worker, milliseconds.")

    @field_validator("url")
    @classmethod
    def _form(cls, url: str) -> str:
        cluster_address(url)
        return url


class MlflowSettings(_Group):
    """The model registry."""

    model_config = SettingsConfigDict(env_prefix="MLFLOW_", extra="ignore", frozen=True)

    tracking_uri: str = Field("http://localhost:5000", description="Address of the MLflow server.")
    timeout_ms: Positive = Field(10_000, description="Time limit of one request to MLflow, milliseconds.")


class ObservabilitySettings(_Group):
    """Logs, metrics and health of every process."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="Form of a log line.")
    metrics_host: str = Field("127.0.0.1", description="Address that /metrics, /healthz and /readyz listen on.")
    metrics_port: Port = Field(0, description="Port of /metrics, /healthz and /readyz; 0: a free one, logged.")


class TracingSettings(_Group):
    """Traces, by OpenTelemetry's own variables; the exporter reads its others (headers, certificates) by itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", extra="ignore", frozen=True)

    exporter_otlp_endpoint: str = Field(
        "",
        description="Collector that spans are sent to (OTLP over HTTP), such as http://localhost:4318; empty: none.",
    )
    traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="Share of requests that are traced among those that bring no traceparent of their own. One that "
        "does is traced if its flag says so.",
    )


class StreamSettings(_Group):
    """The consumer runtime."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_STREAM_", extra="ignore", frozen=True)

    batch_size: Positive = Field(
        4_000,
        description="Most records of one batch. A worker that keeps up never waits for a full one; one that is behind "
        "writes each key once for all of a batch.",
    )
    fetch_wait_ms: Positive = Field(
        100,
        description="How long the broker holds a fetch that has nothing to bring, milliseconds. Records come at once "
        "in any case; at 5 ms each idle consumer costs the broker 8 % of a core.",
    )
    durability_margin_ms: Annotated[int, Field(ge=0)] = Field(
        2_000,
        description="Positions are committed this long after their effects were written, because Redis with "
        "appendfsync everysec may lose its last second; milliseconds.",
    )
    drain_timeout_ms: Positive = Field(10_000, description="Longest time to finish after SIGTERM, milliseconds.")
    backoff_max_ms: Positive = Field(5_000, description="Longest pause between tries while a system is away.")
    stalled_after_ms: Positive = Field(
        30_000,
        description="/readyz fails when a partition with lag has not moved for this long, milliseconds.",
    )
    queued_max_kib: Positive = Field(32_768, description="Most data that a consumer keeps ahead of its worker, KiB.")
    output_max_kib: Positive = Field(65_536, description="Most data of a worker on its way to the broker, KiB.")
    max_value_bytes: Positive = Field(262_144, description="Largest value of a record (256 KiB).")


class FeatureSettings(_Group):
    """Features of users and items."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_FEATURES_", extra="ignore", frozen=True)

    half_life_short_ms: Positive = Field(10 * MINUTE_MS, description="Half-life of the short popularity.")
    half_life_long_ms: Positive = Field(7 * DAY_MS, description="Half-life of the long popularity.")
    neighbour_half_life_ms: Positive = Field(6 * HOUR_MS, description="Half-life of co-visitation weights.")
    user_half_life_ms: Positive = Field(7 * DAY_MS, description="Half-life of a user's decayed counters.")
    session_gap_ms: Positive = Field(30 * MINUTE_MS, description="A session without id ends after such a gap.")
    session_context: Positive = Field(5, description="Earlier items of the session that an item is paired with.")
    backward_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="What a pair of a session counts the other way round, with the earlier item as the neighbour. "
        "In shops 0.2 finds more of what comes next; it costs the feature updater a third of its throughput.",
    )
    neighbours_kept: Positive = Field(50, description="Heaviest neighbours kept of each item.")
    recent_kept: Positive = Field(64, description="Recent engagements kept of each user.")
    dedup_window: Positive = Field(
        128,
        description="Events of a user in which the same event_id counts once; later duplicates count again.",
    )
    user_batch_max: Positive = Field(
        32,
        description="Most events of one user in one write; must be well below recent_kept and dedup_window.",
    )
    user_ttl_ms: Positive = Field(30 * DAY_MS, description="A user unseen for this long is forgotten.")
    item_ttl_ms: Positive = Field(30 * DAY_MS, description="Statistics of an item unseen for this long are dropped.")
    publish_interval_ms: Positive = Field(250, description="Least time between two item-state records of an item.")
    publish_interval_behind_ms: Positive = Field(
        5_000, description="The same while the worker is catching up: nobody waits for a state between."
    )
    pending_items_max: Positive = Field(
        100_000, description="Most items waiting to be published; at this number they are published at once."
    )


class RecommenderSettings(_Group):
    """The gRPC service."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_RECOMMENDER_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address that the gRPC service listens on.")
    port: Port = Field(50051, description="Port of the gRPC service; 0: a free one, logged.")
    processes: Positive = Field(1, description="Serving processes that share the port (SO_REUSEPORT).")
    model_name: str = Field("ranker", description="Registered model whose champion ranks.")
    deadline_ms: Positive = Field(1_000, description="Longest work on a request whose caller gave no deadline.")
    concurrent_max: Positive = Field(256, description="Most requests under way; more are refused at once.")
    features_timeout_ms: Positive = Field(50, description="Longest wait for a user's features in Redis.")
    candidates_max: Positive = Field(
        120, description="Most candidates that the model ranks: the best of several hundred by a simple score."
    )
    context_items: Positive = Field(10, description="Recent items of the user whose neighbours are candidates.")
    session_items: Annotated[int, Field(ge=0, le=1_000)] = Field(
        40, description="Items of the user's session that similar sessions are sought by; 0: none are."
    )
    session_runs_max: Positive = Field(
        131_072, description="Recent sessions in memory (of up to 40 items each; longer ones count as several)."
    )
    session_events_read: Positive = Field(
        200_000, description="Newest events of the log that are read at the start, so that recent sessions are known."
    )
    context_half_life_ms: Positive = Field(
        2 * HOUR_MS, description="Half-life of how popular items are by device, region, referrer and so on."
    )
    trending_items: Positive = Field(100, description="Items of each trending list that are candidates.")
    fresh_items: Annotated[int, Field(ge=0)] = Field(10, description="New catalogue items that are candidates.")
    viewport: Annotated[int, Field(ge=1, le=200)] = Field(10, description="Items seen without scrolling.")
    repeat_policy: Literal["learned", "exclude"] = Field(
        "learned", description="Items that the user knows: ranked by what the stream says, or left out."
    )
    shuffled_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="Share of the champion's answers whose items are shown in random order, so that any model can be "
        "evaluated before it gets traffic (`millrace experiments evaluate`); 0: none are.",
    )
    mirror_items_max: Positive = Field(
        1_000_000, description="Most items in memory; beyond, those unseen for longest are dropped."
    )
    impressions_pending_max: Positive = Field(
        50_000, description="Most impressions waiting for the broker; more are dropped and counted."
    )
    linger_ms: Annotated[int, Field(ge=0)] = Field(5, description="Time to gather impressions into one batch.")
    drain_timeout_ms: Positive = Field(10_000, description="Longest time to finish after SIGTERM, milliseconds.")


class JoinerSettings(_Group):
    """The outcome joiner."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_JOINER_", extra="ignore", frozen=True)

    attribution_window_ms: Positive = Field(
        30 * MINUTE_MS,
        description="What a user does with an answer counts for so long; then slots seen and left alone are negative.",
    )
    grace_ms: Annotated[int, Field(ge=0)] = Field(
        5_000, description="An interaction waits so long for the answer that it names."
    )
    commit_interval_ms: Positive = Field(100, description="Time between two transactions.")
    transaction_timeout_ms: Positive = Field(
        10_000, description="The broker aborts the transaction of a joiner that is silent for so long."
    )
    dedup_window: Positive = Field(
        100_000, description="Events of a partition in which the same event_id of a user counts once."
    )
    open_max: Positive = Field(
        200_000, description="Most answers open in a process; beyond, the oldest are decided early."
    )
    organic_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share of the clicks without an answer behind them that become examples."
    )
    organic_negatives: Positive = Field(10, description="Candidates drawn as negatives of such an example.")


class LearnerSettings(_Group):
    """The online learner."""

    model_config = SettingsConfigDict(env_prefix="ONLINE_LEARNING_", extra="ignore", frozen=True)

    model_name: str = Field("ranker", description="Registered model whose champion learns.")
    # 100,000 slots of our features take 120 MB.
    buffer_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1_000, description="Slots that are learned at once; a full buffer is not waited for."
    )
    interval_ms: Positive = Field(200, description="Longest time that a slot waits in the buffer, milliseconds.")
    snapshot_interval_ms: Positive = Field(5_000, description="Time between two snapshots on model-updates.")
    checkpoint_interval_ms: Positive = Field(
        5 * MINUTE_MS, description="Time between two checkpoints in MLflow, if something was learned, milliseconds."
    )


class ExperimentSettings(_Group):
    """Experiments: what the tracker keeps, and whom none may touch."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_EXPERIMENTS_", extra="ignore", frozen=True)

    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of users that no experiment touches; the same for recommender and tracker."
    )
    commit_interval_ms: Positive = Field(
        200, description="Time between two transactions of the tracker, milliseconds; it decides as often."
    )
    figures_interval_ms: Positive = Field(
        1_000, description="Time between two records of an experiment that changed in its figures only, milliseconds."
    )
    # 1 kB each.
    users_max: Positive = Field(500_000, description="Most users of running experiments; more do not count.")
    answers_max: Positive = Field(
        200_000, description="Most answers of which some slots are decided; beyond, the oldest do not count."
    )
    purchase_wait_ms: Positive = Field(
        45 * MINUTE_MS,
        description="A purchase waits so long for an answer that it may follow from: longer than the joiner's window.",
    )


class OrchestratorSettings(_Group):
    """The retrain orchestrator."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_ORCHESTRATOR_", extra="ignore", frozen=True)

    model_name: str = Field("ranker", description="Registered model that is looked after.")
    reconcile_interval_ms: Positive = Field(2_000, description="Time between two comparisons of is and ought.")
    session_timeout_ms: Positive = Field(
        6_000,
        description="A dead orchestrator's work moves on after this long (Faust's own default is 60 s).",
    )
    cool_down_ms: Annotated[int, Field(ge=0)] = Field(
        HOUR_MS, description="After a rollback no experiment's winner is promoted for so long, milliseconds."
    )
    buffered_commands_max: Positive = Field(16, description="Most commands fetched ahead; the others wait in the log.")


class GatewaySettings(_Group):
    """The REST gateway."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_GATEWAY_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address that the REST API listens on.")
    port: Port = Field(8000, description="Port of the REST API; 0: a free one, logged.")
    # 10,000 events of 400 bytes.
    body_max_kib: Positive = Field(4_096, description="Largest body of a request, KiB.")
    batch_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        10_000, description="Most events or items of one request."
    )
    events_pending_max: Positive = Field(
        50_000, description="Most events and items waiting for the broker; more are refused at once."
    )
    concurrent_max: Positive = Field(1_000, description="Most requests under way; more are refused at once.")
    delivery_timeout_ms: Positive = Field(
        5_000, description="An event or command that the broker did not take within this time is reported as failed."
    )
    recommend_timeout_ms: Positive = Field(1_000, description="Longest wait for the recommender, tries included.")
    command_wait_ms: Annotated[int, Field(ge=0, le=30_000)] = Field(
        5_000, description="Longest wait for what comes of a command, where a request does not say how long."
    )
    drain_timeout_ms: Positive = Field(10_000, description="Longest time to finish after SIGTERM, milliseconds.")
    console: bool = Field(True, description="Whether the ops console is served at /.")
    # Each may have a reader of Kafka: a few MB, and a thread.
    console_viewers_max: Positive = Field(
        30, description="Most pages of the console that are kept up to date at once; more are told to come again."
    )
    console_metrics: str = Field(
        "",
        description="Where the console asks processes how they are: addresses (host:port) of their metrics, separated "
        "by commas; empty: those that say so in the folder run of MILLRACE_HOME.",
    )


class DriftSettings(_Group):
    """The drift detector."""

    model_config = SettingsConfigDict(env_prefix="DRIFT_", extra="ignore", frozen=True)

    model_name: str = Field("ranker", description="Registered model whose champion is watched.")
    check_interval_ms: Positive = Field(
        HOUR_MS, description="Time between two looks at features and scores, milliseconds; labels are always watched."
    )
    false_alarms_per_day: Annotated[float, Field(gt=0, lt=1)] = Field(
        1 / 16_000, description="The dial: expected false alarms of each feature or measure in a day."
    )
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Share of the answers whose features are counted; labels are all counted."
    )
    commit_interval_ms: Positive = Field(
        5_000, description="Time between two transactions of the detector, milliseconds; signals come in them."
    )


class TrainingSettings(_Group):
    """The training job, and the gates that its version has to pass."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_TRAINING_", extra="ignore", frozen=True)

    window_ms: Positive = Field(28 * DAY_MS, description="Outcomes of this time are learned, milliseconds.")
    newest_share: Annotated[float, Field(gt=0, le=0.4)] = Field(
        0.2, description="Share of the slots that a version is measured on, and as many before them choose how to fit."
    )
    passes_max: Annotated[int, Field(ge=1, le=10)] = Field(2, description="Most times that slots are learned.")
    outcomes_min: Positive = Field(1_000, description="Least number of outcomes; with fewer the job fails.")
    # 163 bytes each.
    slots_max: Positive = Field(20_000_000, description="Most slots of a window: so many fit on the disk.")
    refused_max: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="Share of the outcomes that may break a rule; with more of them the job fails."
    )
    examples_min: Positive = Field(10_000, description="Gate: least number of seen slots in the window.")
    clicks_min: Positive = Field(200, description="Gate: least number of clicks among them.")
    gain_min: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Gate: log loss that a version must surely save against the champion, nats for each slot."
    )
    segment_examples_min: Positive = Field(
        2_000, description="Gate: segments with fewer of the newest slots do not count."
    )


class RetrainSettings(_Group):
    """When the orchestrator has a version trained, and what becomes of it."""

    model_config = SettingsConfigDict(env_prefix="RETRAIN_", extra="ignore", frozen=True)

    interval_hours: Annotated[int, Field(ge=0)] = Field(
        168, description="A version is trained so long after the last one began, whatever happens; 0: never."
    )
    debounce_ms: Annotated[int, Field(ge=0)] = Field(
        10 * MINUTE_MS, description="Labels have to drift for so long, in event time, before a version is trained."
    )
    collect_ms: Annotated[int, Field(ge=0)] = Field(
        HOUR_MS,
        description="After drift, outcomes of the changed world come in at least for so long before a version is "
        "trained.",
    )
    collect_max_ms: Annotated[int, Field(ge=0)] = Field(
        3 * DAY_MS,
        description="Longest time of that: it ends once so many came since the change as the gate enough_data asks for "
        "(MILLRACE_TRAINING_EXAMPLES_MIN, MILLRACE_TRAINING_CLICKS_MIN).",
    )
    cool_down_ms: Annotated[int, Field(ge=0)] = Field(
        6 * HOUR_MS, description="After a retraining has ended, drift starts none for so long."
    )
    in_vain_max: Positive = Field(
        3, description="So many retrainings in a row for drift, without a promotion; then drift starts none."
    )
    training_max_ms: Positive = Field(6 * HOUR_MS, description="Longest time of a training job, with its repetitions.")
    experiments: Literal["auto", "on", "off"] = Field(
        "auto",
        description="A new version is compared with the champion by an experiment (on), in the shadow of live traffic "
        "without being shown (off), or by an experiment unless no experiment tracker answers (auto).",
    )
    tracker_wait_ms: Positive = Field(
        10 * MINUTE_MS, description="No answer of an experiment tracker for so long: there are no experiments (auto)."
    )
    shadow_max_ms: Positive = Field(
        14 * DAY_MS, description="Longest time of a comparison in the shadow; without a verdict the champion stays."
    )
    challenged_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="Of all users, those who are shown a new version in its experiment."
    )
    experiment_max_ms: Positive = Field(
        28 * DAY_MS, description="Longest time of that experiment; without a decision by then the champion stays."
    )


class RecommenderClientSettings(_Group):
    """Where clients find the recommender, and how long they wait for it."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    recommender_target: str = Field("localhost:50051", description="gRPC address of the recommender.")
    # The recommender itself gives up after a second by default.
    recommender_timeout_ms: Positive = Field(
        1_000, description="Longest wait for an answer of the recommender, tries included, milliseconds."
    )
    data: Path = Field(Path("../shared/data"), description="Folder of the data sets that are known by name.")


class StackSettings(_Group):
    """The embedded stack (no Docker, no Java, no Redis prepared)."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_STACK_", extra="ignore", frozen=True)

    kafka_version: str = Field("4.2.2", description="Version of Apache Kafka whose jars are resolved.")
    kafka_port: Port = Field(9092, description="Port of Kafka; another free one is taken if it is in use.")
    kafka_heap_mb: Positive = Field(384, description="Heap of the broker, MiB.")
    redis: Literal["auto", "packaged"] = Field(
        "auto",
        description="auto: redis-server on PATH if there is one; packaged: always the Python package's.",
    )
    redis_port: Port = Field(6379, description="Port of Redis; another free one is taken if it is in use.")
    mlflow_port: Port = Field(5000, description="Port of MLflow; another free one is taken if it is in use.")


class Settings:
    """All groups, each read once when first asked for."""

    groups: dict[str, type[_Group]] = {  # noqa: RUF012  (a constant table)
        "kafka": KafkaSettings,
        "redis": RedisSettings,
        "mlflow": MlflowSettings,
        "observability": ObservabilitySettings,
        "tracing": TracingSettings,
        "stream": StreamSettings,
        "features": FeatureSettings,
        "recommender": RecommenderSettings,
        "joiner": JoinerSettings,
        "learner": LearnerSettings,
        "experiments": ExperimentSettings,
        "orchestrator": OrchestratorSettings,
        "gateway": GatewaySettings,
        "training": TrainingSettings,
        "drift": DriftSettings,
        "retrain": RetrainSettings,
        "client": RecommenderClientSettings,
        "stack": StackSettings,
    }

    def __init__(self) -> None:
        self.kafka = KafkaSettings()
        self.redis = RedisSettings()
        self.mlflow = MlflowSettings()
        self.observability = ObservabilitySettings()
        self.tracing = TracingSettings()
        self.stream = StreamSettings()
        self.features = FeatureSettings()
        self.recommender = RecommenderSettings()
        self.joiner = JoinerSettings()
        self.learner = LearnerSettings()
        self.experiments = ExperimentSettings()
        self.orchestrator = OrchestratorSettings()
        self.gateway = GatewaySettings()
        self.training = TrainingSettings()
        self.drift = DriftSettings()
        self.retrain = RetrainSettings()
        self.client = RecommenderClientSettings()
        self.stack = StackSettings()


@cache
def settings() -> Settings:
    """The settings of this process, read once. Entrypoints pass groups on; nothing else calls this."""
    return Settings()
