package env

import "strings"

// Expand replaces $(NAME) by what lookup finds. A name that it does not find stays as it is, and $$ is a literal dollar sign, so
// that $$(NAME) passes $(NAME) on.
func Expand(s string, lookup func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := s[i+2 : i+2+end]
			if value, ok := lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// ExpandAll expands each of list with the variables of a container in the form KEY=value.
func ExpandAll(list, variables []string) []string {
	values := make(map[string]string, len(variables))
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Expand(s, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	}
	return out
}
