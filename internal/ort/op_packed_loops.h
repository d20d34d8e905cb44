// The inner loop of dropout that is drawn, for one vector width (see vector.h).

#include "vector.h"

#include "op_dropout_loops.h"

#undef vec
#undef ivec
#undef load
#undef store
#undef fold
#undef exp_of
#undef VECTORS
