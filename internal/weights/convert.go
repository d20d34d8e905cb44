package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// toFloat32 converts little-endian numbers of type dtype to float32. From F16
// and BF16 this is exact for every bit pattern, from F64 it rounds to nearest.
func toFloat32(dtype DType, src []byte, dst []float32) error {
	le := binary.LittleEndian
	switch dtype {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = float16(le.Uint16(src[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(le.Uint16(src[2*i:])) << 16)
		}
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(le.Uint64(src[8*i:])))
		}
	default:
		return fmt.Errorf("type %s is not read as float32", dtype)
	}
	return nil
}

// float16 converts an IEEE 754 binary16 number: 1 sign bit, 5 bits of exponent
// with bias 15, 10 bits of mantissa. Every pattern has an exact float32,
// subnormals included; the payload of a NaN is kept. The arithmetic is on
// integers because a runtime may have told the processor to flush subnormal
// floats to zero.
func float16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h>>10) & 0x1f
	mantissa := uint32(h) & 0x3ff
	switch exponent {
	default:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | mantissa<<13)
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | mantissa<<13)
	case 0:
		if mantissa == 0 {
			return math.Float32frombits(sign)
		}
		// Subnormal, mantissa·2⁻²⁴: shift the leading 1 to the implicit place.
		shift := uint32(bits.LeadingZeros32(mantissa)) - 21
		mantissa = mantissa << shift & 0x3ff
		return math.Float32frombits(sign | (127-15+1-shift)<<23 | mantissa<<13)
	}
}

// toInt64 widens little-endian integers or booleans. The upper half of U64 does
// not fit and is an error.
func toInt64(dtype DType, src []byte, dst []int64) error {
	le := binary.LittleEndian
	for i := range dst {
		switch dtype {
		case I64:
			dst[i] = int64(le.Uint64(src[8*i:]))
		case I32:
			dst[i] = int64(int32(le.Uint32(src[4*i:])))
		case I16:
			dst[i] = int64(int16(le.Uint16(src[2*i:])))
		case I8:
			dst[i] = int64(int8(src[i]))
		case U64:
			u := le.Uint64(src[8*i:])
			if u > math.MaxInt64 {
				return fmt.Errorf("%d does not fit into an int64", u)
			}
			dst[i] = int64(u)
		case U32:
			dst[i] = int64(le.Uint32(src[4*i:]))
		case U16:
			dst[i] = int64(le.Uint16(src[2*i:]))
		case U8, Bool:
			dst[i] = int64(src[i])
		default:
			return fmt.Errorf("type %s is not read as integers", dtype)
		}
	}
	return nil
}
