{{/* What every pod of Ray has: environment, volumes, user. The same on head and workers: Ray and
     Serve read it on each node for itself. */}}

{{- define "ztom.env" -}}
{{- $root := . }}
{{- $fixed := .Files.Get "files/node-environment.yaml" | fromYaml }}
{{- if not $fixed }}{{ fail "files/node-environment.yaml is missing or empty" }}{{ end }}
{{- range $name, $value := merge (dict) .Values.env $fixed }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
- {name: ZTOM_NODE_CACHE_BYTES, value: {{ mul (int64 .Values.storage.cacheGi) 1073741824 | toString | quote }}}
{{- with include "ztom.shared" . }}
- {name: ZTOM_STORAGE, value: {{ . | quote }}}
{{- end }}
- {name: ZTOM_POOLS, value: {{ include "ztom.pools" . | quote }}}
- {name: ZTOM_ALLOWED_ROOTS, value: {{ include "ztom.roots" . | quote }}}
{{- with .Values.monitoring.prometheusHost }}
- {name: RAY_PROMETHEUS_HOST, value: {{ . | quote }}}
{{- end }}
{{- with .Values.monitoring.grafanaHost }}
- {name: RAY_GRAFANA_HOST, value: {{ . | quote }}}
{{- end }}
- name: ZTOM_SERVER_LEDGER
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.name }}, key: ledger}}
- name: ZTOM_JWT_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.name }}, key: jwt-key}}
{{- end }}

{{- define "ztom.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- if or .Values.job.enabled .Values.cronJob.enabled }}
- {name: search, configMap: {name: {{ .Values.job.name }}}}
{{- end }}
{{- if eq .Values.storage.kind "gcsfuse" }}
- name: data
  csi:
    driver: gcsfuse.csi.storage.gke.io
    volumeAttributes:
      bucketName: {{ default (include "ztom.bucket" .) .Values.storage.bucket }}
      mountOptions: implicit-dirs,uid=1000,gid=1000,file-mode=660,dir-mode=770
{{- else if eq .Values.storage.kind "claim" }}
- name: data
  persistentVolumeClaim: {claimName: {{ include "ztom.claim" . }}}
{{- end }}
{{- end }}

{{- define "ztom.claim" -}}
{{- if .Values.storage.claim }}{{ .Values.storage.claim }}{{ else }}{{ .Release.Name }}-data{{ end }}
{{- end }}

{{- define "ztom.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/ztom}
{{- if or .Values.job.enabled .Values.cronJob.enabled }}
- {name: search, mountPath: /etc/ztom, readOnly: true}
{{- end }}
{{- if ne .Values.storage.kind "none" }}
- {name: data, mountPath: {{ .Values.storage.mountPath }}}
{{- end }}
{{- end }}

{{- define "ztom.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ztom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Requests and limits, which are equal: nothing takes what another was promised.
     Arguments: cpu, memory, gpus. */}}
{{- define "ztom.resources" -}}
{{- $amounts := dict "cpu" (toString .cpu) "memory" (toString .memory) "ephemeral-storage" (default "20Gi" .disk) }}
{{- if gt (int .gpus) 0 }}{{ $_ := set $amounts "nvidia.com/gpu" (toString (int .gpus)) }}{{ end }}
requests: {{ toJson $amounts }}
limits: {{ toJson $amounts }}
{{- end }}

{{/* Annotations of a pod: gcsfuse's side car. */}}
{{- define "ztom.podAnnotations" -}}
{{- if eq .Values.storage.kind "gcsfuse" }}
gke-gcsfuse/volumes: "true"
gke-gcsfuse/cpu-limit: "1"
gke-gcsfuse/cpu-request: "1"
gke-gcsfuse/memory-limit: 2Gi
gke-gcsfuse/memory-request: 2Gi
gke-gcsfuse/ephemeral-storage-limit: 20Gi
gke-gcsfuse/ephemeral-storage-request: 20Gi
{{- end }}
{{- end }}
