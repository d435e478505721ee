package server

import (
	"context"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/serving/digest"
)

// digests lets serving resolve the tags of images with the image store's knowledge: what was built or imported here is in no
// registry, and pull secrets are read as for a pull.
func digests(ctx context.Context, images *image.Store) *digest.Options {
	return &digest.Options{
		Keychain: keychain,
		Present: func(ref string) bool {
			found, err := images.Resolve(ctx, ref)
			return err == nil && found.RepoDigest == ""
		},
	}
}

func keychain(secrets []corev1.Secret) (authn.Keychain, error) {
	pull := make([]image.PullSecret, len(secrets))
	for i := range secrets {
		pull[i] = image.PullSecret{Name: secrets[i].Name, Type: string(secrets[i].Type), Data: secrets[i].Data}
	}
	return image.ParsePullSecrets(pull...)
}
