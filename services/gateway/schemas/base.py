"""What bodies have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from millrace.events import rules


def text(most: int = rules.TEXT_MAX_BYTES, least: int = 0) -> Any:
    """Bounds of a text in bytes, told as characters: JSON schema knows no others."""
    return Field(json_schema_extra={"minLength": least, "maxLength": most})


Id = Annotated[str, text(rules.ID_MAX_BYTES, 1)]
Text = Annotated[str, text()]
Texts = Annotated[dict[str, str], Field(json_schema_extra={"maxProperties": rules.ATTRIBUTES_MAX})]
Ids = Annotated[list[Id], Field(json_schema_extra={"maxItems": rules.LISTED_ITEMS_MAX})]
Time = Annotated[int | str, Field(description="Seconds, milliseconds or ISO 8601.")]


class Given(BaseModel):
    """Unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


class Told(BaseModel):
    """Further members may come."""

    model_config = ConfigDict(extra="allow")


class Problem(Told):
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


class Reason(Given):
    """Why."""

    reason: Annotated[str, Field(description="For people and the audit.")] = ""


class Sent(BaseModel):
    """A command that stands on its topic, and of which nothing was heard yet."""

    command_id: str
    settled: bool


class Position(BaseModel):
    """Where a record stands on the log."""

    topic: str
    topic_id: str = ""
    partition: int
    offset: int
