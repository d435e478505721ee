package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/status"
)

// startError is why a container could not be started, with the reason and message of its waiting state.
type startError struct {
	reason, message string
	// pull says that a pull failed, which has a back-off of its own.
	pull bool
}

// Error is the message.
func (e *startError) Error() string { return e.reason + ": " + e.message }

// getImage finds or pulls the image of a container according to its policy and records the events of it.
func (w *Worker) getImage(ctx context.Context, a attempt) (image.Image, *startError) {
	u, ref, policy := a.unit, a.spec.Image, pullPolicy(a.spec)
	img, err := w.o.Images.Resolve(ctx, ref)
	switch {
	case errors.Is(err, image.ErrInvalidName):
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", ref, err)
		w.containerEvent(u, v1.EventTypeWarning, "InspectFailed", message)
		return img, w.noImage(u, &startError{reason: status.InvalidImageName, message: message})
	case err == nil && policy != v1.PullAlways:
		w.containerEvent(u, v1.EventTypeNormal, "Pulled",
			fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", ref))
		return img, nil
	case err == nil && image.IsLocal(ref):
		// A name that is in no registry cannot be newer there, whatever the policy says.
		w.containerEvent(u, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", ref))
		return img, nil
	case err != nil && (policy == v1.PullNever || errors.Is(err, image.ErrNeverPull)):
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)
		if policy != v1.PullNever {
			message = err.Error() // says how to make a local image
		}
		w.containerEvent(u, v1.EventTypeWarning, "ErrImageNeverPull", message)
		return img, w.noImage(u, &startError{reason: status.ErrImageNeverPull, message: message})
	}
	return w.pullImage(ctx, a)
}

func (w *Worker) pullImage(ctx context.Context, a attempt) (image.Image, *startError) {
	u, ref := a.unit, a.spec.Image
	keychain, err := w.keychain(ctx, a.pod)
	if err != nil {
		w.event(v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", err.Error())
	}
	w.containerEvent(u, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", ref))
	began := time.Now()
	img, err := w.o.Images.Pull(ctx, ref, image.PullOptions{Keychain: keychain})
	if err != nil {
		if ctx.Err() != nil {
			return img, &startError{reason: status.ContainerCreating}
		}
		w.containerEvent(u, v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", ref, err))
		return img, w.noImage(u, &startError{reason: status.ErrImagePull, message: err.Error(), pull: true})
	}
	took := time.Since(began).Truncate(time.Millisecond)
	w.containerEvent(u, v1.EventTypeNormal, "Pulled", fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", ref, took, took, img.Size))
	return img, nil
}

// noImage records the event that follows each failure to get an image.
func (w *Worker) noImage(u *unit, err *startError) *startError {
	w.containerEvent(u, v1.EventTypeWarning, "Failed", "Error: "+err.reason)
	return err
}

// keychain reads the pull secrets of a pod, which admission has already joined with those of its service account. Secrets that
// cannot be read are left out: the image may be public.
func (w *Worker) keychain(ctx context.Context, pod *v1.Pod) (*image.Keychain, error) {
	var secrets []image.PullSecret
	var missing []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		s, err := w.o.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		if t := string(s.Type); t == image.SecretDockerConfigJSON || t == image.SecretDockercfg {
			secrets = append(secrets, image.PullSecret{Name: s.Name, Type: t, Data: s.Data})
		}
	}
	keychain, err := image.ParsePullSecrets(secrets...)
	if len(missing) > 0 {
		err = fmt.Errorf("unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", //nolint:revive,staticcheck // kubelet's text
			strings.Join(missing, ", "))
	}
	return keychain, err
}

// pullPolicy is the policy of a container; the API sets it, but pods made by older controllers may lack it.
func pullPolicy(c *v1.Container) v1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	if name := c.Image[strings.LastIndexByte(c.Image, '/')+1:]; !strings.Contains(name, ":") || strings.HasSuffix(name, ":latest") {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}
