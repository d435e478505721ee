package message

// Name is a field name that the proxy deals with itself. Finding a field by its Name costs a comparison of bytes instead of strings,
// and that it is absent costs one bit.
type Name uint8

// The names. Other is every name that is not in this list.
const (
	Other Name = iota
	Connection
	ContentLength
	ContentType
	Date
	Expect
	Forwarded
	Host
	HTTP2Settings
	KeepAlive
	KNetworkHash
	KNetworkProbe
	KOriginalHost
	KnativeServingDefaultRoute
	KnativeServingNamespace
	KnativeServingRevision
	KnativeServingTag
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	RetryAfter
	TE
	Traceparent
	Trailer
	TransferEncoding
	Upgrade
	XContentTypeOptions
	XForwardedFor
	XForwardedHost
	XForwardedProto
	names // their number
)

// spelling is how the proxy writes a name of its own accord.
var spelling = [names]string{
	Connection: "Connection", ContentLength: "Content-Length", ContentType: "Content-Type", Date: "Date", Expect: "Expect", Forwarded: "Forwarded", Host: "Host",
	HTTP2Settings: "HTTP2-Settings", KeepAlive: "Keep-Alive", KNetworkHash: "K-Network-Hash", KNetworkProbe: "K-Network-Probe",
	KOriginalHost: "K-Original-Host", KnativeServingDefaultRoute: "Knative-Serving-Default-Route",
	KnativeServingNamespace: "Knative-Serving-Namespace", KnativeServingRevision: "Knative-Serving-Revision", KnativeServingTag: "Knative-Serving-Tag",
	ProxyAuthenticate: "Proxy-Authenticate", ProxyAuthorization: "Proxy-Authorization", ProxyConnection: "Proxy-Connection", RetryAfter: "Retry-After",
	TE: "TE", Traceparent: "Traceparent", Trailer: "Trailer", TransferEncoding: "Transfer-Encoding", Upgrade: "Upgrade",
	XContentTypeOptions: "X-Content-Type-Options", XForwardedFor: "X-Forwarded-For", XForwardedHost: "X-Forwarded-Host", XForwardedProto: "X-Forwarded-Proto",
}

// String is the usual spelling.
func (n Name) String() string { return spelling[n] }

// byLength lists the names of each length: most fields of a request are told apart by their length already.
var byLength = func() (table [32][]Name) {
	for n := Connection; n < names; n++ {
		table[len(spelling[n])] = append(table[len(spelling[n])], n)
	}
	return table
}()

// Identify returns the Name of a field name in any case.
func Identify(name string) Name {
	if len(name) >= len(byLength) {
		return Other
	}
	for _, n := range byLength[len(name)] {
		if EqualFold(name, spelling[n]) {
			return n
		}
	}
	return Other
}

// EqualFold compares ASCII strings in any case. Field names and tokens are ASCII, and strings.EqualFold looks for more than that.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}
