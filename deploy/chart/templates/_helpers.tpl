{{- define "ringside.injector" -}}
{{- printf "%s-injector" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ringside.selector" -}}
app.kubernetes.io/name: ringside-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ringside.labels" -}}
{{ include "ringside.selector" . }}
app.kubernetes.io/part-of: ringside
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* The reference of an image: takes (list image appVersion). */ -}}
{{- define "ringside.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{- /* A quantity of Kubernetes as a number. */ -}}
{{- define "ringside.amount" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[a-zA-Z]+$" $text -}}
{{- $factor := get (dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824) $unit -}}
{{- mulf (trimSuffix $unit $text | float64) ($factor | float64) -}}
{{- end -}}

{{- /* The name of a cluster-scoped object, such as inject.ringside.dev or, of a revision, inject-canary.ringside.dev: takes
(list context word). */ -}}
{{- define "ringside.global" -}}
{{- $revision := (index . 0).Values.revision -}}
{{ index . 1 }}{{ with $revision }}-{{ . }}{{ end }}.ringside.dev
{{- end -}}

{{- /* The namespaces of this release: those with the label of its revision. */ -}}
{{- define "ringside.ofRevision" -}}
{{- with .Values.revision -}}
- {key: ringside.dev/revision, operator: In, values: [{{ . | quote }}]}
{{- else -}}
- {key: ringside.dev/revision, operator: DoesNotExist}
{{- end -}}
{{- end -}}

{{- define "ringside.webhook" -}}
admissionReviewVersions: [v1]
sideEffects: NoneOnDryRun # warnings are events
# Another webhook may change the pod after this one; a second call adds only what is missing.
reinvocationPolicy: IfNeeded
failurePolicy: {{ .Values.injector.failurePolicy }}
timeoutSeconds: 5
rules:
  - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods], scope: Namespaced}
{{- end -}}

{{- define "ringside.matchConditions" -}}
# Pods that decline do not depend on the injector. Mirror pods cannot be changed.
- name: does-not-decline
  expression: >-
    !(has(object.metadata.labels) && object.metadata.labels.exists(k, k == 'ringside.dev/inject' && object.metadata.labels[k] == 'false'))
    && !(has(object.metadata.annotations) && object.metadata.annotations.exists(k, k == 'kubernetes.io/config.mirror'
    || k == 'ringside.dev/inject' && object.metadata.annotations[k] == 'false'))
{{- end -}}

{{- /* sidecar.config with that of a tenant: takes (list context namespace). */ -}}
{{- define "ringside.merged" -}}
{{- $sidecar := (index . 0).Values.sidecar -}}
{{- $own := dig (index . 1) "config" dict $sidecar.tenants | default dict -}}
{{- toYaml (mergeOverwrite (deepCopy ($sidecar.config | default dict)) (deepCopy $own)) -}}
{{- end -}}

{{- /* The id of the cluster in SPIFFE ids: takes (list context namespace). */ -}}
{{- define "ringside.cluster" -}}
{{- $sidecar := (index . 0).Values.sidecar -}}
{{- $sidecar.certificates.cluster | default (ternary "default" (index . 1) $sidecar.sharedRing) -}}
{{- end -}}

{{- /* peer_tls of a configuration, from sidecar.certificates: takes (list context namespace configuration). */ -}}
{{- define "ringside.peerTLS" -}}
{{- $tls := "/run/secrets/ringside-tls" -}}
{{- $namespace := index . 1 -}}
{{- $config := index . 2 -}}
{{- $cluster := include "ringside.cluster" . -}}
{{- with (index . 0).Values.sidecar -}}
{{- if and $config.membership (not $config.peer_tls) -}}
{{- $files := dict "cert_file" (print $tls "/tls.crt") "key_file" (print $tls "/tls.key") "ca_file" (print $tls "/ca.crt") -}}
{{- if eq .certificates.mode "shared" -}}
peer_tls: {{ toJson (merge $files (dict "name" (ternary "ringside" (print "ringside." $namespace) .sharedRing))) }}
{{- else if eq .certificates.mode "cert-manager" -}}
peer_tls: {{ toJson (merge $files (dict "cluster" $cluster "trust_domain" .certificates.trustDomain)) }}
{{- else if eq .certificates.mode "spire" -}}
peer_tls: {{ toJson (dict "workload_api" (print "unix://" $tls "/spire-agent.sock") "cluster" $cluster "trust_domain" .certificates.trustDomain) }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* ringside.yaml of a namespace: takes (list context namespace role). The role is that of the configuration, if it has one. */ -}}
{{- define "ringside.config" -}}
{{- $values := (index . 0).Values -}}
{{- $config := include "ringside.merged" . | fromYaml -}}
{{- if and $values.sidecar.sharedRing (dig "membership" "etcd" "endpoints" list $config) (not (dig "membership" "etcd" "prefix" "" $config)) -}}
{{- $_ := set $config.membership.etcd "prefix" "/ringside/default" -}}
{{- end -}}
{{- if and (gt (int $values.members.replicas) 0) $config.membership (not (dig "membership" "role" "" $config)) -}}
{{- $_ := set $config.membership "role" (index . 2) -}}
{{- end -}}
{{- toYaml $config }}
{{ include "ringside.peerTLS" (list (index . 0) (index . 1) $config) }}
{{- end -}}

{{- /* Whether the injector issues the certificates of sidecars. */ -}}
{{- define "ringside.issues" -}}
{{- if and (eq .Values.sidecar.certificates.mode "shared") .Values.sidecar.namespaces -}}true{{- end -}}
{{- end -}}

{{- /* A file of rules with prometheusRule.alerts applied: takes (list text alerts). A threshold is the number of the first comparison. */ -}}
{{- define "ringside.rules" -}}
{{- $rules := index . 0 | fromYaml -}}
{{- $alerts := index . 1 -}}
{{- range $group := $rules.groups -}}
{{- $kept := list -}}
{{- range $rule := $group.rules -}}
{{- $set := get $alerts (default "" $rule.alert) | default dict -}}
{{- if dig "enabled" true $set -}}
{{- with $set.for }}{{ $_ := set $rule "for" . }}{{ end -}}
{{- with $set.severity }}{{ $_ := set $rule.labels "severity" . }}{{ end -}}
{{- if hasKey $set "threshold" -}}
{{- $_ := set $rule "expr" (regexReplaceAll (include "ringside.threshold" .) $rule.expr (printf "${1}%v" $set.threshold)) -}}
{{- end -}}
{{- $kept = append $kept $rule -}}
{{- end -}}
{{- end -}}
{{- $_ := set $group "rules" $kept -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{- define "ringside.threshold" -}}(?s)^(.*?[<>=]=? )[0-9.]+{{- end -}}
