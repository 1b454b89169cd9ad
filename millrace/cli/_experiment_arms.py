"""Arms as people type them: ``NAME=WHAT[,SETTING=VALUE...]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from millrace.v1.experiment_pb2 import Arm

WHAT = "champion, version:N, frozen:N, checkpoint:ID, checkpoint:latest or popular"


def read_arms(given: Sequence[str], shares: Sequence[str]) -> list[Arm]:
    """The arms, the first one as the control. Raises click.BadParameter.

    Parameters
    ----------
    given
        ``NAME=WHAT[,SETTING=VALUE...]`` each.
    shares
        ``NAME=SHARE`` each, or nothing for equal shares.
    """
    arms = [_arm(text) for text in given]
    arms[0].control = True
    wanted = dict(_pair(text, "NAME=SHARE") for text in shares)
    unknown = wanted.keys() - {arm.name for arm in arms}
    if unknown:
        raise click.BadParameter(f"no arm is called {', '.join(sorted(unknown))}", param_hint="--share")
    for arm in arms:
        try:
            arm.share = float(wanted[arm.name]) if wanted else 1 / len(arms)
        except KeyError:
            raise click.BadParameter(f"none for {arm.name}: give all or none", param_hint="--share") from None
        except ValueError:
            raise click.BadParameter(f"{wanted[arm.name]!r} is no number", param_hint="--share") from None
    return arms


def _arm(text: str) -> Arm:
    from millrace.v1.experiment_pb2 import Arm

    head, *settings = text.split(",")
    name, what = _pair(head, "NAME=WHAT")
    kind, _, value = what.partition(":")
    arm = Arm(name=name)
    if kind in ("version", "frozen") and value:
        arm.model_version = value
        if kind == "frozen":
            arm.settings["parameters"] = "registered"
    elif kind == "checkpoint" and value:
        arm.settings["checkpoint"] = value
    elif what == "popular":
        arm.settings["ranking"] = "popular"
    elif what != "champion":
        raise click.BadParameter(f"{name}={what!r} is none of {WHAT}", param_hint="--arm")
    for setting in settings:
        key, value = _pair(setting, "SETTING=VALUE")
        arm.settings[key] = value
    return arm


def _pair(text: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise click.BadParameter(f"{text!r} is not {form}", param_hint="--arm or --share")
    return name, value
