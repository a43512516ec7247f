{{/* The names are the chart's, not the release's: CRDs and policies are the cluster's, so there is one install. */}}

{{- define "pilot-identity.labels" -}}
app.kubernetes.io/name: pilot-identity
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pilot-identity.selector" -}}
app.kubernetes.io/name: pilot-identity
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The operator's account as the API server calls it. */}}
{{- define "pilot-identity.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{/* "true" where MutatingAdmissionPolicies are installed. */}}
{{- define "pilot-identity.mutation" -}}
{{- if eq .Values.admission.mutation "always" -}}
true
{{- else if and (eq .Values.admission.mutation "auto") (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
true
{{- end -}}
{{- end }}

{{/* The metadata of a cluster-wide policy. Takes a dict: root, name. */}}
{{- define "pilot-identity.policyMetadata" -}}
name: pilot-identity-{{ .name }}
labels:
  {{- include "pilot-identity.labels" .root | nindent 2 }}
{{- end }}

{{/* Binds a ValidatingAdmissionPolicy to everything that it matches. Takes a dict: root, name. */}}
{{- define "pilot-identity.denyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  {{- include "pilot-identity.policyMetadata" . | nindent 2 }}
spec:
  policyName: pilot-identity-{{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* Binds a MutatingAdmissionPolicy to everything that it matches. Takes a dict: root, name. */}}
{{- define "pilot-identity.stampBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata:
  {{- include "pilot-identity.policyMetadata" . | nindent 2 }}
spec:
  policyName: pilot-identity-{{ .name }}
{{- end }}

{{/*
The names of the roles of a kind that are listed for a namespace, quoted; for "*", of all of that kind. Takes a dict:
roles, kind, namespace.
*/}}
{{- define "pilot-identity.roleNames" -}}
{{- $names := list }}
{{- range .roles }}
{{- if and (eq .kind $.kind) (or (eq $.namespace "*") (eq (.namespace | default "") $.namespace)) }}
{{- $names = append $names (toJson .name) }}
{{- end }}
{{- end }}
{{- $names | uniq | join ", " }}
{{- end }}

{{/* What the operator may do to the API where pilots live; the admission policies narrow it to its own objects. */}}
{{- define "pilot-identity.servedRules" -}}
- apiGroups: [pilotidentity.dev]
  resources: [approvals]
  verbs: [list, watch]
- apiGroups: [pilotidentity.dev]
  resources: [pilotidentities, taskgrants]
  verbs: [list, watch, patch] # patch: metadata.finalizers alone, see admission/operator-account.yaml
- apiGroups: [pilotidentity.dev]
  resources: [taskgrants]
  verbs: [delete] # of those that ended and are proven, when their stage's retention is over
- apiGroups: [pilotidentity.dev]
  resources: [approvals/status, pilotidentities/status, taskgrants/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets] # never get, list, watch or patch: what others store cannot be read
  verbs: [create, update, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, update, delete]
# get and delete stay when the last role is taken out of the values: what was bound before must still be taken back.
# list: to find what looks like a grant's and is in no entry of the audit log; RBAC cannot list some names only.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [create, get, list, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [{{ if .Values.kubernetesAccess.roles }}create, {{ end }}get, list, delete]
{{- if .Values.kubernetesAccess.roles }}
- apiGroups: [""]
  resources: [serviceaccounts/token] # of accounts pilot-grant-… alone, see admission/operator-account.yaml
  verbs: [create]
{{- with include "pilot-identity.roleNames" (dict "roles" .Values.kubernetesAccess.roles "kind" "ClusterRole" "namespace" "") }}
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [{{ . }}]
  verbs: [bind]
{{- end }}
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
