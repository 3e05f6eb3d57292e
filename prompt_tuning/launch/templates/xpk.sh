#!/bin/bash
{# https://github.com/AI-Hypercomputer/xpk. XPK sends SIGTERM to the shell, which passes it on.
   A user's mistake ends without failure, or XPK would restart it again and again. -#}
{% set pod %}
set -e
{{ preparation -}}
{{ command }} &
child=$!
trap 'kill -TERM "$child"' TERM
status=0
wait "$child" || status=$?
{# The signal ends the waiting, not the command. #}
while kill -0 "$child" 2>/dev/null; do
  status=0; wait "$child" || status=$?
done
if [ "$status" -eq {{ user_error }} ]; then exit 0; fi
exit "$status"
{%- endset %}
xpk workload create --restart-on-user-code-failure {{ ("--cluster=" ~ cluster) | shell }} \
  --workload={{ name }} {{ ("--tpu-type=" ~ tpu_type) | shell }} --num-slices={{ slices }} \
  {{ ("--docker-image=" ~ image) | shell }} --max-restarts={{ max_restarts }} \
{% if zone is not none %}
  {{ ("--zone=" ~ zone) | shell }} \
{% endif %}
{% if project is not none %}
  {{ ("--project=" ~ project) | shell }} \
{% endif %}
  --termination-grace-period-seconds={{ seconds_to_save }} \
  {{ ("--command=exec bash -c " ~ pod | one_line) | shell }}
