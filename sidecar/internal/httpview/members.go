package httpview

// members reads the members of a JSON object one after the other, without decoding them. What is not JSON ends the reading; the
// inside of nested values and of strings is not checked.
type members struct {
	rest  []byte
	begun bool
}

func (m *members) skipSpace() {
	i := 0
	for i < len(m.rest) && (m.rest[i] == ' ' || m.rest[i] == '\n' || m.rest[i] == '\t' || m.rest[i] == '\r') {
		i++
	}
	m.rest = m.rest[i:]
}

// take takes c if it comes next.
func (m *members) take(c byte) bool {
	m.skipSpace()
	if len(m.rest) == 0 || m.rest[0] != c {
		return false
	}
	m.rest = m.rest[1:]
	return true
}

// next returns the name of the next member, with its quotes, and its value.
func (m *members) next() (name, value []byte, ok bool) {
	if m.begun && !m.take(',') {
		return nil, nil, false
	}
	m.begun = true
	m.skipSpace()
	if name = m.string(); name == nil || !m.take(':') {
		return nil, nil, false
	}
	m.skipSpace()
	value = m.value()
	return name, value, len(value) > 0
}

// string takes a string.
func (m *members) string() []byte {
	if len(m.rest) == 0 || m.rest[0] != '"' {
		return nil
	}
	for i := 1; i < len(m.rest); i++ {
		switch m.rest[i] {
		case '\\':
			i++
		case '"':
			s := m.rest[:i+1]
			m.rest = m.rest[i+1:]
			return s
		}
	}
	return nil
}

// value takes a value of any kind.
func (m *members) value() []byte {
	if len(m.rest) == 0 {
		return nil
	}
	switch m.rest[0] {
	case '"':
		return m.string()
	case '{', '[':
		return m.nested()
	}
	i := 0
	for i < len(m.rest) && m.rest[i] > ' ' && m.rest[i] != ',' && m.rest[i] != '}' && m.rest[i] != ']' {
		i++
	}
	v := m.rest[:i]
	m.rest = m.rest[i:]
	return v
}

// nested takes an object or a list.
func (m *members) nested() []byte {
	from, depth := m.rest, 0
	for len(m.rest) > 0 {
		switch m.rest[0] {
		case '"':
			if m.string() == nil {
				return nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		m.rest = m.rest[1:]
		if depth == 0 {
			return from[:len(from)-len(m.rest)]
		}
	}
	return nil
}
