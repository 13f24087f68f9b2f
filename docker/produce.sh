#!/usr/bin/env bash
# About a hundred ad events a second, until it is stopped.
set -euo pipefail
types=(view click purchase)
while true; do
    # Milliseconds, from the shell's own clock: date has no %N in every image.
    now=${EPOCHREALTIME//[.,]/}
    now=${now%???}
    for _ in {1..100}; do
        printf '{"user_id":"u%d","ad_id":"ad%d","event_type":"%s","event_time":%d}\n' \
            $((RANDOM % 1000)) $((RANDOM % 20)) "${types[RANDOM % 3]}" "$now"
    done
    sleep 1
done | /opt/kafka/bin/kafka-console-producer.sh --bootstrap-server kafka:19092 --topic ad-events
