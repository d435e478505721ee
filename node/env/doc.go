// Package env makes the environment of a container: variables from values, fields, resources, config maps and secrets, the ones
// that name services, and the expansion of $(NAME) in variables, command and arguments. node/pod calls it. It must not import the
// Kubernetes client.
package env
