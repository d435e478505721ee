// Package certificate holds the certificates that a proxy presents: a table by the name that a client asks for (SNI), which changes
// without touching connections, and what makes chain and key a usable certificate. The proxy serves from the table; the control
// plane (mesh/provision) judges with Parse what it takes from a Secret, so that both agree. Neither Kubernetes nor the proxy may be
// imported. Private keys are kept in memory only and appear in no error and no log.
package certificate
