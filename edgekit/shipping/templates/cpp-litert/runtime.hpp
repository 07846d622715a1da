// Run a .tflite file on the CPU through LiteRT's C API (libLiteRt.so 2.x).
//
// The declarations are the part of litert/c/*.h (v2.2.0) that is used; whoever has LiteRT's SDK may include its headers in
// their place. For a GPU or NPU, change `accelerator`: LiteRT refuses to compile a model that it cannot run there.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
typedef struct LiteRtEnvironmentT* LiteRtEnvironment;
typedef struct LiteRtModelT* LiteRtModel;
typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtCompiledModelT* LiteRtCompiledModel;
typedef struct LiteRtSignatureT* LiteRtSignature;
typedef struct LiteRtTensorT* LiteRtTensor;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT* LiteRtTensorBufferRequirements;
typedef struct {
  unsigned rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
} LiteRtLayout;
typedef struct {
  int element_type;
  LiteRtLayout layout;
} LiteRtRankedTensorType;
int LiteRtCreateEnvironment(int, const void*, LiteRtEnvironment*);
int LiteRtCreateModelFromFile(LiteRtEnvironment, const char*, LiteRtModel*);
int LiteRtCreateOptions(LiteRtOptions*);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int);
int LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel*);
int LiteRtGetModelSignature(LiteRtModel, size_t, LiteRtSignature*);
int LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor*);
int LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor*);
int LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType*);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBufferRequirements*);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBufferRequirements*);
int LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType*,
                                                    LiteRtTensorBufferRequirements, LiteRtTensorBuffer*);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer, void**, int);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
int LiteRtRunCompiledModel(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBuffer*, size_t, LiteRtTensorBuffer*);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel);
void LiteRtDestroyOptions(LiteRtOptions);
void LiteRtDestroyModel(LiteRtModel);
void LiteRtDestroyEnvironment(LiteRtEnvironment);
}

namespace edgekit {

// A model with one input and the output `scores`, float32 (1, classes).
class Runtime {
 public:
  static constexpr const char* processor = "cpu";  // whose tolerance golden.tsv has
  static constexpr int accelerator = 1;            // 1: CPU, 2: GPU, 4: NPU

  explicit Runtime(const std::string& path) {
    try {
      open(path);
    } catch (...) {
      close();
      throw;
    }
  }
  ~Runtime() { close(); }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Returns the scores of one input.
  std::vector<float> run(const std::vector<uint8_t>& input) {
    if (input.size() != input_bytes_)
      throw std::invalid_argument("the input has " + std::to_string(input_bytes_) + " bytes, not " +
                                  std::to_string(input.size()));
    void* memory = nullptr;
    must(LiteRtLockTensorBuffer(input_, &memory, 1), "write the input");
    std::memcpy(memory, input.data(), input.size());
    must(LiteRtUnlockTensorBuffer(input_), "write the input");
    must(LiteRtRunCompiledModel(compiled_, 0, 1, &input_, 1, &output_), "run");
    must(LiteRtLockTensorBuffer(output_, &memory, 0), "read the scores");
    std::vector<float> scores(classes_);
    std::memcpy(scores.data(), memory, classes_ * sizeof(float));
    must(LiteRtUnlockTensorBuffer(output_), "read the scores");
    return scores;
  }

 private:
  static constexpr int float32_ = 1, int8_ = 9, uint8_ = 3;  // kLiteRtElementType...

  static void must(int status, const char* what) {
    if (status != 0)
      throw std::runtime_error(std::string("LiteRT cannot ") + what + " (status " + std::to_string(status) + ")");
  }

  void open(const std::string& path) {
    must(LiteRtCreateEnvironment(0, nullptr, &environment_), "start");
    must(LiteRtCreateModelFromFile(environment_, path.c_str(), &model_), ("read " + path).c_str());
    must(LiteRtCreateOptions(&options_), "start");
    must(LiteRtSetOptionsHardwareAccelerators(options_, accelerator), "use this accelerator");
    must(LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), "compile the model");
    LiteRtSignature signature;
    LiteRtTensor tensor;
    LiteRtRankedTensorType type;
    LiteRtTensorBufferRequirements needs;
    must(LiteRtGetModelSignature(model_, 0, &signature), "find the signature");
    must(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "find the input");
    must(LiteRtGetRankedTensorType(tensor, &type), "find the input");
    input_bytes_ = elements(type) * (type.element_type == float32_ ? sizeof(float) : 1);
    if (type.element_type != float32_ && type.element_type != int8_ && type.element_type != uint8_)
      throw std::runtime_error("the input is neither float32 nor int8 nor uint8");
    must(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &needs), "make the input");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &input_), "make the input");
    must(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor), "find the scores");
    must(LiteRtGetRankedTensorType(tensor, &type), "find the scores");
    if (type.element_type != float32_) throw std::runtime_error("the scores are not float32");
    classes_ = elements(type);
    must(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, 0, &needs), "make the scores");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &output_), "make the scores");
  }

  static size_t elements(const LiteRtRankedTensorType& type) {
    size_t count = 1;
    for (unsigned i = 0; i < type.layout.rank; ++i) count *= size_t(type.layout.dimensions[i]);
    return count;
  }

  void close() {
    if (output_) LiteRtDestroyTensorBuffer(output_);
    if (input_) LiteRtDestroyTensorBuffer(input_);
    if (compiled_) LiteRtDestroyCompiledModel(compiled_);
    if (options_) LiteRtDestroyOptions(options_);
    if (model_) LiteRtDestroyModel(model_);
    if (environment_) LiteRtDestroyEnvironment(environment_);
  }

  LiteRtEnvironment environment_{};
  LiteRtModel model_{};
  LiteRtOptions options_{};
  LiteRtCompiledModel compiled_{};
  LiteRtTensorBuffer input_{}, output_{};
  size_t input_bytes_{}, classes_{};
};

}  // namespace edgekit
