{{/* A pool of workers. Arguments: root, name, pool, autoscale. */}}
{{- define "ztom.pool" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $pool := .pool }}
{{- $drain := include "ztom.drain" . | fromYaml }}
{{- $gpus := int $pool.gpus }}
{{- if and (eq $pool.kind "gpu") (lt $gpus 1) }}{{ fail (printf "pools.%s.kind is gpu and gpus is 0" .name) }}{{ end }}
{{- if and (eq $pool.kind "cpu") (gt $gpus 0) }}{{ fail (printf "pools.%s has %d GPUs and the image without CUDA: kind is cpu" .name $gpus) }}{{ end }}
{{- $disk := trimSuffix "Gi" $pool.disk | int64 }}
{{- if gt (add (int64 $values.storage.cacheGi) 8) $disk }}{{ fail (printf "pools.%s.disk is %s, and storage.cacheGi with 8 GiB for logs is more: the pod would be evicted" .name $pool.disk) }}{{ end }}
{{- if gt (int $pool.min) (int $pool.max) }}{{ fail (printf "pools.%s: min %d is more than max %d" .name (int $pool.min) (int $pool.max)) }}{{ end -}}
groupName: {{ .name }}
minReplicas: {{ if .autoscale }}{{ $pool.min }}{{ else }}{{ $pool.max }}{{ end }}
replicas: {{ if .autoscale }}{{ $pool.min }}{{ else }}{{ $pool.max }}{{ end }}
maxReplicas: {{ $pool.max }}
labels: {{ toJson (merge (dict "pool" .name "market" (ternary "spot" "on-demand" $pool.spot)) $pool.labels) }}
# what Ray counts, said here so that a pool at zero is known by what it could have
resources: {{ toJson (include "ztom.rayResources" $pool | fromYaml) }}
rayStartParams: {}
template:
  metadata:
    labels:
      {{- include "ztom.podLabels" $root | nindent 6 }}
      ztom/pool: {{ .name }}
    annotations: {{ include "ztom.podAnnotations" $root | fromYaml | toJson }}
  spec:
    serviceAccountName: {{ $values.serviceAccount.name }}
    # Google's clients need no Kubernetes token: Workload Identity is the metadata server
    automountServiceAccountToken: false
    terminationGracePeriodSeconds: {{ $drain.grace }}
    securityContext: {{- include "ztom.podSecurity" $root | nindent 6 }}
    nodeSelector: {{ toJson $pool.nodeSelector }}
    tolerations: {{ toJson $pool.tolerations }}
    containers:
      - name: ray-worker
        image: {{ include "ztom.image" (dict "root" $root "kind" $pool.kind) }}
        imagePullPolicy: {{ $values.image.pullPolicy }}
        env: {{- include "ztom.env" $root | nindent 10 }}
        ports:
          - {name: metrics, containerPort: 8080}
          - {name: serve, containerPort: 8000}
        lifecycle:
          preStop: {exec: {command: [python, -m, cluster.drain, --within, {{ $drain.seconds | quote }}]}}
        resources: {{- include "ztom.resources" (dict "cpu" $pool.cpu "memory" $pool.memory "gpus" $gpus "disk" $pool.disk) | nindent 10 }}
        securityContext: {{- include "ztom.containerSecurity" $root | nindent 10 }}
        volumeMounts: {{- include "ztom.volumeMounts" $root | nindent 10 }}
    volumes: {{- include "ztom.volumes" $root | nindent 6 }}
{{- end }}

{{/* The pools as JSON, for `ZTOM_POOLS`: what the cluster could have while a pool is at zero. */}}
{{- define "ztom.pools" -}}
{{- $pools := list }}
{{- range $name, $pool := .Values.pools }}
{{- if $pool.enabled }}
{{- $amounts := dict "CPU" (float64 $pool.cpu) }}
{{- if gt (int $pool.gpus) 0 }}{{ $_ := set $amounts "GPU" (int $pool.gpus) }}{{ end }}
{{- $labels := merge (dict "pool" $name "market" (ternary "spot" "on-demand" $pool.spot)) $pool.labels }}
{{- $pools = append $pools (dict "name" $name "resources" $amounts "labels" $labels "max_nodes" (int $pool.max)) }}
{{- end }}
{{- end }}
{{- toJson $pools }}
{{- end }}

{{- define "ztom.rayResources" -}}
CPU: {{ .cpu | toString | quote }}
{{- if gt (int .gpus) 0 }}
GPU: {{ .gpus | int | toString | quote }}
{{- end }}
{{- end }}

{{/* Seconds that a pool's node has to give its work away, and until it is killed. */}}
{{- define "ztom.drain" -}}
{{- $drain := ternary .root.Values.drain.spot .root.Values.drain .pool.spot }}
{{- $fixed := .root.Files.Get "files/node-environment.yaml" | fromYaml }}
{{- $stop := int $drain.lastAnswersSeconds }}
{{- $longest := int (index $fixed "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S") }}
{{- if and (not .pool.spot) (lt $stop $longest) }}
{{- fail (printf "drain.lastAnswersSeconds is %d, and a door takes up to %d s for its last answers" $stop $longest) }}
{{- end }}
{{- $needed := add (int $drain.seconds) $stop }}
{{- if gt $needed (int64 $drain.gracePeriodSeconds) }}
{{- fail (printf "pools.%s: the drain does not fit: %d s to move replicas and %d s for the door's last answers are more than the %d s until the pod is killed. Lower drain.seconds or raise drain.gracePeriodSeconds (of spot machines: drain.spot)." .name (int $drain.seconds) $stop (int $drain.gracePeriodSeconds)) }}
{{- end }}
seconds: {{ int $drain.seconds }}
grace: {{ int $drain.gracePeriodSeconds }}
{{- end }}
