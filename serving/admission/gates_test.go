package admission

import (
	"encoding/json"
	"strings"
	"testing"
)

// gate is one key of config-features that permits a part of the pod.
type gate struct {
	key string
	// container and beside are what it permits, in a container and beside the containers.
	container, beside string
	// refusal is a part of the answer while the gate is shut.
	refusal string
	// strict gates are opened by "enabled" only, the others by "allowed" too.
	strict bool
	// open gates are open where nothing is configured.
	open bool
}

const (
	mount = "volumeMounts: [{name: v, mountPath: /v, readOnly: true}]"
	spec  = "spec.template.spec."
)

func gates() []gate {
	field := func(key, name, value string) gate {
		return gate{key: key, beside: name + ": " + value + ",", refusal: "must not set the field(s): " + spec + name}
	}
	volume := func(key, source, refusal string) gate {
		return gate{key: key, container: mount, beside: "volumes: [{name: v, " + source + "}],", refusal: refusal, strict: true}
	}
	emptyDir := volume("kubernetes.podspec-volumes-emptydir", "emptyDir: {}", "EmptyDir volume support is disabled, but found EmptyDir volume v")
	emptyDir.open = true
	return []gate{
		field("kubernetes.podspec-affinity", "affinity", "{nodeAffinity: {}}"),
		field("kubernetes.podspec-topologyspreadconstraints", "topologySpreadConstraints", "[{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]"),
		field("kubernetes.podspec-hostaliases", "hostAliases", "[{ip: 10.0.0.1, hostnames: [a]}]"),
		field("kubernetes.podspec-nodeselector", "nodeSelector", "{a: b}"),
		field("kubernetes.podspec-runtimeclassname", "runtimeClassName", "gvisor"),
		field("kubernetes.podspec-tolerations", "tolerations", "[{key: a, operator: Exists}]"),
		field("kubernetes.podspec-securitycontext", "securityContext", "{runAsUser: 5}"),
		field("kubernetes.podspec-shareprocessnamespace", "shareProcessNamespace", "true"),
		field("kubernetes.podspec-priorityclassname", "priorityClassName", "high"),
		field("kubernetes.podspec-schedulername", "schedulerName", "mine"),
		field("kubernetes.podspec-dnspolicy", "dnsPolicy", "None"),
		field("kubernetes.podspec-dnsconfig", "dnsConfig", "{nameservers: [10.0.0.1]}"),
		field("kubernetes.podspec-hostipc", "hostIPC", "true"),
		field("kubernetes.podspec-hostpid", "hostPID", "true"),
		field("kubernetes.podspec-hostnetwork", "hostNetwork", "true"),
		{
			key: "kubernetes.podspec-fieldref", container: "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
			refusal: "must not set the field(s): " + spec + "containers[0].env[0].valueFrom.fieldRef",
		},
		{
			key: "kubernetes.podspec-init-containers", beside: "initContainers: [{name: i, image: ghcr.io/a/b}],", strict: true,
			refusal: "pod spec support for init-containers is off, but found 1 init containers",
		},
		{
			key: "kubernetes.containerspec-addcapabilities", strict: true, container: "securityContext: {capabilities: {add: [NET_ADMIN]}}",
			refusal: "must not set the field(s): " + spec + "containers[0].securityContext.capabilities.add",
		},
		{
			key: "multi-container", container: "name: a, ports: [{containerPort: 80}]}, {image: ghcr.io/a/c, name: b", strict: true, open: true,
			refusal: "multi-container is off, but found 2 containers",
		},
		{
			key: "multi-container-probing", strict: true,
			container: "name: a, ports: [{containerPort: 80}]}, {image: ghcr.io/a/c, name: b, readinessProbe: {httpGet: {port: 81}}",
			refusal:   "must not set the field(s): " + spec + "containers[1].readinessProbe",
		},
		emptyDir,
		volume("kubernetes.podspec-persistent-volume-claim", "persistentVolumeClaim: {claimName: c, readOnly: true}", "Persistent volume claim support is disabled, but found persistent volume claim c"),
		volume("kubernetes.podspec-volumes-hostpath", "hostPath: {path: /h}", "HostPath volume support is disabled, but found HostPath volume v"),
		volume("kubernetes.podspec-volumes-csi", "csi: {driver: d, readOnly: true}", "CSI volume support is disabled, but found CSI volume v"),
		volume("kubernetes.podspec-volumes-ephemeral", "ephemeral: {volumeClaimTemplate: {spec: {}}}", "Ephemeral volume support is disabled, but found Ephemeral volume v"),
		volume("kubernetes.podspec-volumes-image", "image: {reference: ghcr.io/a/b}", "Image volume support is disabled, but found Image volume v"),
		{
			key: "kubernetes.podspec-volumes-mount-propagation", strict: true,
			container: "volumeMounts: [{name: v, mountPath: /v, readOnly: true, mountPropagation: HostToContainer}]",
			beside:    "volumes: [{name: v, secret: {secretName: s}}],",
			refusal:   "Volume Mount Propagation support is disabled, but found volume mount v with mount propagation",
		},
	}
}

// TestGates tries what each feature gate permits with every value that the gate can have.
func TestGates(t *testing.T) {
	t.Parallel()
	for _, g := range gates() {
		for value, opens := range map[string]bool{
			"": g.open, "enabled": true, "Enabled": true, "allowed": !g.strict, "disabled": false, "DISABLED": false, "perhaps": g.open,
		} {
			t.Run(g.key+"="+value, func(t *testing.T) {
				t.Parallel()
				e := example{name: g.key, Kind: "Service", User: "alice", base: json.RawMessage(podSpec(g.container, g.beside))}
				if value != "" {
					e.Config = map[string]map[string]string{"config-features": {g.key: value}}
				}
				answer := answerTo(t, e)
				if opens && answer != "allowed\n" {
					t.Errorf("refused: %s", answer)
				}
				if !opens && !strings.Contains(answer, g.refusal) {
					t.Errorf("answer %q, want %q", answer, g.refusal)
				}
			})
		}
	}
}
