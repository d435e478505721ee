package digest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	userAgent             = "weft (serving)"
	defaultServiceAccount = "default"
)

// resolve asks the registries for the digests of a revision's images.
func (r *Resolver) resolve(ctx context.Context, rev *servingv1.Revision) (map[string]string, error) {
	keychain, err := r.keychain(ctx, rev)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for _, image := range images(rev) {
		if _, ok := digests[image]; ok {
			continue
		}
		if digests[image], err = r.image(ctx, image, keychain); err != nil {
			return nil, missing(image, err)
		}
	}
	return digests, nil
}

// image returns the digest of one image, or "" when it is to be used as it is.
func (r *Resolver) image(ctx context.Context, image string, keychain authn.Keychain) (string, error) {
	if _, err := name.NewDigest(image, name.WeakValidation); err == nil {
		return image, nil
	}
	tag, err := name.NewTag(image, name.WeakValidation)
	if err != nil {
		return "", fmt.Errorf("parsing image name %q: %w", image, err)
	}
	deployment := r.options.Config().Deployment
	if deployment.SkipTagResolving.Has(tag.RegistryStr()) || r.options.Present(image) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, deployment.DigestResolutionTimeout)
	defer cancel()
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(r.options.Transport), remote.WithAuthFromKeychain(keychain), remote.WithUserAgent(userAgent),
	}
	if head, err := remote.Head(tag, options...); err == nil {
		return tag.Repository.String() + "@" + head.Digest.String(), nil
	}
	// Some registries refuse HEAD, and the answer to GET carries the reason of a refusal.
	got, err := remote.Get(tag, options...)
	if err != nil {
		return "", err
	}
	return tag.Repository.String() + "@" + got.Digest.String(), nil
}

// keychain has the credentials that the pods of the revision get: those of the pull secrets of the revision and of its
// service account. A secret that does not exist is left out, as kubelet does: the registry may need none.
func (r *Resolver) keychain(ctx context.Context, rev *servingv1.Revision) (authn.Keychain, error) {
	account := rev.Spec.ServiceAccountName
	if account == "" {
		account = defaultServiceAccount
	}
	references := slices.Clone(rev.Spec.ImagePullSecrets)
	var stored corev1.ServiceAccount
	err := r.options.Reader.Get(ctx, client.ObjectKey{Namespace: rev.Namespace, Name: account}, &stored)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading service account %q: %w", account, err)
	}
	references = append(references, stored.ImagePullSecrets...)

	var secrets []corev1.Secret
	for _, reference := range references {
		var secret corev1.Secret
		err := r.options.Reader.Get(ctx, client.ObjectKey{Namespace: rev.Namespace, Name: reference.Name}, &secret)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("reading pull secret %q: %w", reference.Name, err)
		default:
			secrets = append(secrets, secret)
		}
	}
	keychain, err := r.options.Keychain(secrets)
	if keychain == nil {
		return nil, errors.Join(errors.New("no credentials"), err)
	}
	return keychain, nil
}
