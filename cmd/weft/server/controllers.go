package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	apiconfig "knative.dev/serving/pkg/apis/config"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/weft-dev/weft/autoscaler"
	"github.com/weft-dev/weft/mesh/authority"
	meshconfig "github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/discovery"
	"github.com/weft-dev/weft/mesh/knative"
	"github.com/weft-dev/weft/mesh/provision"
	"github.com/weft-dev/weft/serving"
	"github.com/weft-dev/weft/serving/admission"
	"github.com/weft-dev/weft/serving/config"
)

// startControllers adds every controller to one manager, so that they share caches and connection, and starts it. All that the proxy
// is sent is held back until the controllers have seen what exists, so the control socket may be opened when this returns.
func (p *platform) startControllers(ctx context.Context) (*autoscaler.Service, error) {
	log := p.Log.With("component", "controllers")
	// controller-runtime's own logger is global. Without one it complains.
	logger := logr.FromSlogHandler(quiet(log).Handler())
	ctrl.SetLogger(logger)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), serving.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("registering types: %w", err)
	}
	mgr, err := manager.New(p.control.RESTConfig(), manager.Options{
		Scheme:  scheme,
		Logger:  logger,
		Metrics: metricsserver.Options{BindAddress: "0"},
		// Who wrote which field fills half of an object and interests no controller.
		Cache: cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	})
	if err != nil {
		return nil, fmt.Errorf("making controller manager: %w", err)
	}
	load, webhooks, err := p.addControllers(ctx, mgr, log)
	if err != nil {
		return nil, err
	}
	p.parts.start("controllers", mgr.Start)
	// Objects that are written before would be neither completed nor checked.
	if err := wait(ctx, webhooks.Ready()); err != nil {
		return nil, err
	}
	return load, createConfigMaps(ctx, p.control.RESTConfig())
}

// addControllers is the list of controllers.
func (p *platform) addControllers(ctx context.Context, mgr manager.Manager, log *slog.Logger) (*autoscaler.Service, *admission.Server, error) {
	store := config.NewStore(config.Options{Domains: config.Domains{Default: p.Settings.Domain}, Logger: log})
	if err := store.AddToManager(ctx, mgr); err != nil {
		return nil, nil, fmt.Errorf("reading configuration: %w", err)
	}
	if err := discovery.AddToManager(mgr, p.mesh, discovery.Options{
		Listeners:    p.listeners(),
		LocalGateway: netip.AddrPortFrom(p.Settings.Gateway(), localGatewayPort),
		APIServer:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p.Settings.APIPort)),
		Logger:       log,
	}); err != nil {
		return nil, nil, err
	}
	routes, err := knative.AddToManager(mgr, p.mesh, p.routing(store))
	if err != nil {
		return nil, nil, err
	}
	if err := knative.AddAccessLog(mgr, p.mesh, requestLog(store), store.Changes(config.ObservabilityName)); err != nil {
		return nil, nil, err
	}
	certificates, err := p.addCertificates(mgr, log)
	if err != nil {
		return nil, nil, err
	}
	if err := serving.AddToManager(mgr, serving.Options{
		Mesh: routes, Certificates: certificates, Config: store, ExternalPort: p.Settings.HTTPPort, ExternalHTTPSPort: p.Settings.SecurePort(),
		Digests: digests(context.WithoutCancel(ctx), p.images), Log: quiet(log),
	}); err != nil {
		return nil, nil, err
	}
	webhooks, err := admission.AddToManager(mgr, admission.Options{Config: store, Logger: quiet(log)})
	if err != nil {
		return nil, nil, err
	}
	load, err := autoscaler.AddToManager(mgr, autoscaler.Options{Config: store, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	ask := look(load.Look)
	p.look.Store(&ask)
	return load, webhooks, nil
}

// addCertificates opens the platform's certificate authority and adds the provider of certificates.
func (p *platform) addCertificates(mgr manager.Manager, log *slog.Logger) (*provision.Controller, error) {
	root, err := authority.Open(authority.Options{Dir: p.Settings.AuthorityDir(), Name: p.Settings.Name, Domain: p.Settings.Domain})
	if err != nil {
		return nil, err
	}
	if why := root.Replaced(); why != "" {
		log.Warn("made a new certificate authority, which clients have to trust anew", "reason", why, "path", authority.RootPath(p.Settings.AuthorityDir()))
	}
	return provision.AddToManager(mgr, p.mesh, provision.Options{Authority: root, Log: quiet(log)})
}

// routing is how Routes are compiled, by the configuration of the moment.
func (p *platform) routing(store *config.Store) knative.Options {
	return knative.Options{
		Naming: knative.Naming{
			TagName: func(route, tag string) (string, error) { return store.Load().Network.TagName(route, tag) },
		},
		Policy: func() knative.Policy {
			now := store.Load()
			return knative.Policy{
				TagHeaders:   now.Features.TagHeaderBasedRouting == apiconfig.Enabled,
				RedirectHTTP: now.Network.HTTPProtocol == config.HTTPRedirected,
				HTTPSPort:    uint32(p.Settings.SecurePort()),
			}
		},
		Changes: func() <-chan event.GenericEvent { return store.Changes(config.NetworkName, config.FeaturesName) },
	}
}

// localGatewayPort is the port of the cluster-local listener on the bridge: the port of a URL without one.
const localGatewayPort = 80

// listeners are the gateway's, one per address, and the cluster-local one on the bridge.
func (p *platform) listeners() []*meshconfig.Listener {
	var listeners []*meshconfig.Listener
	bridge, addresses := p.Settings.Gateway(), p.Settings.GatewayAddresses()
	everywhere := slices.ContainsFunc(addresses, netip.Addr.IsUnspecified)
	if !everywhere {
		// Pods resolve public hosts to the bridge, where the loopback addresses of the machine do not reach.
		addresses = append(addresses, bridge)
	}
	oldest := meshconfig.TLSVersion_TLS_1_2
	if p.Settings.MinTLSVersion == "1.3" {
		oldest = meshconfig.TLSVersion_TLS_1_3
	}
	for i, address := range addresses {
		// The cluster-local listener serves public hosts too.
		if address != bridge || p.Settings.HTTPPort != localGatewayPort {
			listeners = append(listeners, &meshconfig.Listener{
				Name: "gateway-http-" + strconv.Itoa(i), Address: address.String(), Port: uint32(p.Settings.HTTPPort),
				Protocol: meshconfig.Listener_HTTP, Visibility: meshconfig.Visibility_EXTERNAL,
			})
		}
		listeners = append(listeners, &meshconfig.Listener{
			Name: "gateway-https-" + strconv.Itoa(i), Address: address.String(), Port: uint32(p.Settings.SecurePort()),
			Protocol: meshconfig.Listener_HTTPS, MinTlsVersion: oldest, Visibility: meshconfig.Visibility_EXTERNAL,
		})
	}
	if everywhere && p.Settings.HTTPPort == localGatewayPort {
		return listeners // the port is taken on the bridge, too; captured connections to the local gateway need no socket
	}
	return append(listeners, &meshconfig.Listener{
		Name: "local-http", Address: bridge.String(), Port: localGatewayPort,
		Protocol: meshconfig.Listener_HTTP, Visibility: meshconfig.Visibility_CLUSTER_LOCAL,
	})
}

// quiet keeps what somebody must look at. Controllers tell of each start and stop at Info, which an operator of a single machine
// does not care about.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(leastHandler{Handler: log.Handler(), least: slog.LevelWarn})
}

// leastHandler drops records below a level.
type leastHandler struct {
	slog.Handler
	least slog.Level
}

// Enabled implements slog.Handler.
func (h leastHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.least && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h leastHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leastHandler{Handler: h.Handler.WithAttrs(attrs), least: h.least}
}

// WithGroup implements slog.Handler.
func (h leastHandler) WithGroup(name string) slog.Handler {
	return leastHandler{Handler: h.Handler.WithGroup(name), least: h.least}
}
