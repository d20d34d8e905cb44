package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"

	"github.com/klauspost/compress/zstd"
)

// GPU code lies in an ELF section as one fat binary after the other: a header, and
// entries of a header and a payload each, one for every architecture. Payloads are
// loaded when one of their kernels is first launched, so those that never are may
// be emptied; all sizes and offsets stay.
const (
	fatbinSection = ".nv_fatbin"
	fatbinMagic   = 0xba55ed50

	// Of a fat binary: the sizes of its header and of what follows.
	binaryHeader, binaryBody = 6, 8 // offsets of a uint16 and a uint64
	// Of an entry: the sizes of its header and of its payload, its architecture and
	// the size of its payload once unpacked.
	entryHeader, entryPayload, entryArch, entryUnpacked = 4, 8, 28, 56
	entryEnd                                            = 64
)

// entry is GPU code for one architecture.
type entry struct {
	arch     uint32
	unpacked uint64
	code     []byte // in the file
}

// fatbins returns the GPU code in a library.
func fatbins(library []byte) ([]entry, error) {
	f, err := elf.NewFile(bytes.NewReader(library))
	if err != nil {
		return nil, err
	}
	s := f.Section(fatbinSection)
	if s == nil || s.Offset+s.Size > uint64(len(library)) {
		return nil, fmt.Errorf("no section %s", fatbinSection)
	}
	le := binary.LittleEndian
	var all []entry
	for rest := library[s.Offset : s.Offset+s.Size]; len(rest) >= 16; {
		if le.Uint32(rest) != fatbinMagic {
			rest = rest[8:] // between two fat binaries
			continue
		}
		header, body := uint64(le.Uint16(rest[binaryHeader:])), le.Uint64(rest[binaryBody:])
		if header < 16 || body > uint64(len(rest))-min(header, uint64(len(rest))) {
			return nil, fmt.Errorf("a fat binary of %d bytes in the last %d of %s", body, len(rest), fatbinSection)
		}
		entries := rest[header : header+body]
		rest = rest[header+body:]
		for len(entries) >= entryEnd {
			head, payload := uint64(le.Uint32(entries[entryHeader:])), le.Uint64(entries[entryPayload:])
			if head < entryEnd || payload > uint64(len(entries))-min(head, uint64(len(entries))) {
				return nil, fmt.Errorf("GPU code of %d bytes where %d are left", payload, len(entries))
			}
			all = append(all, entry{le.Uint32(entries[entryArch:]), le.Uint64(entries[entryUnpacked:]), entries[head : head+payload]})
			entries = entries[head+payload:]
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no GPU code in %s", fatbinSection)
	}
	return all, nil
}

var (
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	kernelName = regexp.MustCompile(`_Z[A-Za-z0-9_]{8,}`)
	// unused are families of kernels that no graph of ours has: mixtures of experts
	// and attention with a kernel of its own. They are most of the code.
	unused = regexp.MustCompile(`[Mm]oe|MoE|MOE|[Ff]lash|[Ff]mha|[Dd]ecoderMasked`)
)

// kernels returns the names of the kernels in it.
func (e entry) kernels() ([]byte, error) {
	code := e.code
	if bytes.HasPrefix(code, zstdMagic) {
		// What follows the frame is padding.
		r, err := zstd.NewReader(bytes.NewReader(code), zstd.WithDecoderConcurrency(1), zstd.IgnoreChecksum(true))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		code = make([]byte, e.unpacked)
		if _, err := io.ReadFull(r, code); err != nil {
			return nil, err
		}
	}
	return bytes.Join(kernelName.FindAll(code, -1), []byte(" ")), nil
}

// strip empties the code for other architectures, and of kernels that are not used.
func strip(library []byte, arch uint32) (kept, all int, err error) {
	entries, err := fatbins(library)
	if err != nil {
		return 0, 0, err
	}
	archs := map[uint32]bool{}
	for _, e := range entries {
		all += len(e.code)
		archs[e.arch] = true
		drop := e.arch != arch
		if !drop {
			names, err := e.kernels()
			if err != nil {
				return 0, 0, fmt.Errorf("GPU code for architecture %d: %w", arch, err)
			}
			drop = unused.Match(names)
		}
		if drop {
			clear(e.code)
		} else {
			kept += len(e.code)
		}
	}
	if !archs[arch] {
		return 0, 0, fmt.Errorf("it has code for %v, none for %d", archs, arch)
	}
	return kept, all, nil
}
