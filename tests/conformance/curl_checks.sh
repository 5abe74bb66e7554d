#!/usr/bin/env bash
# shellcheck disable=SC2016 # eval expands them
# What curl sees of a server; called by run.sh. A line for each check: "ok ..." or "FAILED ...".
set -uo pipefail
url=${CONFORMANCE_URL:?} model=${CONFORMANCE_MODEL:?}
body=$(mktemp) headers=$(mktemp)
trap 'rm -f "$body" "$headers"' EXIT
status=""

# ask PATH [CURL ARGUMENT...]: leaves the answer in $status, $body and $headers.
ask() {
	local path=$1
	shift
	status=$(curl --silent --show-error --max-time 120 --output "$body" --dump-header "$headers" \
		--write-out '%{http_code}' "$@" "$url$path")
}

# post PATH JSON [CURL ARGUMENT...]
post() {
	local path=$1 json=$2
	shift 2
	ask "$path" --header 'content-type: application/json' --data "$json" "$@"
}

# check WHAT COMMAND...: the command says whether it is so.
check() {
	local what=$1
	shift
	if "$@" >/dev/null 2>&1; then
		echo "ok $what"
	else
		echo "FAILED $what: HTTP $status, $(head -c 300 "$body" | tr '\n' ' ')"
	fi
}

status_is() { [ "$status" = "$1" ]; }
json_has() { jq --exit-status "$1" "$body"; }
type_is() { grep -i "^content-type: $1" "$headers"; }
# is_error STATUS: an OpenAI error object with this status.
is_error() {
	status_is "$1" && type_is application/json &&
		json_has '.error | (.message | type == "string" and length > 0) and (.type | type == "string") and has("param") and has("code")'
}

messages='[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]'
chat="{\"model\": \"$model\", \"max_tokens\": 16, \"temperature\": 0, \"messages\": $messages"

ask /v1/models
check "lists the model" json_has ".object == \"list\" and (.data | any(.id == \"$model\" and .object == \"model\"))"

post /v1/chat/completions "$chat}"
check "answers a chat with JSON" type_is application/json
check "the answer has a choice" json_has '.object == "chat.completion" and (.choices[0].message.content | length > 0)'
check "the usage adds up" json_has '.usage | .prompt_tokens + .completion_tokens == .total_tokens and .completion_tokens > 0'
check "knows the capital of France" grep -q Paris "$body"

post /v1/chat/completions "$chat, \"stream\": true, \"stream_options\": {\"include_usage\": true}}" --no-buffer
check "streams as server-sent events" type_is text/event-stream
check "ends a stream with [DONE]" eval '[ "$(grep -v "^$" "$body" | tail -n 1)" = "data: [DONE]" ]'
check "every event but the last is JSON" eval 'grep "^data: {" "$body" | sed "s/^data: //" | jq --exit-status .object'
check "the pieces make up a sentence" eval 'sed -n "s/^data: {/{/p" "$body" | jq -j ".choices[0].delta.content // empty" | grep -q Paris'
check "a chunk with the usage and no choice is last" eval \
	'grep "^data: {" "$body" | tail -n 1 | sed "s/^data: //" | jq --exit-status ".choices == [] and .usage.completion_tokens > 0"'

post /v1/chat/completions '{"model": '
check "JSON that breaks off is a 400" is_error 400
post /v1/chat/completions '[]'
check "JSON that is no object is a 400" is_error 400
post /v1/chat/completions "{\"model\": \"$model\"}"
check "a chat without messages is a 400" is_error 400
post /v1/chat/completions "${chat/\"temperature\": 0/\"temperature\": -1}}"
check "a negative temperature is a 400" is_error 400
post /v1/chat/completions "${chat/$model/nobody}}"
check "a model that is not there is a 404" is_error 404
ask /v1/nothing
check "a path that is not there is a 404" is_error 404
ask /v1/chat/completions
check "GET where POST belongs is a 405" is_error 405
ask /v1/chat/completions --header 'content-type: text/plain' --data "$chat}"
check "a body that is not said to be JSON is a 4xx or answered" eval '[[ $status = 4?? || $status = 200 ]]'

head -c 33554432 /dev/zero | tr '\0' ' ' >"$headers.big"
ask /v1/chat/completions --header 'content-type: application/json' --data-binary "@$headers.big"
rm -f "$headers.big"
check "32 MiB of nothing are refused" eval '[[ $status = 413 || $status = 400 ]]'

curl --silent --no-buffer --max-time 120 --header 'content-type: application/json' \
	--data "${chat/\"max_tokens\": 16/\"max_tokens\": 2000}, \"stream\": true}" "$url/v1/chat/completions" | head -n 1 >"$body"
post /v1/chat/completions "$chat}"
check "answers after a client went away in the middle of a stream" status_is 200

ask /openapi.json
check "describes itself" json_has '(.openapi | startswith("3.")) and .paths["/v1/chat/completions"].post'
