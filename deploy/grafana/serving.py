"""What serves: the recommender and the gateway."""

from __future__ import annotations

from deploy.grafana.panels import Dashboard, Panel, Query, Row
from deploy.grafana.queries import bounded, mean, one, quantile_by, quantiles, rate

SERVING = Dashboard(
    "serving",
    "Millrace: serving",
    [
        Row(
            "Recommender",
            [
                one(
                    "Requests",
                    "By method and gRPC status.",
                    "reqps",
                    rate("millrace_recommender_requests_total", "method, code"),
                    "{{method}} {{code}}",
                ),
                bounded(
                    "Requests under way",
                    "At the bound they are refused at once.",
                    "short",
                    "millrace_recommender_requests_under_way",
                    "millrace_recommender_requests_under_way_max",
                ),
                Panel(
                    "Reading features from Redis",
                    "Within the time of an answer.",
                    "s",
                    quantiles("millrace_recommender_features_read_seconds"),
                ),
                one(
                    "Candidates ranked, mean",
                    "Of an answer.",
                    "short",
                    mean("millrace_recommender_candidates"),
                    "candidates",
                ),
                bounded(
                    "Items in memory",
                    "At the bound, those unseen for longest are dropped.",
                    "short",
                    "millrace_recommender_mirror_items",
                    "millrace_recommender_mirror_items_max",
                ),
                bounded(
                    "Sessions in memory",
                    "At the bound, the oldest make room.",
                    "short",
                    "millrace_recommender_sessions",
                    "millrace_recommender_sessions_max",
                ),
                Panel(
                    "Lag of the mirrors",
                    "Records not read yet: item states and interactions.",
                    "short",
                    [
                        Query("max (millrace_recommender_mirror_lag_records)", "items"),
                        Query("max (millrace_recommender_sessions_lag_records)", "sessions"),
                    ],
                ),
                bounded(
                    "Impressions on their way",
                    "At the bound they are dropped and counted.",
                    "short",
                    "millrace_recommender_impressions_pending",
                    "millrace_recommender_impressions_pending_max",
                ),
                one(
                    "Version that ranks",
                    "1 for each process that ranks with it.",
                    "none",
                    "sum by (model, version) (millrace_recommender_model_version)",
                    "{{model}} {{version}}",
                ),
            ],
        ),
        Row(
            "Gateway",
            [
                one(
                    "Requests",
                    "By route and HTTP status.",
                    "reqps",
                    rate("millrace_gateway_requests_total", "route, status"),
                    "{{route}} {{status}}",
                ),
                Panel(
                    "Time of a request, p95",
                    "By route.",
                    "s",
                    [quantile_by("millrace_gateway_request_seconds", "route")],
                ),
                bounded(
                    "Requests under way",
                    "At the bound they are refused at once.",
                    "short",
                    "millrace_gateway_requests_under_way",
                    "millrace_gateway_requests_under_way_max",
                ),
                one(
                    "Events and items taken in",
                    "By topic and what became of them.",
                    "reqps",
                    rate("millrace_gateway_messages_total", "topic, result"),
                    "{{topic}} {{result}}",
                ),
                bounded(
                    "Waiting for the broker",
                    "At the bound they are refused at once.",
                    "short",
                    "millrace_gateway_messages_pending",
                    "millrace_gateway_messages_pending_max",
                ),
                one(
                    "Lag of the views",
                    "Records not read yet.",
                    "short",
                    "max by (view) (millrace_gateway_view_lag_records)",
                    "{{view}}",
                ),
            ],
        ),
    ],
)
