package volume

import v1 "k8s.io/api/core/v1"

// isData reports whether a volume's files come from the API.
func isData(v *v1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
}

// isSecret reports whether a volume's files must not reach the disk.
func isSecret(v *v1.Volume) bool {
	if v.Secret != nil {
		return true
	}
	if v.Projected == nil {
		return false
	}
	for _, s := range v.Projected.Sources {
		if s.Secret != nil || s.ServiceAccountToken != nil {
			return true
		}
	}
	return false
}

// reference is an object that a volume shows.
type reference struct {
	secret bool
	name   string
}

func references(v *v1.Volume) []reference {
	var out []reference
	switch {
	case v.ConfigMap != nil:
		out = append(out, reference{name: v.ConfigMap.Name})
	case v.Secret != nil:
		out = append(out, reference{secret: true, name: v.Secret.SecretName})
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				out = append(out, reference{name: s.ConfigMap.Name})
			}
			if s.Secret != nil {
				out = append(out, reference{secret: true, name: s.Secret.Name})
			}
		}
	}
	return out
}
