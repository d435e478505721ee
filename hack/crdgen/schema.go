package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

type props = apiextensionsv1.JSONSchemaProps

// quantityPattern is what the API server itself accepts as a resource.Quantity in text.
const quantityPattern = `^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|` +
	`([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$`

// objectSchema is the schema of a whole API object.
func (d *documentation) objectSchema(t reflect.Type, f *filter) (props, error) {
	about, err := d.typeDoc(t)
	if err != nil {
		return props{}, err
	}
	root := props{Type: "object", Description: about, Properties: map[string]props{
		"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"},
	}}
	for _, name := range []string{"Spec", "Status"} {
		field, ok := t.FieldByName(name)
		if !ok {
			continue
		}
		key := strings.ToLower(name)
		sub, _ := f.below(key)
		schema, err := d.schemaOf(field.Type, sub)
		if err != nil {
			return props{}, fmt.Errorf("describing %s.%s: %w", t.Name(), key, err)
		}
		// A status without fields says nothing, and the API server stores none.
		if name == "Status" && len(schema.Properties) == 0 {
			continue
		}
		if schema.Description, err = d.fieldDoc(t, name); err != nil {
			return props{}, err
		}
		root.Properties[key] = schema
	}
	return root, nil
}

// schemaOf is the structural schema of one value, as encoding/json writes it.
func (d *documentation) schemaOf(t reflect.Type, f *filter) (props, error) {
	if t.Kind() == reflect.Pointer {
		return d.schemaOf(t.Elem(), f)
	}
	if known, ok := knownSchema(t); ok {
		return known, nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.structSchema(t, f)
	case reflect.Slice:
		return d.sliceSchema(t, f)
	case reflect.Map:
		value, err := d.schemaOf(t.Elem(), nil)
		if err != nil {
			return props{}, err
		}
		return props{Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &value}}, nil
	case reflect.String:
		return props{Type: "string"}, nil
	case reflect.Bool:
		return props{Type: "boolean"}, nil
	case reflect.Int32, reflect.Uint16:
		return props{Type: "integer", Format: "int32"}, nil
	case reflect.Int, reflect.Int64:
		return props{Type: "integer", Format: "int64"}, nil
	case reflect.Float64:
		return props{Type: "number"}, nil
	default:
		return props{}, fmt.Errorf("type %s has no schema", t)
	}
}

// knownSchema covers types that write themselves as something else than their Go fields.
func knownSchema(t reflect.Type) (props, bool) {
	anyOf := []props{{Type: "integer"}, {Type: "string"}}
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return props{AnyOf: anyOf, Pattern: quantityPattern, XIntOrString: true}, true
	case reflect.TypeFor[intstr.IntOrString]():
		return props{AnyOf: anyOf, XIntOrString: true}, true
	case reflect.TypeFor[metav1.Time]():
		return props{Type: "string", Format: "date-time"}, true
	case reflect.TypeFor[apis.VolatileTime](), reflect.TypeFor[apis.URL]():
		return props{Type: "string"}, true
	case reflect.TypeFor[runtime.RawExtension]():
		return anyObject(), true
	case reflect.TypeFor[metav1.ObjectMeta]():
		return embeddedMetadata(), true
	}
	return props{}, false
}

// embeddedMetadata is the metadata of a revision template: the usual fields are typed, the others kept as they are.
func embeddedMetadata() props {
	text := props{Type: "string"}
	texts := props{Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &text}}
	schema := anyObject()
	schema.Properties = map[string]props{
		"annotations": texts, "labels": texts, "name": text, "namespace": text,
		"finalizers": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &text}},
	}
	return schema
}

func anyObject() props {
	return props{Type: "object", XPreserveUnknownFields: new(true)}
}

func (d *documentation) structSchema(t reflect.Type, f *filter) (props, error) {
	schema := props{Type: "object", Properties: map[string]props{}}
	if isAtomic(t) {
		schema.XMapType = new("atomic")
	}
	if f != nil && f.gated {
		schema.Properties, schema.XPreserveUnknownFields = nil, new(true)
		return schema, nil
	}
	if err := d.addFields(&schema, t, f); err != nil {
		return props{}, err
	}
	slices.Sort(schema.Required)
	return schema, nil
}

// addFields describes the fields of t, and those that it embeds inline, in schema.
func (d *documentation) addFields(schema *props, t reflect.Type, f *filter) error {
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		if name == "" && field.Anonymous {
			if err := d.addFields(schema, field.Type, f); err != nil {
				return err
			}
			continue
		}
		below, permitted := f.below(name)
		if !permitted {
			continue
		}
		value, err := d.schemaOf(field.Type, below)
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		if value.Description, err = d.fieldDoc(t, field.Name); err != nil {
			return err
		}
		annotate(&value, t, field, below)
		schema.Properties[name] = value
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") ||
			optionalInPractice(t, name) || (f != nil && slices.Contains(f.optional, name))
		if !optional {
			schema.Required = append(schema.Required, name)
		}
	}
	return nil
}

// annotate adds what belongs to the field rather than to its type: merge keys and defaults, which markers in the source of
// Kubernetes declare and reflection cannot see.
func annotate(value *props, owner reflect.Type, field reflect.StructField, f *filter) {
	key := field.Tag.Get("patchMergeKey")
	// Knative's conditions carry a merge key too, but are not declared a map.
	fromCore := strings.HasPrefix(owner.PkgPath(), "k8s.io/api/")
	if key != "" && fromCore && value.Type == "array" && (f == nil || (!f.plainList && !f.gated)) {
		value.XListType, value.XListMapKeys = new("map"), []string{key}
	}
	switch {
	// A merge key must have a value, and only an explicit default gives one to an optional field.
	case owner == reflect.TypeFor[corev1.LocalObjectReference]() && field.Name == "Name",
		owner == reflect.TypeFor[corev1.GRPCAction]() && field.Name == "Service":
		value.Default = &apiextensionsv1.JSON{Raw: []byte(`""`)}
	case owner == reflect.TypeFor[corev1.ContainerPort]() && field.Name == "Protocol":
		value.Default = &apiextensionsv1.JSON{Raw: []byte(`"TCP"`)}
	case owner == reflect.TypeFor[corev1.PodSpec]() && field.Name == "NodeSelector":
		value.XMapType = new("atomic")
	}
}

func (d *documentation) sliceSchema(t reflect.Type, f *filter) (props, error) {
	if t.Elem().Kind() == reflect.Uint8 {
		return props{Type: "string", Format: "byte"}, nil
	}
	items, err := d.schemaOf(t.Elem(), f)
	if err != nil {
		return props{}, err
	}
	return props{Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &items}}, nil
}

// isAtomic tells which references server-side apply replaces as a whole: the listed ones and all that embed a reference by name.
func isAtomic(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[corev1.LocalObjectReference](), reflect.TypeFor[corev1.ObjectReference](),
		reflect.TypeFor[corev1.ObjectFieldSelector](), reflect.TypeFor[corev1.ResourceFieldSelector]():
		return true
	}
	for field := range t.Fields() {
		if field.Anonymous && field.Type == reflect.TypeFor[corev1.LocalObjectReference]() {
			return true
		}
	}
	return false
}

// optionalInPractice lists fields that are always written but that a client need not send.
func optionalInPractice(owner reflect.Type, name string) bool {
	switch owner {
	case reflect.TypeFor[corev1.GRPCAction]():
		return name == "service"
	case reflect.TypeFor[corev1.ProjectedVolumeSource]():
		return name == "sources"
	case reflect.TypeFor[servingv1.ConfigurationSpec]():
		return name == "template"
	}
	return false
}
