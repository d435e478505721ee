// Package logfile reads the logs of containers: files of lines in the CRI format, which grow while they are read and are replaced
// by new ones when they get large. node/server calls it. It must not import the Kubernetes client.
package logfile
