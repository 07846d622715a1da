// Run an ONNX file with TensorRT 8.5 to 11. The engine is built on this machine at the first start, which takes minutes,
// and lies beside the file; its name tells the versions of TensorRT, the GPU and the file. Needs NvInfer.h, NvOnnxParser.h
// and the CUDA runtime, as JetPack has them. Not verified on hardware.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.hpp"

#define EDGEKIT_TENSORRT (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR)

namespace edgekit {

// A model with the input `image` and the output `scores`, float32 (1, classes).
class Runtime {
 public:
  static constexpr const char* processor = "gpu";  // whose tolerance golden.tsv has

  explicit Runtime(const std::string& path) {
    const std::string engine = engine_of(path);
    if (!std::ifstream(engine)) save(engine, build(path));
    const std::string bytes = read(engine);
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) throw std::runtime_error(engine + " does not load; delete it, and it is built again");
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw std::runtime_error("TensorRT cannot make an execution context");
    input_bytes_ = elements("image") * sizeof(float);
    classes_ = elements("scores");
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
    must(cudaMalloc(&input_, input_bytes_), "allocate the input");
    must(cudaMalloc(&output_, classes_ * sizeof(float)), "allocate the scores");
    context_->setTensorAddress("image", input_);
    context_->setTensorAddress("scores", output_);
  }
  ~Runtime() {
    cudaFree(output_);
    cudaFree(input_);
    if (stream_) cudaStreamDestroy(stream_);
  }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Returns the scores of one input.
  std::vector<float> run(const std::vector<uint8_t>& input) {
    if (input.size() != input_bytes_)
      throw std::invalid_argument("the input has " + std::to_string(input_bytes_) + " bytes, not " +
                                  std::to_string(input.size()));
    std::vector<float> scores(classes_);
    must(cudaMemcpyAsync(input_, input.data(), input.size(), cudaMemcpyHostToDevice, stream_), "copy the input");
    if (!context_->enqueueV3(stream_)) throw std::runtime_error("TensorRT cannot run the engine");
    must(cudaMemcpyAsync(scores.data(), output_, classes_ * sizeof(float), cudaMemcpyDeviceToHost, stream_),
         "copy the scores");
    must(cudaStreamSynchronize(stream_), "run the engine");
    return scores;
  }

 private:
  class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
      if (severity <= Severity::kWARNING) std::cerr << message << "\n";
    }
  };

  static void must(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA cannot ") + what + ": " + cudaGetErrorString(status));
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + " cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Writes a file that appears whole or not at all.
  static void save(const std::string& path, const std::string& bytes) {
    const std::string part = path + ".part" + std::to_string(getpid());
    std::ofstream file(part, std::ios::binary);
    file.write(bytes.data(), std::streamsize(bytes.size()));
    file.close();
    if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
      std::remove(part.c_str());
      throw std::runtime_error(path + " cannot be written");
    }
  }

  // Returns the path of the engine for this TensorRT, this GPU and this file.
  std::string engine_of(const std::string& path) {
    int major = 0, minor = 0;
    must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "find a GPU");
    must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "find a GPU");
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const char byte : read(path)) hash = (hash ^ uint8_t(byte)) * 0x100000001b3u;
    char key[64];
    std::snprintf(key, sizeof key, ".trt%d.%d.%d.sm%d%d.%016llx.engine", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR,
                  NV_TENSORRT_PATCH, major, minor, static_cast<unsigned long long>(hash));
    return path.substr(0, path.rfind('.')) + key;
  }

  std::string build(const std::string& path) {
    using namespace nvinfer1;
    const std::string onnx = read(path);
    const std::unique_ptr<IBuilder> builder(createInferBuilder(logger_));
    if (!builder) throw std::runtime_error("TensorRT cannot be started");
#if EDGEKIT_TENSORRT < 1000
    const uint32_t flags = 1u << uint32_t(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#elif EDGEKIT_TENSORRT >= 1012 && EDGEKIT_TENSORRT < 1100  // flags of precision are deprecated: types of the file decide
    const uint32_t flags = 1u << uint32_t(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
    const uint32_t flags = 0;
#endif
    const std::unique_ptr<INetworkDefinition> network(builder->createNetworkV2(flags));
    const std::unique_ptr<nvonnxparser::IParser> parser(nvonnxparser::createParser(*network, logger_));
    if (!parser->parse(onnx.data(), onnx.size()))
      throw std::runtime_error("TensorRT rejects the model: " +
                               std::string(parser->getNbErrors() ? parser->getError(0)->desc() : "no reason given"));
    const std::unique_ptr<IBuilderConfig> config(builder->createBuilderConfig());
    const std::string precision = contract::precision;
    if (precision == "fp32") config->clearFlag(BuilderFlag::kTF32);
#if EDGEKIT_TENSORRT < 1012
    if (precision == "int8") config->setFlag(BuilderFlag::kINT8);
    if (precision == "int8" || precision == "fp16") config->setFlag(BuilderFlag::kFP16);
#endif
    const std::unique_ptr<IHostMemory> engine(builder->buildSerializedNetwork(*network, *config));
    if (!engine) throw std::runtime_error("TensorRT cannot build an engine; the lines above say why");
    return {static_cast<const char*>(engine->data()), engine->size()};
  }

  size_t elements(const char* name) const {
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    if (shape.nbDims < 1) throw std::runtime_error(std::string("the engine has no tensor ") + name);
    size_t count = 1;
    for (int i = 0; i < shape.nbDims; ++i) count *= size_t(shape.d[i]);
    return count;
  }

  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_{};
  void *input_{}, *output_{};
  size_t input_bytes_{}, classes_{};
};

}  // namespace edgekit
