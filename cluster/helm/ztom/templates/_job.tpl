{{/* A search as a Ray job. Arguments: root. */}}
{{- define "ztom.jobSpec" -}}
{{- $root := .root }}
{{- with $root.Values.job }}
# a shell runs it on a node; --resume starts a study where there is none
entrypoint: python -m tune_search /etc/ztom/search.yaml --resume --ledger "$ZTOM_SERVER_LEDGER"
entrypointNumCpus: 1
submissionMode: HTTPMode
backoffLimit: {{ .attempts }}
activeDeadlineSeconds: {{ .deadlineSeconds }}
{{- if .ownCluster }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ .keepSeconds }}
rayClusterSpec: {{- include "ztom.clusterSpec" (dict "root" $root "autoscale" (not $root.Values.kueue.enabled)) | nindent 2 }}
{{- else }}
{{- if $root.Values.kueue.enabled }}{{ fail "kueue queues jobs that bring their cluster: set job.ownCluster, or kueue.enabled to false" }}{{ end }}
{{- if not $root.Values.cluster.enabled }}{{ fail "job.ownCluster is false and there is no cluster: set cluster.enabled" }}{{ end }}
clusterSelector: {ray.io/cluster: {{ $root.Values.cluster.name }}}
{{- end }}
{{- end }}
{{- end }}
