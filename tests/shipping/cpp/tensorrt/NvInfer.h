// A stand-in for a part of TensorRT's C++ API, written by hand. An engine is the flags it was built with, and the ONNX
// file; its scores are the means of the tensor's channels, and of their upper halves. It has 64 x 64 pixels, 5 classes.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "cuda_runtime_api.h"

#ifndef NV_TENSORRT_MAJOR
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
#endif

inline int getInferLibVersion() noexcept {
  const char* given = std::getenv("EDGEKIT_TRT");
  return given ? std::atoi(given) : 100300;
}

namespace nvinfer1 {
class ILogger {
 public:
  enum class Severity { kINTERNAL_ERROR, kERROR, kWARNING };
  virtual void log(Severity severity, const char* text) noexcept = 0;
  virtual ~ILogger() = default;
};
enum class DataType { kFLOAT, kHALF };
struct Dims {
  int32_t nbDims;
  int64_t d[8];
};
enum class BuilderFlag { kFP16, kINT8, kTF32 };
enum class NetworkDefinitionCreationFlag { kEXPLICIT_BATCH = 0, kSTRONGLY_TYPED = 1 };

class IHostMemory {
 public:
  explicit IHostMemory(std::string given) : bytes(std::move(given)) {}
  const void* data() const noexcept { return bytes.data(); }
  std::size_t size() const noexcept { return bytes.size(); }
  std::string bytes;
};
class INetworkDefinition {
 public:
  std::string onnx;
  uint32_t flags = 0;
};
class IBuilderConfig {
 public:
  void setFlag(BuilderFlag flag) noexcept { flags += flag == BuilderFlag::kFP16 ? "FP16 " : "INT8 "; }
  void clearFlag(BuilderFlag) noexcept { flags += "no-TF32 "; }
  std::string flags;
};
class IBuilder {
 public:
  INetworkDefinition* createNetworkV2(uint32_t flags) noexcept {
    auto* network = new INetworkDefinition;
    network->flags = flags;
    return network;
  }
  IBuilderConfig* createBuilderConfig() noexcept { return new IBuilderConfig; }
  IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config) noexcept {
    return new IHostMemory("flags " + config.flags + "network " + std::to_string(network.flags) + "\n" + network.onnx);
  }
};
inline IBuilder* createInferBuilder(ILogger&) noexcept { return new IBuilder; }

class IExecutionContext {
 public:
  bool setTensorAddress(const char* name, void* address) noexcept {
    addresses[name] = static_cast<float*>(address);
    return true;
  }
  bool enqueueV3(cudaStream_t) noexcept {
    const float* image = addresses["image"];
    for (int score = 0; score < 5; ++score) {
      const int count = score < 3 ? 64 * 64 : 64 * 32;
      double sum = 0;
      for (int i = 0; i < count; ++i) sum += image[score % 3 * 64 * 64 + i];
      addresses["scores"][score] = static_cast<float>(sum / count);
    }
    return true;
  }
  std::map<std::string, float*> addresses;
};
class ICudaEngine {
 public:
  IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext; }
  Dims getTensorShape(const char* name) const noexcept {
    return std::string(name) == "image" ? Dims{4, {1, 3, 64, 64}} : Dims{2, {1, 5}};
  }
  DataType getTensorDataType(const char*) const noexcept { return DataType::kFLOAT; }
};
class IRuntime {
 public:
  ICudaEngine* deserializeCudaEngine(const void* bytes, std::size_t size) noexcept {
    return std::string(static_cast<const char*>(bytes), size).find("flags ") == 0 ? new ICudaEngine : nullptr;
  }
};
inline IRuntime* createInferRuntime(ILogger&) noexcept { return new IRuntime; }
}  // namespace nvinfer1
