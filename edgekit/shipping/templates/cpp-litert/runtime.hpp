// Runs .tflite files with LiteRT's C API: libLiteRt.so 2.x, of the Python package ai-edge-litert, of LiteRT's releases,
// or built from its sources.
//
// That package has no headers. What is used of them is declared here, as at tag v2.2.0 of google-ai-edge/LiteRT (folder
// litert/c); tried with version 2.3.0 of the library. Before 2.1.6, LiteRtCreateModelFromFile was another.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.hpp"
#include "network.hpp"

extern "C" {
typedef struct LiteRtEnvironmentT* LiteRtEnvironment;
typedef struct LiteRtModelT* LiteRtModel;
typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtOpaqueOptionsT* LiteRtOpaqueOptions;
typedef struct LiteRtCompiledModelT* LiteRtCompiledModel;
typedef struct LiteRtSignatureT* LiteRtSignature;
typedef struct LiteRtTensorT* LiteRtTensor;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT* LiteRtTensorBufferRequirements;
typedef struct {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
} LiteRtLayout;
typedef struct {
  int element_type;
  LiteRtLayout layout;
} LiteRtRankedTensorType;
typedef struct {
  float scale;
  int64_t zero_point;
} LiteRtQuantizationPerTensor;
static_assert(sizeof(LiteRtRankedTensorType) == 72 && sizeof(LiteRtQuantizationPerTensor) == 16, "as in LiteRT");
typedef struct {
  int tag;
  struct {
    int type;
    union {
      int64_t int_value;
      const void* ptr_value;
    };
  } value;
} LiteRtEnvOption;
static_assert(sizeof(LiteRtEnvOption) == 24, "as in LiteRT");
int LiteRtCreateEnvironment(int count, const LiteRtEnvOption*, LiteRtEnvironment*);
void LiteRtDestroyEnvironment(LiteRtEnvironment);
int LiteRtCreateModelFromFile(LiteRtEnvironment, const char* path, LiteRtModel*);
void LiteRtDestroyModel(LiteRtModel);
int LiteRtCreateOptions(LiteRtOptions*);
void LiteRtDestroyOptions(LiteRtOptions);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int accelerators);
int LiteRtCreateOpaqueOptions(const char* name, void* content, void (*destroy)(void*), LiteRtOpaqueOptions*);
int LiteRtAddOpaqueOptions(LiteRtOptions, LiteRtOpaqueOptions);
int LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel*);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel);
int LiteRtCompiledModelIsFullyAccelerated(LiteRtCompiledModel, bool*);
int LiteRtGetModelSignature(LiteRtModel, size_t index, LiteRtSignature*);
int LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor*);
int LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor*);
int LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType*);
int LiteRtGetPerTensorQuantization(LiteRtTensor, LiteRtQuantizationPerTensor*);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t index,
                                                  LiteRtTensorBufferRequirements*);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t index,
                                                   LiteRtTensorBufferRequirements*);
int LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType*,
                                                    LiteRtTensorBufferRequirements, LiteRtTensorBuffer*);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer, void** address, int mode);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
int LiteRtRunCompiledModel(LiteRtCompiledModel, size_t signature, size_t inputs, LiteRtTensorBuffer*, size_t outputs,
                           LiteRtTensorBuffer*);
}

namespace edgekit {

class LiteRt : public Network {
 public:
  LiteRt(const std::string& path, const Contract& contract, const Options& options) {
    LiteRtEnvOption quiet{};
    quiet.tag = least_severity, quiet.value.type = any_int, quiet.value.int_value = error;
    must(LiteRtCreateEnvironment(1, &quiet, out(environment_)), "an environment");
    must(LiteRtCreateModelFromFile(environment_.get(), path.c_str(), out(model_)), "the model " + path);
    compile(options);
    LiteRtSignature signature = nullptr;
    LiteRtTensor source = nullptr, target = nullptr;
    must(LiteRtGetModelSignature(model_.get(), 0, &signature), "the signature");
    must(LiteRtGetSignatureInputTensorByIndex(signature, 0, &source), "the input");
    must(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &target), "the output");
    LiteRtTensorBufferRequirements needs = nullptr;
    LiteRtRankedTensorType input{}, output{};
    must(LiteRtGetRankedTensorType(source, &input), "the type of the input");
    must(LiteRtGetCompiledModelInputBufferRequirements(compiled_.get(), 0, 0, &needs), "the input's needs");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment_.get(), &input, needs, out(input_)), "memory");
    must(LiteRtGetRankedTensorType(target, &output), "the type of the output");
    must(LiteRtGetCompiledModelOutputBufferRequirements(compiled_.get(), 0, 0, &needs), "the output's needs");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment_.get(), &output, needs, out(output_)), "memory");
    const int wanted = contract.type == Type::uint8 ? uint8 : contract.type == Type::int8 ? int8 : float32;
    const int size = contract.rule.image_size;
    is_right(input.element_type == wanted && count(input.layout) == 3 * size * size, "input");
    is_right(count(output.layout) == contract.classes, "output: labels.txt has other classes than the model");
    output_type_ = output.element_type;
    is_right(output_type_ == float32 || output_type_ == uint8 || output_type_ == int8, "output");
    if (output_type_ != float32) must(LiteRtGetPerTensorQuantization(target, &quantization_), "the output's scale");
    classes_ = contract.classes;
  }

  std::vector<float> scores(const std::vector<std::uint8_t>& tensor) override {
    void* at = nullptr;
    must(LiteRtLockTensorBuffer(input_.get(), &at, for_writing), "the input's memory");
    std::memcpy(at, tensor.data(), tensor.size());
    must(LiteRtUnlockTensorBuffer(input_.get()), "the input's memory");
    LiteRtTensorBuffer input = input_.get(), output = output_.get();
    must(LiteRtRunCompiledModel(compiled_.get(), 0, 1, &input, 1, &output), "an answer");
    must(LiteRtLockTensorBuffer(output, &at, for_reading), "the output's memory");
    std::vector<float> found(classes_);
    for (int i = 0; i < classes_; ++i) found[i] = value(at, i);
    must(LiteRtUnlockTensorBuffer(output), "the output's memory");
    return found;
  }

 private:
  // Numbers of LiteRT's headers.
  static constexpr int float32 = 1, uint8 = 3, int8 = 9, for_reading = 0, for_writing = 1, on_cpu = 1, on_gpu = 2;
  static constexpr int least_severity = 25, any_int = 2, error = 3;

  template <auto destroy>
  struct Destroy {
    template <class Object>
    void operator()(Object* object) const {
      destroy(object);
    }
  };
  template <class Handle, auto destroy>
  using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<destroy>>;

  // Lets a C function write a handle that an owner takes over.
  template <class Owner>
  struct Out {
    explicit Out(Owner& given) : owner(given) {}
    ~Out() { owner.reset(handle); }
    operator typename Owner::pointer*() { return &handle; }
    Owner& owner;
    typename Owner::pointer handle = nullptr;
  };
  template <class Owner>
  static Out<Owner> out(Owner& owner) {
    return Out<Owner>(owner);
  }

  static void must(int status, const std::string& what) {
    if (status != 0) throw std::runtime_error("LiteRT does not give " + what + ": status " + std::to_string(status));
  }

  static void is_right(bool right, const std::string& what) {
    if (!right) throw std::runtime_error("preprocess.json does not fit the model's " + what);
  }

  static std::int64_t count(const LiteRtLayout& layout) {
    std::int64_t found = 1;
    for (unsigned i = 0; i < layout.rank; ++i) found *= layout.dimensions[i];
    return found;
  }

  void compile(const Options& options) {
    Owned<LiteRtOptions, LiteRtDestroyOptions> given;
    must(LiteRtCreateOptions(out(given)), "options");
    must(LiteRtSetOptionsHardwareAccelerators(given.get(), options.gpu ? on_gpu : on_cpu), "the processor");
    LiteRtOpaqueOptions cpu = nullptr;
    const std::string text = "num_threads = " + std::to_string(options.threads) + "\n";
    void* copy = std::memcpy(new char[text.size() + 1], text.c_str(), text.size() + 1);
    const auto destroy = [](void* content) { delete[] static_cast<char*>(content); };
    must(LiteRtCreateOpaqueOptions("xnnpack", copy, destroy, &cpu), "threads");
    must(LiteRtAddOpaqueOptions(given.get(), cpu), "threads");
    must(LiteRtCreateCompiledModel(environment_.get(), model_.get(), given.get(), out(compiled_)),
         options.gpu ? "the model on the GPU" : "the model on the CPU");
    bool all = false;
    if (options.gpu && (LiteRtCompiledModelIsFullyAccelerated(compiled_.get(), &all) != 0 || !all)) {
      throw std::runtime_error("LiteRT runs a part of the model, or all of it, on the CPU: ask for the CPU");
    }
  }

  float value(const void* at, int index) const {
    if (output_type_ == float32) return static_cast<const float*>(at)[index];
    const int level = output_type_ == uint8 ? static_cast<const std::uint8_t*>(at)[index]
                                            : static_cast<const std::int8_t*>(at)[index];
    return static_cast<float>(level - quantization_.zero_point) * quantization_.scale;
  }

  Owned<LiteRtEnvironment, LiteRtDestroyEnvironment> environment_;
  Owned<LiteRtModel, LiteRtDestroyModel> model_;
  Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel> compiled_;
  Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer> input_, output_;
  LiteRtQuantizationPerTensor quantization_{};
  int output_type_ = float32, classes_ = 0;
};

// Opens a .tflite file.
inline std::unique_ptr<Network> open_runtime(const std::string& path, const std::string& /*precision*/,
                                             const Contract& contract, const Options& options) {
  return std::make_unique<LiteRt>(path, contract, options);
}

}  // namespace edgekit
