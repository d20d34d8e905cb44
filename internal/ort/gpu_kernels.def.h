// The kernels of package kernels that operators launch, a row for each: its number is
// GPU_<id>. Where there is one for float32, float16 and bfloat16 each, they follow one
// another in this order, and the first stands for the three; the optimizers' first is
// that without a copy in low precision. Those from GPU_ATTENTION on are loaded if
// they are asked for.
//
// Include it with GPU_KERNEL(id, name) defined.

GPU_KERNEL(DROPOUT, dropout_float32)
GPU_KERNEL(DROPOUT_FLOAT16, dropout_float16)
GPU_KERNEL(DROPOUT_BFLOAT16, dropout_bfloat16)
GPU_KERNEL(SUM_SQUARES, sum_squares)
GPU_KERNEL(ADAMW, adamw)
GPU_KERNEL(ADAMW_FLOAT16, adamw_float16)
GPU_KERNEL(ADAMW_BFLOAT16, adamw_bfloat16)
GPU_KERNEL(ADAMW8BIT, adamw8bit)
GPU_KERNEL(ADAMW8BIT_FLOAT16, adamw8bit_float16)
GPU_KERNEL(ADAMW8BIT_BFLOAT16, adamw8bit_bfloat16)
GPU_KERNEL(ATTENTION, flash_attention_float32)
GPU_KERNEL(ATTENTION_FLOAT16, flash_attention_float16)
GPU_KERNEL(ATTENTION_BFLOAT16, flash_attention_bfloat16)
GPU_KERNEL(ATTENTION_QUERIES, flash_attention_queries_float32)
GPU_KERNEL(ATTENTION_QUERIES_FLOAT16, flash_attention_queries_float16)
GPU_KERNEL(ATTENTION_QUERIES_BFLOAT16, flash_attention_queries_bfloat16)
GPU_KERNEL(ATTENTION_KEYS, flash_attention_keys_float32)
GPU_KERNEL(ATTENTION_KEYS_FLOAT16, flash_attention_keys_float16)
GPU_KERNEL(ATTENTION_KEYS_BFLOAT16, flash_attention_keys_bfloat16)

#undef GPU_KERNEL
