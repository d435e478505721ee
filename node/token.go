package node

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/weft-dev/weft/node/volume"
)

var _ volume.Tokens = tokens{}

// tokens asks the API for service account tokens.
type tokens struct{ client kubernetes.Interface }

// Token issues one token.
func (t tokens) Token(
	ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	//nolint:wrapcheck // the volume adds the words that users see
	return t.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, req, metav1.CreateOptions{})
}
