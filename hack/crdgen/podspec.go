package main

// revisionSpec permits the part of a PodSpec that a Revision may have (the same part for Service and Configuration templates),
// as the Knative Serving API specification lists it.
func revisionSpec() *filter {
	return only(
		"automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "serviceAccountName",
		"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds",
	).
		with("containers", container()).
		with("volumes", volume()).
		withGated(
			"affinity", "dnsConfig", "dnsPolicy", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "initContainers",
			"nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "securityContext",
			"shareProcessNamespace", "tolerations", "topologySpreadConstraints",
		)
}

func container() *filter {
	return only(
		"args", "command", "image", "imagePullPolicy", "name", "terminationMessagePath", "terminationMessagePolicy", "workingDir",
	).
		withOptional("name").
		asPlainList().
		with("ports", only("containerPort", "name", "protocol").withOptional("containerPort").asPlainList()).
		with("env", environment()).
		with("envFrom", only("prefix").
			with("configMapRef", only("name", "optional")).
			with("secretRef", only("name", "optional"))).
		with("resources", only("limits", "requests")).
		with("securityContext", only(
			"allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser",
			"seccompProfile",
		).with("capabilities", only("add", "drop"))).
		with("volumeMounts", only("name", "readOnly", "mountPath", "subPath").withGated("mountPropagation")).
		with("livenessProbe", probe()).
		with("readinessProbe", probe()).
		with("startupProbe", probe())
}

func environment() *filter {
	return only("name", "value").
		with("valueFrom", only().
			with("configMapKeyRef", only("name", "key", "optional")).
			with("secretKeyRef", only("name", "key", "optional")).
			withGated("fieldRef", "resourceFieldRef"))
}

// probe drops the ports from the required fields: Knative probes the serving port when none is given.
func probe() *filter {
	return only("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold").
		with("httpGet", only("host", "httpHeaders", "path", "port", "scheme").withOptional("port")).
		with("exec", only("command")).
		with("tcpSocket", only("host", "port").withOptional("port")).
		with("grpc", only("port", "service").withOptional("port"))
}

func volume() *filter {
	items := func() *filter { return only("key", "path", "mode") }
	source := func() *filter { return only("name", "optional").with("items", items()) }
	return only("name").
		with("secret", only("defaultMode", "optional", "secretName").with("items", items())).
		with("configMap", union(source(), only("defaultMode"))).
		with("projected", only("defaultMode").with("sources", only().
			with("configMap", source()).
			with("secret", source()).
			with("serviceAccountToken", only("audience", "expirationSeconds", "path")).
			with("downwardAPI", only().with("items", only("path", "fieldRef", "mode", "resourceFieldRef"))))).
		withGated("emptyDir", "persistentVolumeClaim", "hostPath", "csi", "image", "ephemeral")
}
