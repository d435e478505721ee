// Package config is the configuration that administrators write into the config maps of namespace knative-serving: one typed,
// immutable Snapshot of all of them, parsed with upstream's keys, defaults and limits, behind a Store that follows every edit.
//
// Every map may be absent, and so may every key. An edit that does not parse changes nothing: the last good content of that map
// stays in force, and the map gets an Event that says why. The serving controllers, admission and the autoscaler read it; it
// imports none of them, and nothing of the mesh.
package config
