// Package provision gives the proxies the certificates of the hosts that they serve. A host of a Route or DomainMapping gets one of the
// platform's own authority, one per namespace where the names allow it; a DomainMapping that names a Secret gets the one in there.
// Secrets that nothing refers to are never read. The control plane adds the package to its manager, and serving asks it what has become of
// the certificate of a host. It must not import serving/ nor the proxy.
package provision
