package criteria

import "fmt"

// describe asks a session what it runs on.
func describe(s Session) SessionInfo {
	if d, ok := s.(Describer); ok {
		return d.Describe()
	}
	return SessionInfo{Device: "unknown"}
}

// Describe implements [Describer].
func (s ortSession) Describe() SessionInfo {
	return SessionInfo{
		Device:     fmt.Sprintf("CPU, %d threads", s.Runtime().Threads),
		Parameters: s.Parameters(),
		Versions:   map[string]string{"onnxruntime": s.Runtime().Version},
	}
}
