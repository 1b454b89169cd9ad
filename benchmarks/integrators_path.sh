#!/usr/bin/env bash
# The path of somebody who integrates a shop, timed: a clone, `make run` with an empty home, and what the guide says of
# REST, by curl alone. Nothing else may run, and port 8000 has to be free: bash benchmarks/integrators_path.sh
set -euo pipefail
set -m # a group of its own for the pipeline, so that it can be sent Ctrl-C as a terminal does

repository=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
export HOME=$folder/home
unset VIRTUAL_ENV MILLRACE_HOME
mkdir "$HOME"
began=$EPOCHREALTIME

at() { awk -v began="$began" -v now="$EPOCHREALTIME" -v what="$1" 'BEGIN { printf "%6.1f s  %s\n", now - began, what }'; }

git clone --quiet "$repository" "$folder/shop"
cd "$folder/shop"
at "cloned"
make run >"$folder/run.log" 2>&1 &
pipeline=$!
trap 'kill -INT -- -$pipeline 2>/dev/null; wait $pipeline || true; rm -rf "$folder"' EXIT

api=http://localhost:8000/api/v1
until curl -sf http://localhost:8000/ready >/dev/null; do
    kill -0 $pipeline || { tail "$folder/run.log"; exit 1; }
    sleep 0.2
done
at "the gateway is ready"

post() { curl -sS --fail-with-body "$api/$1" -H 'Content-Type: application/json' -d "$2"; }
post items '[{"item_id": "sku-8", "title": "Tent", "category": "outdoor", "tags": ["sale"]}]' >/dev/null
post event '{"user_id": "ben", "item_id": "sku-8", "type": "view", "context": {"device": "phone"}}' >/dev/null
at "a first event of one's own is taken"
until post recommend '{"user_id": "ben", "k": 5, "exclude": ["sku-8"]}' >"$folder/answer" 2>/dev/null; do sleep 0.2; done
at "a first recommendation"
until curl -sf "$api/recommend?user_id=ben&k=5" | grep -q '"model_version":"[0-9]'; do sleep 0.2; done
at "a first recommendation of a model"
