#include "litert.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The part of LiteRT's C API that is used, as the headers of LiteRT 2 declare it.
typedef void *Handle;
typedef struct {
    unsigned rank : 7, has_strides : 1;
    int32_t dimensions[8];
    uint32_t strides[8];
} Layout;
typedef struct {
    int element;
    Layout layout;
} Type;
int LiteRtCreateEnvironment(int, const void *, Handle *);
int LiteRtCreateModelFromFile(Handle, const char *, Handle *);
int LiteRtCreateOptions(Handle *);
int LiteRtSetOptionsHardwareAccelerators(Handle, int);
int LiteRtCreateCompiledModel(Handle, Handle, Handle, Handle *);
int LiteRtGetModelSignature(Handle, size_t, Handle *);
int LiteRtGetSignatureInputTensorByIndex(Handle, size_t, Handle *);
int LiteRtGetSignatureOutputTensorByIndex(Handle, size_t, Handle *);
int LiteRtGetRankedTensorType(Handle, Type *);
int LiteRtGetCompiledModelInputBufferRequirements(Handle, size_t, size_t, Handle *);
int LiteRtGetCompiledModelOutputBufferRequirements(Handle, size_t, size_t, Handle *);
int LiteRtCreateManagedTensorBufferFromRequirements(Handle, const Type *, Handle, Handle *);
int LiteRtLockTensorBuffer(Handle, void **, int);
int LiteRtUnlockTensorBuffer(Handle);
int LiteRtRunCompiledModel(Handle, size_t, size_t, Handle *, size_t, Handle *);

struct Model {
    Handle compiled, input, output;
    Type in, out;
};

static size_t count(const Type *type) {
    size_t product = 1;
    for (unsigned axis = 0; axis < type->layout.rank; ++axis) product *= (size_t)type->layout.dimensions[axis];
    return product;
}

Model *model_open(const char *path) {
    Model *made = calloc(1, sizeof(Model));
    Handle environment, model, options, signature, tensor, needs;
    int failed = LiteRtCreateEnvironment(0, NULL, &environment) || LiteRtCreateModelFromFile(environment, path, &model)
        || LiteRtCreateOptions(&options) || LiteRtSetOptionsHardwareAccelerators(options, 1)
        || LiteRtCreateCompiledModel(environment, model, options, &made->compiled)
        || LiteRtGetModelSignature(model, 0, &signature)
        || LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor) || LiteRtGetRankedTensorType(tensor, &made->in)
        || LiteRtGetCompiledModelInputBufferRequirements(made->compiled, 0, 0, &needs)
        || LiteRtCreateManagedTensorBufferFromRequirements(environment, &made->in, needs, &made->input)
        || LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor) || LiteRtGetRankedTensorType(tensor, &made->out)
        || LiteRtGetCompiledModelOutputBufferRequirements(made->compiled, 0, 0, &needs)
        || LiteRtCreateManagedTensorBufferFromRequirements(environment, &made->out, needs, &made->output);
    return failed ? NULL : made;
}

size_t model_input_bytes(const Model *model) { return count(&model->in) * (model->in.element == 1 ? 4 : 1); }
int model_input_type(const Model *model) { return model->in.element; }
size_t model_outputs(const Model *model) { return count(&model->out); }

int model_run(Model *model, const void *input, float *scores) {
    void *at;
    if (LiteRtLockTensorBuffer(model->input, &at, 1)) return 1;
    memcpy(at, input, model_input_bytes(model));
    if (LiteRtUnlockTensorBuffer(model->input)) return 1;
    if (LiteRtRunCompiledModel(model->compiled, 0, 1, &model->input, 1, &model->output)) return 1;
    if (LiteRtLockTensorBuffer(model->output, &at, 0)) return 1;
    memcpy(scores, at, model_outputs(model) * sizeof(float));
    return LiteRtUnlockTensorBuffer(model->output);
}
