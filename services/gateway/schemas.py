"""The bodies as the API's description tells them. They describe: what is valid is said by ``millrace.events.rules``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from millrace.events import rules


def _text(most: int = rules.TEXT_MAX_BYTES, least: int = 0) -> Any:
    return Field(json_schema_extra={"minLength": least, "maxLength": most})


Id = Annotated[str, _text(rules.ID_MAX_BYTES, 1)]
Text = Annotated[str, _text()]
Texts = Annotated[dict[str, str], Field(json_schema_extra={"maxProperties": rules.ATTRIBUTES_MAX})]
Ids = Annotated[list[Id], Field(json_schema_extra={"maxItems": rules.LISTED_ITEMS_MAX})]
Time = Annotated[int | str, Field(description="Seconds, milliseconds or ISO 8601.")]


class _Given(BaseModel):
    """Unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


class _Told(BaseModel):
    """Further members may come."""

    model_config = ConfigDict(extra="allow")


class Event(_Given):
    """Something that a user did."""

    user_id: Id
    item_id: Annotated[str, Field(description="Empty for forget only, which erases the user.")] = ""
    type: Literal["view", "click", "add_to_cart", "purchase", "like", "dislike", "rating", "custom", "forget"] = "click"
    event_id: Annotated[Id | None, Field(description="The same id counts once; one is made if there is none.")] = None
    occurred_at: Annotated[Time | None, Field(description="Now, if nothing is said.")] = None
    occurred_at_ms: Annotated[int | None, Field(description="The same in Unix milliseconds.")] = None
    value: Annotated[float | None, Field(description="Money paid, or the rating.")] = None
    session_id: Text = ""
    request_id: Annotated[str, Field(description="Of the answer that led to it.")] = ""
    custom_type: Text = ""
    context: Annotated[
        dict[str, Any] | None, Field(description="device, os and so on, and attributes of your own.")
    ] = None
    device: Text | None = None
    os: Text | None = None
    country: Text | None = None
    region: Text | None = None
    referrer: Text | None = None
    placement: Text | None = None


class CatalogueItem(_Given):
    """A catalogue entry, in place of the item's earlier one."""

    item_id: Id
    title: Annotated[str, _text(rules.TITLE_MAX_BYTES)] = ""
    category: Text = ""
    tags: Annotated[list[Text], Field(json_schema_extra={"maxItems": rules.TAGS_MAX})] = []
    price: Annotated[float | None, Field(json_schema_extra={"minimum": 0, "maximum": rules.AMOUNT_MAX})] = None
    available: bool | None = None
    published_at: Time | None = None
    published_at_ms: int | None = None
    url: Annotated[str, _text(rules.URL_MAX_BYTES)] = ""
    image_url: Annotated[str, _text(rules.URL_MAX_BYTES)] = ""
    attributes: Texts | None = None


class Problem(_Told):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str = ""
    field: Annotated[str, Field(description="invalid-field: which one, as the contract names it.")] = ""
    problem: Annotated[str, Field(description="invalid-field: what is wrong.")] = ""
    allowed: Annotated[str, Field(description="invalid-field: what the rule allows.")] = ""
    system: Annotated[str, Field(description="unavailable: which one does not answer.")] = ""


class Failure(Problem):
    """Why one entry of a batch was not taken."""

    index: Annotated[int, Field(description="Its place in the batch, from 0.")]


class Taken(BaseModel):
    """What became of the entries."""

    accepted: int
    ids: Annotated[list[str | None], Field(description="Of each entry, in their order; null where it failed.")]
    failed: list[Failure]


class Question(_Given):
    """What should this user see now?"""

    user_id: Id
    k: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": rules.K_MAX})] = 10
    exclude: Ids | None = None
    restrict_to: Ids | None = None
    session_id: Text | None = None
    context: Texts | None = None
    as_of: Time | None = None
    request_id: Annotated[Text | None, Field(description="Id of the answer; one is made if there is none.")] = None
    repeats: Literal["", "learned", "exclude"] | None = None
    viewport: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": rules.VIEWPORT_MAX})] = None
    explain: bool | None = None


class Asked(BaseModel):
    """The same in an address."""

    user_id: Annotated[Id, Field(examples=["anna"])]
    k: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": rules.K_MAX})] = 10
    exclude: Annotated[list[str], Field(description="Items that must not come; may be given again.")] = []
    restrict_to: Annotated[list[str], Field(description="Only these items may come.")] = []
    session_id: Text = ""
    request_id: Annotated[str, Field(description="Id of the answer; one is made if there is none.")] = ""
    as_of: Annotated[str, Field(description="Serving time of a replay: seconds, milliseconds or ISO 8601.")] = ""
    repeats: Annotated[str, Field(description="learned, exclude, or empty for the service's setting.")] = ""
    viewport: Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": rules.VIEWPORT_MAX})] = 0
    explain: Annotated[bool, Field(description="Whether each item comes with its features.")] = False
    device: Text = ""
    os: Text = ""
    country: Text = ""
    region: Text = ""
    referrer: Text = ""
    placement: Text = ""


class AnswerItem(BaseModel):
    """One recommended item."""

    item_id: str
    score: Annotated[float, Field(description="Estimated probability of a click.")]
    sources: list[str]
    features: Annotated[list[float], Field(description="With explain only.")]


class Position(BaseModel):
    """Where a record stands on the log."""

    topic: str
    topic_id: str = ""
    partition: int
    offset: int


class Answer(BaseModel):
    """What to show, and how it came about."""

    request_id: str
    items: list[AnswerItem]
    model_name: str
    model_version: str
    feature_schema: str
    feature_names: list[str]
    known: Annotated[Position | None, Field(description="The newest event of the user that the answer knows.")]
    status: Annotated[str, Field(description="ok or degraded.")]
    fallback: Annotated[str, Field(description="none, or why it is not the model's own ranking.")]
    served_at_ms: int
    experiment_id: str
    arm: str
    serve_micros: int


class Arm(_Given):
    """One of the alternatives."""

    name: Id
    model_version: Annotated[str, Field(description="Empty: the champion.")] = ""
    settings: Annotated[dict[str, str], Field(description="What differs from the defaults.")] = {}
    share: Annotated[float, Field(description="Of the experiment's traffic; all add up to 1.")]
    control: Annotated[bool, Field(description="Exactly one is.")] = False


class Guardrails(_Given):
    """Bounds on harm; 0 is not looked at."""

    fallback_margin: float = 0
    slow_micros: int = 0
    slow_margin: float = 0
    coverage_margin: float = 0
    click_floor: float = 0


class Definition(_Given):
    """What is compared, on whom, and by which rule: ExperimentDefinition of experiment.proto. 0 takes the default."""

    experiment_id: Id
    description: str = ""
    salt: Text = ""
    layer: Text = ""
    model_name: Text = ""
    traffic: Annotated[float, Field(description="Share of all users that takes part.")]
    policy: Literal["ALLOCATION_POLICY_UNSPECIFIED", "ALLOCATION_POLICY_FIXED", "ALLOCATION_POLICY_THOMPSON"] = (
        "ALLOCATION_POLICY_UNSPECIFIED"
    )
    arms: list[Arm]
    alpha: float = 0
    minimum_users: int = 0
    minimum_duration_ms: int = 0
    conversion_window_ms: int = 0
    period_ms: int = 0
    floor: float = 0
    expected_rate: float = 0
    expected_lift: float = 0
    worthwhile: float = 0
    guardrails: Guardrails = Guardrails()
    reward: Literal["REWARD_UNSPECIFIED", "REWARD_CLICKS", "REWARD_VALUE"] = "REWARD_UNSPECIFIED"
    earlier_activity: bool = False
    reason: Annotated[str, Field(description="Why, for people and the audit.")] = ""


class ExperimentRecord(_Told):
    """The tracker's record by the contract's names, and what follows from it."""

    definition: dict[str, Any]
    state: str
    intervals: dict[str, Any]
    remaining_ms: dict[str, float | None]
    in_words: list[str]


class Experiments(BaseModel):
    """All of them."""

    experiments: list[ExperimentRecord]


class Reason(_Given):
    """Why."""

    reason: Annotated[str, Field(description="For people and the audit.")] = ""


class RollBack(Reason):
    """Where to go back to."""

    version: Annotated[str, Field(description="Empty: that of the checkpoint, or the champion before.")] = ""
    checkpoint_id: Annotated[str, Field(description="A checkpoint of the learner; empty: none.")] = ""


class Sent(BaseModel):
    """A command that stands on its topic, and of which nothing was heard yet."""

    command_id: str
    settled: bool


class Reign(Sent):
    """A promotion or rollback."""

    version: str
    at_ms: int
    reason: str
    previous_version: str | None
    checkpoint_id: str | None


class Update(Sent):
    """A parameter update of the learner."""

    version: str
    epoch: int
    sequence: int
    examples: int
    at_ms: int


class LastUpdate(BaseModel):
    """The newest parameter update."""

    version: str
    epoch: int
    sequence: int
    examples: Annotated[int, Field(description="Slots learned in this epoch.")]
    at_ms: int
    age_ms: int


class Buffer(BaseModel):
    """How full the learner's buffer was when it was learned."""

    slots: int
    slots_max: int
    utilisation: float | None


class LearningStatus(BaseModel):
    """How a model learns; null where it has not learned lately."""

    model: str
    last_update: LastUpdate | None
    updates_per_s: Annotated[float, Field(description="Of the last ten seconds.")]
    buffer: Buffer | None
    checkpoints: Annotated[list[dict[str, Any]], Field(description="The newest first.")]


class Models(BaseModel):
    """All versions, and who serves."""

    model: str
    champion: dict[str, Any] | None
    former_champions: list[str]
    versions: list[dict[str, Any]]


class UserFeatures(_Told):
    """What is known of a user."""

    user_id: str
    segment: str
    counts: dict[str, int]
    first_seen_ms: int
    last_seen_ms: int
    recent: list[dict[str, Any]]
    known: Position
    staleness_ms: Annotated[int | None, Field(description="Of the oldest event not included; 0: all are.")]
    staleness_problem: str | None


class Health(BaseModel):
    """Which process it is."""

    process: str
    pid: int
    alive: bool


class Ready(_Told):
    """Whether it does its work."""

    process: str
    ready: bool
    missing: list[str]
