"""Where the brokers are, in Faust's words."""

from __future__ import annotations

import ssl
from typing import Any

import faust

from millrace.settings import KafkaSettings


def urls(kafka: KafkaSettings) -> list[str]:
    """Addresses of the brokers."""
    return [f"kafka://{broker.strip()}" for broker in kafka.bootstrap_servers.split(",")]


def credentials(kafka: KafkaSettings) -> Any:
    """How to encrypt and who we are; None for PLAINTEXT."""
    context = None
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=kafka.ssl_ca_location or None)
    if kafka.security_protocol.startswith("SASL_"):
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism or None,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
