{{/* Names, labels, images: what the other templates say in one word. */}}

{{- define "ztom.labels" -}}
app.kubernetes.io/name: ztom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels of every pod of Ray, by which policies and monitors find them. */}}
{{- define "ztom.podLabels" -}}
app.kubernetes.io/name: ztom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ray
{{- end }}

{{- define "ztom.isGke" -}}
{{- if eq .Values.cloud "gke" }}yes{{ end }}
{{- end }}

{{- define "ztom.project" -}}
{{- required "give gcp.project: the Google project of cluster/terraform/gke" .Values.gcp.project }}
{{- end }}

{{- define "ztom.bucket" -}}
{{- if .Values.gcp.bucket }}{{ .Values.gcp.bucket }}{{ else }}{{ include "ztom.project" . }}-ztom{{ end }}
{{- end }}

{{- define "ztom.googleAccount" -}}
{{- with .Values.serviceAccount.googleAccount }}{{ . }}{{ else }}ztom@{{ include "ztom.project" . }}.iam.gserviceaccount.com{{ end }}
{{- end }}

{{/* The image of a kind, "cpu" or "gpu": by digest where there is one. Arguments: root, kind. */}}
{{- define "ztom.image" -}}
{{- $root := .root }}
{{- $image := index $root.Values.image .kind }}
{{- $registry := $root.Values.image.registry }}
{{- if and (not $registry) (include "ztom.isGke" $root) }}
{{- $registry = printf "%s-docker.pkg.dev/%s/ztom" $root.Values.gcp.region (include "ztom.project" $root) }}
{{- end }}
{{- $name := $image.name }}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $image.name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- $tag := default $root.Chart.AppVersion $image.tag }}
{{- if eq $tag "latest" }}{{ fail (printf "image.%s.tag is latest: nobody could say what runs. Give the tag of a version, or a digest." .kind) }}{{ end }}
{{- printf "%s:%s" $name $tag }}
{{- end }}
{{- end }}

{{/* Where variants are put that every node reads: the bucket on gke, else a folder that all share. */}}
{{- define "ztom.shared" -}}
{{- if .Values.storage.address }}{{ .Values.storage.address }}
{{- else if include "ztom.isGke" . }}gs://{{ include "ztom.bucket" . }}/ztom
{{- else if and (eq .Values.storage.kind "claim") (eq .Values.storage.accessMode "ReadWriteMany") }}{{ .Values.storage.mountPath }}/variants
{{- end }}
{{- end }}

{{/* What references may point to, as a JSON list. */}}
{{- define "ztom.roots" -}}
{{- $roots := .Values.roots }}
{{- if not $roots }}
{{- if ne .Values.storage.kind "none" }}{{ $roots = append $roots .Values.storage.mountPath }}{{ end }}
{{- if include "ztom.isGke" . }}{{ $roots = append $roots (printf "gs://%s" (include "ztom.bucket" .)) }}{{ end }}
{{- end }}
{{- toJson $roots }}
{{- end }}

{{- define "ztom.queueLabels" -}}
{{- if .Values.kueue.enabled }}
kueue.x-k8s.io/queue-name: {{ .Values.kueue.queue }}
{{- end }}
{{- end }}

{{- define "ztom.secretNeedsRedis" -}}
{{- if eq .Values.gcs.faultTolerance "redis" }}yes{{ end }}
{{- end }}
