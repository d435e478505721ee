package distribute

import (
	"crypto/sha256"
	"encoding/base64"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weft-dev/weft/mesh/config"
)

// typePrefix makes a type URL from the full name of a message.
const typePrefix = "type.googleapis.com/"

// entry is one resource, encoded once for all proxies. It is never changed.
type entry struct {
	typeURL  string
	resource *discovery.Resource
	size     int
}

func (e *entry) name() string    { return e.resource.GetName() }
func (e *entry) version() string { return e.resource.GetVersion() }

func encode(res config.Resource) (*entry, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(res)
	if err != nil {
		return nil, err
	}
	typeURL := TypeURL(res)
	return &entry{
		typeURL: typeURL,
		resource: &discovery.Resource{
			Name:     res.GetName(),
			Version:  hash(body),
			Resource: &anypb.Any{TypeUrl: typeURL, Value: body},
		},
		size: len(body) + len(res.GetName()) + len(typeURL),
	}, nil
}

// TypeURL of a resource, as in config.RouteType.
func TypeURL(res config.Resource) string {
	return typePrefix + string(res.ProtoReflect().Descriptor().FullName())
}

// Version of a resource: a hash of its content, the same in every process and after every restart. A proxy that comes back names
// the versions that it holds and is sent only what differs. A resource that cannot be encoded has the empty version.
func Version(res config.Resource) string {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(res)
	if err != nil {
		return ""
	}
	return hash(body)
}

// hash is 96 bits of SHA-256: enough that two contents of one name never meet, short because each proxy repeats it per resource.
func hash(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
