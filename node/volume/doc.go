// Package volume makes the volumes of a pod on this machine and keeps those that come from API objects current while the pod
// runs. node/pod calls it. It reads the API only through the interfaces that it declares.
package volume
