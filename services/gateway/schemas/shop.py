"""Bodies of events, items, recommendations and users."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from millrace.events import rules
from services.gateway.schemas.base import Failure, Given, Id, Ids, Position, Text, Texts, Time, Told, text


class Event(Given):
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


class CatalogueItem(Given):
    """A catalogue entry, in place of the item's earlier one."""

    item_id: Id
    title: Annotated[str, text(rules.TITLE_MAX_BYTES)] = ""
    category: Text = ""
    tags: Annotated[list[Text], Field(default_factory=list, json_schema_extra={"maxItems": rules.TAGS_MAX})]
    price: Annotated[float | None, Field(json_schema_extra={"minimum": 0, "maximum": rules.AMOUNT_MAX})] = None
    available: bool | None = None
    published_at: Time | None = None
    published_at_ms: int | None = None
    url: Annotated[str, text(rules.URL_MAX_BYTES)] = ""
    image_url: Annotated[str, text(rules.URL_MAX_BYTES)] = ""
    attributes: Texts | None = None


class Taken(BaseModel):
    """What became of the entries."""

    accepted: int
    ids: Annotated[list[str | None], Field(description="Of each entry, in their order; null where it failed.")]
    failed: list[Failure]


class Question(Given):
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


class Forgotten(BaseModel):
    """A person who is being forgotten."""

    user_id: str
    event_id: Annotated[str, Field(description="Of the FORGET event.")]
    logs_end_ms: Annotated[
        dict[str, int],
        Field(description="Topic -> when its last record of the person is gone, if the person does not come back."),
    ]


class UserFeatures(Told):
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
