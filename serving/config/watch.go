package config

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	userevents "github.com/weft-dev/weft/internal/events"
)

// AddToManager reads the config maps that exist now, so that no controller ever starts with a configuration that is not the
// administrator's, and follows them while the manager runs. The manager's own cache is not used: it would hold every config map
// of the cluster.
func (s *Store) AddToManager(ctx context.Context, mgr manager.Manager) error {
	clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for config maps: %w", err)
	}
	w := &watcher{store: s, clients: clients, recorder: userevents.NewRecorder(mgr, "weft-config")}
	if err := w.readAll(ctx, mgr.GetAPIReader()); err != nil {
		return err
	}
	return mgr.Add(w)
}

// watcher feeds a Store from the API server.
type watcher struct {
	store    *Store
	clients  kubernetes.Interface
	recorder events.EventRecorder
}

func (w *watcher) readAll(ctx context.Context, reader client.Reader) error {
	for _, name := range Names() {
		var found corev1.ConfigMap
		err := reader.Get(ctx, client.ObjectKey{Namespace: w.store.options.Namespace, Name: name}, &found)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("reading config map %q: %w", name, err)
		default:
			w.apply(&found)
		}
	}
	return nil
}

// NeedLeaderElection tells the manager that every replica follows the configuration.
func (w *watcher) NeedLeaderElection() bool { return false }

// Start follows the config maps until ctx ends.
func (w *watcher) Start(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(w.clients, 0, informers.WithNamespace(w.store.options.Namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	// What is kept is only compared with what comes next.
	if err := informer.SetTransform(cache.TransformStripManagedFields()); err != nil {
		return fmt.Errorf("preparing to watch config maps: %w", err)
	}
	_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { w.changed(obj) },
		UpdateFunc: func(_, obj any) { w.changed(obj) },
		DeleteFunc: w.deleted,
	})
	if err != nil {
		return fmt.Errorf("preparing to watch config maps: %w", err)
	}
	informer.RunWithContext(ctx)
	factory.Shutdown()
	return nil
}

func (w *watcher) changed(obj any) {
	if configMap, ok := obj.(*corev1.ConfigMap); ok {
		w.apply(configMap)
	}
}

// deleted returns to the defaults.
func (w *watcher) deleted(obj any) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if configMap, ok := obj.(*corev1.ConfigMap); ok {
		w.apply(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMap.Name, Namespace: configMap.Namespace}})
	}
}

func (w *watcher) apply(configMap *corev1.ConfigMap) {
	before := w.store.Invalid(configMap.Name)
	err := w.store.Set(configMap.Name, configMap.Data)
	// The same mistake is told once, not at every relist.
	if err == nil || (before != nil && before.Error() == err.Error()) {
		return
	}
	w.store.options.Logger.Error("config map is invalid, its last good content stays in force", "configMap", configMap.Name, "error", err)
	w.recorder.Eventf(configMap, nil, corev1.EventTypeWarning, "InvalidConfiguration", "Refuse",
		"The last good content stays in force: %v", err)
}
