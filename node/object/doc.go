// Package object reads the config maps, secrets and services that pods of this machine refer to. Each referenced object is watched
// on its own, as a node's credentials allow no more; it stays cached for a while after its last pod has gone, so that the next cold
// start finds it in memory. node/env, node/volume and node/pod call it through interfaces of their own.
package object
