package main

import "maps"

// filter narrows what a schema accepts below one field. Knative embeds Kubernetes' PodSpec but permits a part of it; what it does
// not permit is left out of the schema, so that the API server reports it as an unknown field.
type filter struct {
	// fields are those that may be set, each with the filter of what is below; nil permits every field.
	fields map[string]*filter
	// partial says that fields narrows only those that it names, and the others stay.
	partial bool
	// gated fields are permitted by a feature flag: any content is stored, and admission decides.
	gated bool
	// optional names fields that Kubernetes requires and that Knative fills in.
	optional []string
	// plainList drops the list's merge keys, because Knative permits entries without them.
	plainList bool
}

// only permits the named fields and everything below them.
func only(fields ...string) *filter {
	f := &filter{fields: map[string]*filter{}}
	for _, name := range fields {
		f.fields[name] = nil
	}
	return f
}

// in narrows one field and keeps its siblings.
func in(field string, below *filter) *filter {
	return &filter{fields: map[string]*filter{field: below}, partial: true}
}

// with permits one more field, narrowed.
func (f *filter) with(field string, below *filter) *filter {
	f.fields[field] = below
	return f
}

// withGated permits the named fields as far as feature flags do.
func (f *filter) withGated(fields ...string) *filter {
	for _, name := range fields {
		f.fields[name] = &filter{gated: true}
	}
	return f
}

// withOptional drops fields from the required ones.
func (f *filter) withOptional(fields ...string) *filter {
	f.optional = append(f.optional, fields...)
	return f
}

// asPlainList drops the merge keys.
func (f *filter) asPlainList() *filter {
	f.plainList = true
	return f
}

// below returns the filter of a field and whether the field is permitted at all.
func (f *filter) below(field string) (*filter, bool) {
	if f == nil || f.fields == nil {
		return nil, true
	}
	sub, ok := f.fields[field]
	return sub, ok || f.partial
}

// union permits what any of the filters does.
func union(filters ...*filter) *filter {
	u := only()
	for _, f := range filters {
		maps.Copy(u.fields, f.fields)
	}
	return u
}
