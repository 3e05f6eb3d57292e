#!/bin/bash
{# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh: the same command on every
   worker of a pod slice. JAX finds the others through the TPU's metadata. When a worker is lost the
   others end too; each restarts the command, which resumes from the last checkpoint. -#}
{% set remote %}
set -e
{{ preparation -}}
quick=0 began=$SECONDS
until {{ command }}; do
  status=$?
  case $status in {{ user_error }}|130|{{ stopped_and_saved }}) exit $status ;; esac
  if [ $((SECONDS - began)) -lt 300 ]
  then quick=$((quick + 1)); else quick=0; fi
  if [ $quick -ge 3 ]; then
    echo "Given up: failed 3 times in a row, each within 300 seconds." >&2
    exit $status
  fi
  echo "Restarting after status $status." >&2
  sleep 10
  began=$SECONDS
done
{%- endset %}
gcloud compute tpus tpu-vm ssh {{ tpu | shell }}
{%- if zone is not none %} {{ ("--zone=" ~ zone) | shell }}{% endif %}
{%- if project is not none %} {{ ("--project=" ~ project) | shell }}{% endif %}
 --worker=all {{ ("--command=" ~ remote) | shell }}
