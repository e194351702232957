{{/* The spec of a RayCluster: a head that computes nothing, and pools that grow by themselves.
     Arguments: root; autoscale, false where a queue decides how many machines there are. */}}
{{- define "ztom.clusterSpec" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
rayVersion: {{ $values.rayVersion | quote }}
authOptions: {mode: token, secretName: {{ $values.secrets.name }}}
{{- if .autoscale }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ $values.autoscaler.idleSeconds }}
  upscalingMode: Default
  resources: {{ include "ztom.resources" (dict "cpu" $values.autoscaler.cpu "memory" $values.autoscaler.memory "gpus" 0 "disk" "1Gi") | fromYaml | toJson }}
  securityContext: {{ include "ztom.containerSecurity" $root | fromYaml | toJson }}
  volumeMounts: [{name: tmp, mountPath: /tmp}]
{{- end }}
{{- include "ztom.faultTolerance" $root }}
{{- with $values.historyServer }}
{{- if .enabled }}
historyServerOptions:
  collectorOptions:
    image: {{ required "give historyServer.collector.image: KubeRay's collector, by digest or version" .collector.image }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    resources: {{ include "ztom.resources" (dict "cpu" .collector.cpu "memory" .collector.memory "gpus" 0 "disk" "2Gi") | fromYaml | toJson }}
    env:
      - {name: STORAGE_BACKEND, value: GCS}
      - {name: GCS_BUCKET, value: {{ default (include "ztom.bucket" $root) .bucket }}}
      - {name: RAY_ROOT_DIR, value: ray-history}
{{- end }}
{{- end }}
headGroupSpec:
  serviceType: ClusterIP
  # what holds the cluster together runs alone: no engine beside it
  rayStartParams: {num-cpus: "0", num-gpus: "0", dashboard-host: "0.0.0.0"}
  template:
    metadata:
      labels: {{- include "ztom.podLabels" $root | nindent 8 }}
      annotations: {{ include "ztom.podAnnotations" $root | fromYaml | toJson }}
    spec:
      serviceAccountName: {{ $values.serviceAccount.name }}
      # KubeRay's autoscaler calls Kubernetes from here
      automountServiceAccountToken: true
      terminationGracePeriodSeconds: {{ $values.drain.gracePeriodSeconds }}
      securityContext: {{- include "ztom.podSecurity" $root | nindent 8 }}
      nodeSelector: {{ toJson $values.head.nodeSelector }}
      tolerations: {{ toJson $values.head.tolerations }}
      containers:
        - name: ray-head
          image: {{ include "ztom.image" (dict "root" $root "kind" "cpu") }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          env: {{- include "ztom.env" $root | nindent 12 }}
          ports:
            - {name: gcs-server, containerPort: 6379}
            - {name: dashboard, containerPort: 8265}
            - {name: metrics, containerPort: 8080}
            - {name: serve, containerPort: 8000}
          resources: {{- include "ztom.resources" (dict "cpu" $values.head.cpu "memory" $values.head.memory "gpus" 0) | nindent 12 }}
          securityContext: {{- include "ztom.containerSecurity" $root | nindent 12 }}
          volumeMounts: {{- include "ztom.volumeMounts" $root | nindent 12 }}
      volumes: {{- include "ztom.volumes" $root | nindent 8 }}
workerGroupSpecs:
{{- range $name, $pool := $values.pools }}
{{- if $pool.enabled }}
  - {{- include "ztom.pool" (dict "root" $root "name" $name "pool" $pool "autoscale" $.autoscale) | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the cluster outlives its head. */}}
{{- define "ztom.faultTolerance" -}}
{{- with .Values.gcs }}
{{- if eq .faultTolerance "redis" }}
gcsFaultToleranceOptions:
  backend: redis
  redisAddress: {{ required "give gcs.redisAddress: gcs.faultTolerance is redis" .redisAddress | quote }}
  {{- with .redisUsername }}
  redisUsername: {value: {{ . | quote }}}
  {{- end }}
  redisPassword: {valueFrom: {secretKeyRef: {name: {{ $.Values.secrets.name }}, key: redis-password}}}
{{- else if eq .faultTolerance "rocksdb" }}
gcsFaultToleranceOptions:
  backend: rocksdb
  storage:
    size: {{ .size }}
    {{- with .storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    accessModes: [ReadWriteOnce]
    deletionPolicy: Retain
{{- end }}
{{- end }}
{{- end }}
