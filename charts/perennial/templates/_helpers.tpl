{{- define "perennial.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "perennial.fullname" -}}
{{- $name := include "perennial.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of all objects of the operator, and of its lease. */}}
{{- define "perennial.operator.name" -}}
{{- printf "%s-operator" (include "perennial.fullname" .) }}
{{- end }}

{{/* Labels that select the operator's pods; they can never change. */}}
{{- define "perennial.operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "perennial.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "perennial.operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "perennial.operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: perennial
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "perennial.operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "perennial.operator.name" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Reference of an image: takes a list of the image's values and the chart's appVersion. */}}
{{- define "perennial.image" -}}
{{- $image := index . 0 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) }}
{{- end }}
{{- end }}

{{/* What the operator may do in the namespaces it manages: no secret, no wildcard. */}}
{{- define "perennial.operator.rules" -}}
- apiGroups: [perennial.dev]
  resources: [llmdeployments, driftpolicies]
  verbs: [get, list, watch]
- apiGroups: [perennial.dev]
  resources: [llmdeployments/status, driftpolicies/status]
  verbs: [get, patch, update]
# Lets the children block the deletion of their owner, where the cluster checks that permission.
- apiGroups: [perennial.dev]
  resources: [llmdeployments/finalizers, driftpolicies/finalizers]
  verbs: [update]
# What DriftPolicies remember: counts of traffic, no prompts.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Says which pod goes first when replicas are taken away (pod-deletion-cost), and what to keep of requests.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Own Job templates of DriftPolicies.
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
