// The functions of ONNX Runtime that this package calls, a row for each: its place in
// the table (struct OrtApi), what it returns, its name and its parameters, in the
// words of onnxruntime_c_api.h, with char for ORTCHAR_T. slots_test.go compares all of
// it with the header that onnxruntime_go carries.
//
// Include it with ORT_FUNCTION(slot, returns, name, parameters...) defined.

ORT_FUNCTION(0, OrtStatus *, CreateStatus, OrtErrorCode code, const char *msg)
ORT_FUNCTION(1, OrtErrorCode, GetErrorCode, const OrtStatus *status)
ORT_FUNCTION(2, const char *, GetErrorMessage, const OrtStatus *status)
ORT_FUNCTION(11, OrtStatus *, SetOptimizedModelFilePath, OrtSessionOptions *options,
             const char *optimized_model_filepath)
ORT_FUNCTION(26, OrtStatus *, CreateCustomOpDomain, const char *domain, OrtCustomOpDomain **out)
ORT_FUNCTION(27, OrtStatus *, CustomOpDomain_Add, OrtCustomOpDomain *custom_op_domain, const OrtCustomOp *op)
ORT_FUNCTION(28, OrtStatus *, AddCustomOpDomain, OrtSessionOptions *options, OrtCustomOpDomain *custom_op_domain)
ORT_FUNCTION(30, OrtStatus *, SessionGetInputCount, const OrtSession *session, size_t *out)
ORT_FUNCTION(31, OrtStatus *, SessionGetOutputCount, const OrtSession *session, size_t *out)
ORT_FUNCTION(33, OrtStatus *, SessionGetInputTypeInfo, const OrtSession *session, size_t index, OrtTypeInfo **type_info)
ORT_FUNCTION(34, OrtStatus *, SessionGetOutputTypeInfo, const OrtSession *session, size_t index,
             OrtTypeInfo **type_info)
ORT_FUNCTION(36, OrtStatus *, SessionGetInputName, const OrtSession *session, size_t index, OrtAllocator *allocator,
             char **value)
ORT_FUNCTION(37, OrtStatus *, SessionGetOutputName, const OrtSession *session, size_t index, OrtAllocator *allocator,
             char **value)
ORT_FUNCTION(49, OrtStatus *, CreateTensorWithDataAsOrtValue, const OrtMemoryInfo *info, void *p_data,
             size_t p_data_len, const int64_t *shape, size_t shape_len, ONNXTensorElementDataType type, OrtValue **out)
ORT_FUNCTION(51, OrtStatus *, GetTensorMutableData, OrtValue *value, void **out)
ORT_FUNCTION(55, OrtStatus *, CastTypeInfoToTensorInfo, const OrtTypeInfo *type_info,
             const OrtTensorTypeAndShapeInfo **out)
ORT_FUNCTION(57, OrtStatus *, CreateTensorTypeAndShapeInfo, OrtTensorTypeAndShapeInfo **out)
ORT_FUNCTION(58, OrtStatus *, SetTensorElementType, OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType type)
ORT_FUNCTION(59, OrtStatus *, SetDimensions, OrtTensorTypeAndShapeInfo *info, const int64_t *dim_values,
             size_t dim_count)
ORT_FUNCTION(60, OrtStatus *, GetTensorElementType, const OrtTensorTypeAndShapeInfo *info,
             ONNXTensorElementDataType *out)
ORT_FUNCTION(61, OrtStatus *, GetDimensionsCount, const OrtTensorTypeAndShapeInfo *info, size_t *out)
ORT_FUNCTION(62, OrtStatus *, GetDimensions, const OrtTensorTypeAndShapeInfo *info, int64_t *dim_values,
             size_t dim_values_length)
ORT_FUNCTION(63, OrtStatus *, GetSymbolicDimensions, const OrtTensorTypeAndShapeInfo *info, const char *dim_params[],
             size_t dim_params_length)
ORT_FUNCTION(65, OrtStatus *, GetTensorTypeAndShape, const OrtValue *value, OrtTensorTypeAndShapeInfo **out)
ORT_FUNCTION(68, OrtStatus *, CreateMemoryInfo, const char *name, OrtAllocatorType type, int id, OrtMemType mem_type,
             OrtMemoryInfo **out)
ORT_FUNCTION(69, OrtStatus *, CreateCpuMemoryInfo, OrtAllocatorType type, OrtMemType mem_type, OrtMemoryInfo **out)
ORT_FUNCTION(76, OrtStatus *, AllocatorFree, OrtAllocator *ort_allocator, void *p)
ORT_FUNCTION(78, OrtStatus *, GetAllocatorWithDefaultOptions, OrtAllocator **out)
ORT_FUNCTION(85, OrtStatus *, KernelInfoGetAttribute_float, const OrtKernelInfo *info, const char *name, float *out)
ORT_FUNCTION(86, OrtStatus *, KernelInfoGetAttribute_int64, const OrtKernelInfo *info, const char *name, int64_t *out)
ORT_FUNCTION(88, OrtStatus *, KernelContext_GetInputCount, const OrtKernelContext *context, size_t *out)
ORT_FUNCTION(90, OrtStatus *, KernelContext_GetInput, const OrtKernelContext *context, size_t index,
             const OrtValue **out)
ORT_FUNCTION(91, OrtStatus *, KernelContext_GetOutput, OrtKernelContext *context, size_t index,
             const int64_t *dim_values, size_t dim_count, OrtValue **out)
ORT_FUNCTION(92, void, ReleaseEnv, OrtEnv *input)
ORT_FUNCTION(93, void, ReleaseStatus, OrtStatus *input)
ORT_FUNCTION(94, void, ReleaseMemoryInfo, OrtMemoryInfo *input)
ORT_FUNCTION(96, void, ReleaseValue, OrtValue *input)
ORT_FUNCTION(98, void, ReleaseTypeInfo, OrtTypeInfo *input)
ORT_FUNCTION(99, void, ReleaseTensorTypeAndShapeInfo, OrtTensorTypeAndShapeInfo *input)
ORT_FUNCTION(101, void, ReleaseCustomOpDomain, OrtCustomOpDomain *input)
ORT_FUNCTION(119, OrtStatus *, CreateEnvWithGlobalThreadPools, OrtLoggingLevel log_severity_level, const char *logid,
             const OrtThreadingOptions *tp_options, OrtEnv **out)
ORT_FUNCTION(120, OrtStatus *, DisablePerSessionThreads, OrtSessionOptions *options)
ORT_FUNCTION(121, OrtStatus *, CreateThreadingOptions, OrtThreadingOptions **out)
ORT_FUNCTION(122, void, ReleaseThreadingOptions, OrtThreadingOptions *input)
ORT_FUNCTION(125, OrtStatus *, GetAvailableProviders, char ***out_ptr, int *provider_length)
ORT_FUNCTION(126, OrtStatus *, ReleaseAvailableProviders, char **ptr, int providers_length)
ORT_FUNCTION(133, OrtStatus *, RunWithBinding, OrtSession *session, const OrtRunOptions *run_options,
             const OrtIoBinding *binding_ptr)
ORT_FUNCTION(136, OrtStatus *, BindInput, OrtIoBinding *binding_ptr, const char *name, const OrtValue *val_ptr)
ORT_FUNCTION(137, OrtStatus *, BindOutput, OrtIoBinding *binding_ptr, const char *name, const OrtValue *val_ptr)
ORT_FUNCTION(147, OrtStatus *, SetGlobalIntraOpNumThreads, OrtThreadingOptions *tp_options, int intra_op_num_threads)
ORT_FUNCTION(148, OrtStatus *, SetGlobalInterOpNumThreads, OrtThreadingOptions *tp_options, int inter_op_num_threads)
ORT_FUNCTION(149, OrtStatus *, SetGlobalSpinControl, OrtThreadingOptions *tp_options, int allow_spinning)
ORT_FUNCTION(157, void, ReleaseArenaCfg, OrtArenaCfg *input)
ORT_FUNCTION(164, OrtStatus *, CreateArenaCfgV2, const char *const *arena_config_keys,
             const size_t *arena_config_values, size_t num_keys, OrtArenaCfg **out)
ORT_FUNCTION(165, OrtStatus *, AddRunConfigEntry, OrtRunOptions *options, const char *config_key,
             const char *config_value)
ORT_FUNCTION(193, OrtStatus *, KernelContext_GetGPUComputeStream, const OrtKernelContext *context, void **out)
ORT_FUNCTION(204, OrtStatus *, SessionOptionsAppendExecutionProvider_CUDA_V2, OrtSessionOptions *options,
             const OrtCUDAProviderOptionsV2 *cuda_options)
ORT_FUNCTION(205, OrtStatus *, CreateCUDAProviderOptions, OrtCUDAProviderOptionsV2 **out)
ORT_FUNCTION(206, OrtStatus *, UpdateCUDAProviderOptions, OrtCUDAProviderOptionsV2 *cuda_options,
             const char *const *provider_options_keys, const char *const *provider_options_values, size_t num_keys)
ORT_FUNCTION(208, void, ReleaseCUDAProviderOptions, OrtCUDAProviderOptionsV2 *input)
ORT_FUNCTION(259, OrtStatus *, CreateAndRegisterAllocatorV2, OrtEnv *env, const char *provider_type,
             const OrtMemoryInfo *mem_info, const OrtArenaCfg *arena_cfg, const char *const *provider_options_keys,
             const char *const *provider_options_values, size_t num_keys)
ORT_FUNCTION(263, OrtStatus *, UpdateCUDAProviderOptionsWithValue, OrtCUDAProviderOptionsV2 *cuda_options,
             const char *key, void *value)
ORT_FUNCTION(267, OrtStatus *, ShapeInferContext_GetInputCount, const OrtShapeInferContext *context, size_t *out)
ORT_FUNCTION(268, OrtStatus *, ShapeInferContext_GetInputTypeShape, const OrtShapeInferContext *context, size_t index,
             OrtTensorTypeAndShapeInfo **info)
ORT_FUNCTION(269, OrtStatus *, ShapeInferContext_GetAttribute, const OrtShapeInferContext *context,
             const char *attr_name, const OrtOpAttr **attr)
ORT_FUNCTION(270, OrtStatus *, ShapeInferContext_SetOutputTypeShape, const OrtShapeInferContext *context, size_t index,
             const OrtTensorTypeAndShapeInfo *info)
ORT_FUNCTION(271, OrtStatus *, SetSymbolicDimensions, OrtTensorTypeAndShapeInfo *info, const char *dim_params[],
             size_t dim_params_length)
ORT_FUNCTION(272, OrtStatus *, ReadOpAttr, const OrtOpAttr *op_attr, OrtOpAttrType type, void *data, size_t len,
             size_t *out)
ORT_FUNCTION(273, OrtStatus *, SetDeterministicCompute, OrtSessionOptions *options, _Bool value)
ORT_FUNCTION(274, OrtStatus *, KernelContext_ParallelFor, const OrtKernelContext *context, void (*fn)(void *, size_t),
             size_t total, size_t num_batch, void *usr_data)
ORT_FUNCTION(407, OrtStatus *, Session_GetEpGraphAssignmentInfo, const OrtSession *session,
             const OrtEpAssignedSubgraph *const **ep_subgraphs, size_t *num_ep_subgraphs)
ORT_FUNCTION(408, OrtStatus *, EpAssignedSubgraph_GetEpName, const OrtEpAssignedSubgraph *ep_subgraph, const char **out)
ORT_FUNCTION(409, OrtStatus *, EpAssignedSubgraph_GetNodes, const OrtEpAssignedSubgraph *ep_subgraph,
             const OrtEpAssignedNode *const **ep_nodes, size_t *num_ep_nodes)
ORT_FUNCTION(412, OrtStatus *, EpAssignedNode_GetOperatorType, const OrtEpAssignedNode *ep_node, const char **out)

#undef ORT_FUNCTION
