// Runs ONNX files with TensorRT 8.5 to 11. Not verified on hardware.
//
// An engine runs only with the TensorRT and on the GPU that built it. So it is built on the board, when there is none
// for this TensorRT, this GPU and this ONNX file: its name, beside the model, tells all three. That takes minutes,
// once; afterwards `classifier --check` compares its scores with the golden set.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.hpp"
#include "files.hpp"
#include "network.hpp"

namespace edgekit {

// From 10.12 on, the types in the ONNX file decide what is rounded; before, flags do.
#define EDGEKIT_TYPED (NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 12))

// Keeps the last error of TensorRT, for messages.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR) last = text;
  }
  std::string last = "it says nothing";
};

namespace detail {

inline void must(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

template <class Object>
std::unique_ptr<Object> made(Object* object, const char* what, const Log& log) {
  if (object == nullptr) throw std::runtime_error(std::string("TensorRT gives no ") + what + ": " + log.last);
  return std::unique_ptr<Object>(object);
}

// Returns the compute capability of the first GPU, such as 87. Throws NoRuntime if there is no GPU.
inline int capability() {
  int major = 0, minor = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (status != cudaSuccess) throw NoRuntime(std::string("CUDA finds no GPU here: ") + cudaGetErrorString(status));
  must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "the GPU");
  return 10 * major + minor;
}

// Sets what the precision needs: fp32, fp16 or int8. INT8 files say by Q/DQ pairs what is rounded.
inline void set_precision(nvinfer1::IBuilderConfig& config, const std::string& precision) {
  if (precision == "fp32") config.clearFlag(nvinfer1::BuilderFlag::kTF32);
#if !EDGEKIT_TYPED
  if (precision != "fp32") config.setFlag(nvinfer1::BuilderFlag::kFP16);
  if (precision == "int8") config.setFlag(nvinfer1::BuilderFlag::kINT8);
#endif
}

// Builds an engine for this GPU. Throws std::runtime_error with TensorRT's own words.
inline std::unique_ptr<nvinfer1::IHostMemory> build(const std::string& onnx, const std::string& precision, Log& log) {
#if NV_TENSORRT_MAJOR < 10
  const auto kind = 1u << static_cast<unsigned>(nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#elif EDGEKIT_TYPED && NV_TENSORRT_MAJOR < 11
  const auto kind = 1u << static_cast<unsigned>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
  const auto kind = 0u;
#endif
  const auto builder = made(nvinfer1::createInferBuilder(log), "builder", log);
  const auto network = made(builder->createNetworkV2(kind), "network", log);
  const auto parser = made(nvonnxparser::createParser(*network, log), "parser", log);
  if (!parser->parse(onnx.data(), onnx.size())) {
    const std::string why = parser->getNbErrors() > 0 ? parser->getError(0)->desc() : log.last;
    throw std::runtime_error("TensorRT rejects the model: " + why);
  }
  const auto config = made(builder->createBuilderConfig(), "configuration", log);
  set_precision(*config, precision);
  return made(builder->buildSerializedNetwork(*network, *config), "engine", log);
}

// Returns the ONNX file for this TensorRT: of INT8 files there may be a second one, whose types say float16, too.
inline std::string source_of(const std::string& path) {
  const std::string typed = path.substr(0, path.rfind('.')) + ".typed.onnx";
  return EDGEKIT_TYPED && std::ifstream(typed).good() ? typed : path;
}

// Returns the path of the engine of an ONNX file for this machine; builds it if there is none, whole or not at all.
inline std::string built(const std::string& path, const std::string& precision, Log& log) {
  const std::string onnx = read_bytes(path);
  // The version of the library that runs, not of the headers.
  const std::string key = "trt" + std::to_string(getInferLibVersion()) + ".sm" + std::to_string(capability()) + "." +
                          sha256(onnx).substr(0, 12);
  const std::string engine = path.substr(0, path.rfind('.')) + "." + key + ".engine";
  if (std::ifstream(engine).good()) return engine;
  std::fprintf(stderr, "building %s: this takes minutes, once\n", engine.c_str());
  const std::string part = engine + ".part" + std::to_string(getpid());
  const std::string why = engine + " cannot be written: run classifier --check once as a user who may";
  std::ofstream file(part, std::ios::binary);  // before the minutes
  if (!file.good()) throw std::runtime_error(why);
  try {
    const auto bytes = build(onnx, precision, log);
    file.write(static_cast<const char*>(bytes->data()), static_cast<std::streamsize>(bytes->size()));
    file.close();
    if (!file.good() || std::rename(part.c_str(), engine.c_str()) != 0) throw std::runtime_error(why);
  } catch (...) {
    std::remove(part.c_str());
    throw;
  }
  return engine;
}

// Memory of the GPU.
class Memory {
 public:
  explicit Memory(std::size_t size) { must(cudaMalloc(&address_, size), "memory"); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(address_); }
  void* get() const { return address_; }

 private:
  void* address_ = nullptr;
};

}  // namespace detail

class TensorRt : public Network {
 public:
  TensorRt(const std::string& path, const std::string& precision, const Contract& contract)
      : classes_(static_cast<std::size_t>(contract.classes)) {
    if (contract.type != Type::float32 || !contract.channels_first) {
      throw std::runtime_error("preprocess.json is not of an ONNX file: its tensor is not float32 NCHW");
    }
    const std::string bytes = read_bytes(detail::built(detail::source_of(path), precision, log_));
    runtime_ = detail::made(nvinfer1::createInferRuntime(log_), "runtime", log_);
    engine_ = detail::made(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()), "engine from the file", log_);
    context_ = detail::made(engine_->createExecutionContext(), "context", log_);
    const std::size_t side = static_cast<std::size_t>(contract.rule.image_size);
    check("image", 3 * side * side);
    check("scores", classes_);
    image_ = std::make_unique<detail::Memory>(3 * side * side * sizeof(float));
    scores_ = std::make_unique<detail::Memory>(classes_ * sizeof(float));
    if (!context_->setTensorAddress("image", image_->get()) || !context_->setTensorAddress("scores", scores_->get())) {
      throw std::runtime_error("TensorRT takes no memory: " + log_.last);
    }
    detail::must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }

  ~TensorRt() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  std::vector<float> scores(const std::vector<std::uint8_t>& tensor) override {
    std::vector<float> found(classes_);
    detail::must(cudaMemcpyAsync(image_->get(), tensor.data(), tensor.size(), cudaMemcpyHostToDevice, stream_),
                 "a copy of the image");
    if (!context_->enqueueV3(stream_)) throw std::runtime_error("TensorRT cannot run the engine: " + log_.last);
    const std::size_t size = classes_ * sizeof(float);
    detail::must(cudaMemcpyAsync(found.data(), scores_->get(), size, cudaMemcpyDeviceToHost, stream_),
                 "a copy of the scores");
    detail::must(cudaStreamSynchronize(stream_), "the engine");
    return found;
  }

 private:
  // Checks that a tensor of the engine is float32 of this many values.
  void check(const char* name, std::size_t values) const {
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    std::int64_t count = shape.nbDims > 0 ? 1 : 0;
    for (int i = 0; i < shape.nbDims; ++i) count *= shape.d[i];
    if (count != static_cast<std::int64_t>(values) || engine_->getTensorDataType(name) != nvinfer1::DataType::kFLOAT) {
      throw std::runtime_error(std::string("preprocess.json or labels.txt does not fit the engine's ") + name);
    }
  }

  Log log_;  // must live longest
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::unique_ptr<detail::Memory> image_, scores_;
  std::size_t classes_;
  cudaStream_t stream_ = nullptr;
};

// Opens an ONNX file. precision: fp32, fp16 or int8.
inline std::unique_ptr<Network> open_runtime(const std::string& path, const std::string& precision,
                                             const Contract& contract, const Options&) {
  return std::make_unique<TensorRt>(path, precision, contract);
}

}  // namespace edgekit
