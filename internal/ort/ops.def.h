// The operators of domain "criteria", a row for each: every other list of them comes
// from this one. graph/kernels.go has the same names for those who build graphs, and
// a test compares the two. Include it with one or both of these defined:
//
//	HOST_OPERATOR(id, name, needs)
//		an operator of the CPU provider, ops_<id> in some op_*.c, which needs
//		NOTHING or a BLAS
//	DEVICE_OPERATOR(id, name, needs)
//		an operator of a device: ops_<id> in some op_*_reference.c says what it
//		computes, on the host; the function <id> in gpu.c launches the kernels for
//		it, which are always loaded (NOTHING) or if those of ATTENTION are asked for
//
// A new operator is a row here, its implementation, a constant in graph/kernels.go,
// and a line in the comment of Domain in operators.go.

#ifndef HOST_OPERATOR
#define HOST_OPERATOR(id, name, needs)
#endif
#ifndef DEVICE_OPERATOR
#define DEVICE_OPERATOR(id, name, needs)
#endif

HOST_OPERATOR(gelu_grad, GeluGrad, NOTHING)
HOST_OPERATOR(dropout_mask, DropoutMask, NOTHING)
HOST_OPERATOR(softmax_grad, SoftmaxGrad, NOTHING)
HOST_OPERATOR(skew, Skew, NOTHING)
HOST_OPERATOR(unskew, Unskew, NOTHING)
HOST_OPERATOR(layer_norm_grad, LayerNormGrad, NOTHING)
HOST_OPERATOR(gemm, Gemm, BLAS)
HOST_OPERATOR(linear_grad, LinearGrad, BLAS)
HOST_OPERATOR(attention, Attention, BLAS)
HOST_OPERATOR(attention_probs, AttentionProbs, BLAS)
HOST_OPERATOR(attention_grad, AttentionGrad, BLAS)
HOST_OPERATOR(packed_attention, PackedAttention, BLAS)
HOST_OPERATOR(packed_attention_probs, PackedAttentionProbs, BLAS)
HOST_OPERATOR(packed_attention_grad, PackedAttentionGrad, BLAS)
HOST_OPERATOR(packed_first_attention, PackedFirstAttention, BLAS)
HOST_OPERATOR(packed_first_attention_grad, PackedFirstAttentionGrad, BLAS)
HOST_OPERATOR(packed_dropout, PackedDropout, BLAS)
HOST_OPERATOR(packed_pool, PackedPool, BLAS)
HOST_OPERATOR(packed_pool_grad, PackedPoolGrad, BLAS)

DEVICE_OPERATOR(philox_dropout, PhiloxDropout, NOTHING)
DEVICE_OPERATOR(sum_squares, SumSquares, NOTHING)
DEVICE_OPERATOR(adamw, AdamW, NOTHING)
DEVICE_OPERATOR(adamw8bit, AdamW8bit, NOTHING)
DEVICE_OPERATOR(flash_attention, FlashAttention, ATTENTION)
DEVICE_OPERATOR(flash_attention_grad, FlashAttentionGrad, ATTENTION)

#undef HOST_OPERATOR
#undef DEVICE_OPERATOR
