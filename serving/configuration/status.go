package configuration

import (
	"cmp"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/equality"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func sameSpec(a, b *servingv1.RevisionSpec) bool {
	return equality.Semantic.DeepEqual(a, b)
}

// generation is the generation of the configuration that a revision was made for, or ok=false when its label is damaged.
func generation(r *servingv1.Revision) (n int64, ok bool) {
	n, err := strconv.ParseInt(r.Labels[serving.ConfigurationGenerationLabelKey], 10, 64)
	return n, err == nil
}

// latestReady returns the newest ready revision that may become the latest ready one, or "" when there is none. It never goes
// back behind the one that the status names, unless that is gone or the user names an older revision in the template (a
// rollback by name).
func latestReady(c *servingv1.Configuration, created *servingv1.Revision, all []servingv1.Revision) string {
	floor := int64(0)
	if i := slices.IndexFunc(all, func(r servingv1.Revision) bool { return r.Name == c.Status.LatestReadyRevisionName }); i >= 0 {
		n, ok := generation(&all[i])
		if !ok {
			n = c.Generation
		}
		floor = n
	}
	named := ""
	if c.Spec.Template.Name == created.Name {
		named = created.Name
	}

	var candidates []*servingv1.Revision
	for i := range all {
		r := &all[i]
		n, ok := generation(r)
		if r.Name == named || ok && floor <= n && n <= c.Generation {
			candidates = append(candidates, r)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *servingv1.Revision) int {
		switch {
		case a.Name == named:
			return -1
		case b.Name == named:
			return 1
		}
		m, _ := generation(a)
		n, _ := generation(b)
		return cmp.Compare(n, m)
	})
	for _, r := range candidates {
		if r.IsReady() {
			return r.Name
		}
	}
	return ""
}

// reflectCreated copies what the revision of the present generation reports.
func reflectCreated(c *servingv1.Configuration, created *servingv1.Revision) {
	c.Status.SetLatestCreatedRevisionName(created.Name)
	ready := created.Status.GetCondition(servingv1.RevisionConditionReady)
	switch {
	case ready.IsFalse():
		c.Status.MarkLatestCreatedFailed(created.Name, ready.GetMessage())
	case ready.IsUnknown() && created.Name != c.Status.LatestReadyRevisionName:
		// Upstream says nothing while a revision starts. What it waits for is what its user wants to know.
		c.GetConditionSet().Manage(&c.Status).MarkUnknown(servingv1.ConfigurationConditionReady, ready.GetReason(), "%s", ready.GetMessage())
	}
}
