package message

import "strings"

// Field is one line of a header.
type Field struct {
	// Name is spelled as its sender spelled it, or as the proxy does when it made the field.
	Name, Value string
	id          Name
}

// ID is the field's Name.
func (f *Field) ID() Name { return f.id }

// Header is a list of fields. The zero value is empty. Its strings may lie in a buffer of the connection that they came on: they
// hold until the exchange that they belong to ends, and whoever wants to keep one must clone it.
type Header struct {
	fields []Field
	// present has a bit for each Name of which there is a field.
	present uint64
}

func bit(n Name) uint64 { return 1 << n }

// Reset removes all fields and keeps the room for others.
func (h *Header) Reset() {
	h.fields = h.fields[:0]
	h.present = 0
}

// Fields are all fields in their order. The slice holds until the header is changed.
func (h *Header) Fields() []Field { return h.fields }

// Append adds a field at the end, beside others of its name.
func (h *Header) Append(name, value string) {
	h.append(Field{Name: name, Value: value, id: Identify(name)})
}

// Add adds a field of a known name.
func (h *Header) Add(n Name, value string) {
	h.append(Field{Name: spelling[n], Value: value, id: n})
}

func (h *Header) append(f Field) {
	h.fields = append(h.fields, f)
	h.present |= bit(f.id)
}

// Has reports whether there is a field.
func (h *Header) Has(n Name) bool { return h.present&bit(n) != 0 }

// Get is the value of the first field, or "".
func (h *Header) Get(n Name) string {
	if h.Has(n) {
		for i := range h.fields {
			if h.fields[i].id == n {
				return h.fields[i].Value
			}
		}
	}
	return ""
}

// Count is the number of fields of a name.
func (h *Header) Count(n Name) int {
	count := 0
	if h.Has(n) {
		for i := range h.fields {
			if h.fields[i].id == n {
				count++
			}
		}
	}
	return count
}

// Joined is the values of all fields of a name as one list. It allocates only when there are several.
func (h *Header) Joined(n Name) string {
	joined := ""
	if h.Has(n) {
		for i := range h.fields {
			switch {
			case h.fields[i].id != n:
			case joined == "":
				joined = h.fields[i].Value
			default:
				joined += ", " + h.fields[i].Value
			}
		}
	}
	return joined
}

// Token reports whether the lists of all fields of a name hold a token, in any case.
func (h *Header) Token(n Name, token string) bool {
	if h.Has(n) {
		for i := range h.fields {
			if h.fields[i].id == n && hasToken(h.fields[i].Value, token) {
				return true
			}
		}
	}
	return false
}

func hasToken(list, token string) bool {
	for list != "" {
		var part string
		part, list, _ = strings.Cut(list, ",")
		if EqualFold(strings.Trim(part, " \t"), token) {
			return true
		}
	}
	return false
}

// Set makes value the only one of a name. The first field of the name, if there is one, keeps its place and its spelling.
func (h *Header) Set(n Name, value string) {
	if !h.Has(n) {
		h.Add(n, value)
		return
	}
	h.replace(func(f *Field) bool { return f.id == n }, value)
}

// Del removes all fields of a name.
func (h *Header) Del(n Name) {
	if h.Has(n) {
		h.present &^= bit(n)
		h.remove(func(f *Field) bool { return f.id == n })
	}
}

// DelAll removes the fields of every name in a set; see SetOf.
func (h *Header) DelAll(set Set) {
	if h.present&uint64(set) != 0 {
		h.present &^= uint64(set)
		h.remove(func(f *Field) bool { return uint64(set)&bit(f.id) != 0 })
	}
}

// Set is a set of Names without Other.
type Set uint64

// SetOf returns the set of some names.
func SetOf(list ...Name) Set {
	var s Set
	for _, n := range list {
		s |= Set(bit(n))
	}
	return s
}

// Match is a field name that is known only at run time, prepared for finding it.
type Match struct {
	name string
	id   Name
}

// MatchName prepares a name.
func MatchName(name string) Match { return Match{name: name, id: Identify(name)} }

// ID is the known name, or Other.
func (m Match) ID() Name { return m.id }

func (m Match) is(f *Field) bool {
	return f.id == m.id && (m.id != Other || EqualFold(f.Name, m.name))
}

// Only is the value of the only field of a name; ok is false when there is none or several.
func (h *Header) Only(m Match) (value string, ok bool) {
	if !h.Has(m.id) {
		return "", false
	}
	for i := range h.fields {
		if f := &h.fields[i]; m.is(f) {
			if ok {
				return "", false
			}
			value, ok = f.Value, true
		}
	}
	return value, ok
}

// SetMatch is Set for a prepared name.
func (h *Header) SetMatch(m Match, value string) {
	if h.holds(m) {
		h.replace(m.is, value)
		return
	}
	h.append(Field{Name: m.name, Value: value, id: m.id})
}

// DelMatch is Del for a prepared name.
func (h *Header) DelMatch(m Match) {
	if m.id != Other {
		h.Del(m.id)
		return
	}
	if h.holds(m) {
		h.remove(m.is)
	}
}

func (h *Header) holds(m Match) bool {
	if h.Has(m.id) {
		for i := range h.fields {
			if m.is(&h.fields[i]) {
				return true
			}
		}
	}
	return false
}

// replace gives the first field that is meant a value and removes the others. The caller has seen one.
func (h *Header) replace(meant func(*Field) bool, value string) {
	found := false
	h.remove(func(f *Field) bool {
		switch {
		case !meant(f):
			return false
		case found:
			return true
		}
		found = true
		f.Value = value
		return false
	})
}

// remove keeps the order of the others. The bit of Other may stay set although no such field is left; it only costs a search.
func (h *Header) remove(meant func(*Field) bool) {
	kept := h.fields[:0]
	for i := range h.fields {
		if !meant(&h.fields[i]) {
			kept = append(kept, h.fields[i])
		}
	}
	h.fields = kept
}
