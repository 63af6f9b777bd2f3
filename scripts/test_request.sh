#!/usr/bin/env bash
# Sends the five classic requests to a running rag-rpc-server with netcat and prints its replies.
#
#   scripts/test_request.sh [port] [host]
#
# TIMESTAMP and SYMBOL may be set in the environment.
set -euo pipefail

case "${1:-}" in
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

PORT="${1:-7879}"
HOST="${2:-127.0.0.1}"
SYMBOL="${SYMBOL:-BTCUSDT}"
TIMESTAMP="${TIMESTAMP:-1774008000000}"

NC="$(command -v nc || command -v ncat || command -v netcat || true)"
if [ -z "$NC" ]; then
  echo "netcat (nc) is not installed. Install it with one of:" >&2
  echo "  apt-get install netcat-openbsd    dnf install nmap-ncat    brew install netcat" >&2
  echo "or use: llm-trader query --help" >&2
  exit 127
fi

# Three netcats, three ways to say 'close my side after the input, then wait for the reply'.
usage="$("$NC" -h 2>&1 || true)"
if grep -qi 'ncat' <<<"$usage"; then
  close_after_input=(-i 30)
elif grep -q -- '-N' <<<"$usage"; then
  close_after_input=(-N -w 30)
elif grep -q -- '-q' <<<"$usage"; then
  close_after_input=(-q 5 -w 30)
else
  close_after_input=(-w 5)
fi

failed=0

request() {
  local title="$1" document="$2" reply
  printf '\n=== %s ===\n' "$title"
  printf '> %s\n' "$document"
  reply="$(printf '%s\n' "$document" | "$NC" "${close_after_input[@]}" "$HOST" "$PORT" || true)"
  if [ -n "$reply" ]; then
    printf '< %s\n' "$reply"
  else
    echo "no reply from $HOST:$PORT; is the server running? start it with: rag-rpc-server --port $PORT" >&2
    failed=1
  fi
}

STATE='{"price":68500.5,"rsi_7":56.2,"rsi_14":54.1,"macd":42.7,"ema_20":68410.3,"ema_20_4h":67950.8,"ema_50_4h":67120.4,"funding_rate":0.0001,"open_interest_latest":81250.0,"open_interest_avg_24h":80400.0}'
CONFIG='{"lookback_days":90,"top_k":5,"min_similarity":0.7,"include_regime_filters":true}'
ASKED="\"symbol\":\"$SYMBOL\",\"timestamp\":$TIMESTAMP,\"current_state\":$STATE"

request "1. Valid request" \
  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rag.query_patterns\",\"params\":{$ASKED,\"query_config\":$CONFIG}}"
request "2. Unknown method (-32601)" \
  '{"jsonrpc":"2.0","id":2,"method":"rag.unknown_method","params":{}}'
request "3. Missing parameters (-32602)" \
  "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"rag.query_patterns\",\"params\":{\"symbol\":\"$SYMBOL\"}}"
request "4. Malformed JSON (-32700)" \
  '{invalid json}'
request "5. Minimal parameters, defaults for the rest" \
  "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"rag.query_patterns\",\"params\":{$ASKED}}"

exit "$failed"
