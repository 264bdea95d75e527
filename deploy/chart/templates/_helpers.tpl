{{/* Labels by which the operator's own pods are found; they never change. */}}
{{- define "workspace-operator.selector" -}}
app.kubernetes.io/name: workspace-operator
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. */}}
{{- define "workspace-operator.labels" -}}
app.kubernetes.io/name: workspace-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* Metadata of an object of the operator's pods; takes the name. */}}
{{- define "workspace-operator.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "workspace-operator.labels" .root | nindent 2 }}
  app.kubernetes.io/component: operator
{{- end }}

{{- define "workspace-operator.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}
