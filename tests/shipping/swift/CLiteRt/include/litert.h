// A model on LiteRT's C API, for the stand-in of TensorFlowLiteSwift.
#include <stddef.h>

typedef struct Model Model;

// Opens a file; NULL if LiteRT cannot. Types are LiteRT's: 1 float32, 3 uint8, 9 int8.
Model *model_open(const char *path);
size_t model_input_bytes(const Model *model);
int model_input_type(const Model *model);
size_t model_outputs(const Model *model);
// Runs the model; 0 if it worked.
int model_run(Model *model, const void *input, float *scores);
