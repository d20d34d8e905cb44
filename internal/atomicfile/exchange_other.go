//go:build !linux

package atomicfile

func exchange(tmp, dir string) error { return exchangeByRename(tmp, dir) }
