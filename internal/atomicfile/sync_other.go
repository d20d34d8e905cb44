//go:build !unix

package atomicfile

// syncDir has nothing to do where folders cannot be synced.
func syncDir(string) error { return nil }
