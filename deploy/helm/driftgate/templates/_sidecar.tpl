{{/* Written out from deploy/sidecar by `make documents`; do not edit. Each takes this chart's values:
     include "driftgate.container" .Values.driftgate in a chart that depends on it. */}}
{{- define "driftgate.container" -}}
- name: driftgate
  image: {{ include "driftgate.image" . }}
  restartPolicy: Always
  args: ["run", "--config", "/etc/driftgate/config/driftgate.toml"]
  env:
    - name: DRIFTGATE__LISTEN__ADMIN
      value: "0.0.0.0:7406"
    - name: DRIFTGATE__LISTEN__ADMIN_HOSTS
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: DRIFTGATE__LISTEN__CONSOLE
      value: "127.0.0.1:7407"
    - name: DRIFTGATE__SNAPSHOT__SPOOL_BYTES_MAX
      value: "{{ div (mul .spoolMi 8) 10 }}MiB"
  ports:
    - name: driftgate-admin
      containerPort: 7406
  startupProbe:
    httpGet:
      path: /startupz
      port: driftgate-admin
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet:
      path: /livez
      port: driftgate-admin
    periodSeconds: 10
    timeoutSeconds: 2
  readinessProbe:
    httpGet:
      path: /readyz
      port: driftgate-admin
    periodSeconds: 5
    timeoutSeconds: 2
  resources:
    requests:
      cpu: 20m
      memory: 32Mi
      ephemeral-storage: 16Mi
    limits:
      memory: {{ .memoryMi }}Mi
      ephemeral-storage: {{ add .spoolMi 64 }}Mi
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: ["ALL"]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    - name: driftgate-config
      mountPath: /etc/driftgate/config
      readOnly: true
    - name: driftgate-keys
      mountPath: /etc/driftgate/keys
      readOnly: true
    - name: driftgate-spool
      mountPath: /var/lib/driftgate
{{- end }}
{{- define "driftgate.volumes" -}}
- name: driftgate-config
  configMap:
    name: {{ .configMap }}
    defaultMode: 0444
- name: driftgate-keys
  secret:
    secretName: {{ .keysSecret }}
    defaultMode: 0444
- name: driftgate-spool
  emptyDir:
    sizeLimit: {{ .spoolMi }}Mi
{{- end }}
