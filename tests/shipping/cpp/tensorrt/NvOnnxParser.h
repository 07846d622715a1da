// A stand-in for a part of TensorRT's parser, written by hand: files that begin with "bad" are rejected.
#pragma once
#include "NvInfer.h"

namespace nvonnxparser {
class IParserError {
 public:
  const char* desc() const noexcept { return "no such operator"; }
};
class IParser {
 public:
  bool parse(const void* bytes, std::size_t size) noexcept {
    network->onnx.assign(static_cast<const char*>(bytes), size);
    return network->onnx.find("bad") != 0;
  }
  int getNbErrors() const noexcept { return 1; }
  const IParserError* getError(int) const noexcept { return &error; }
  nvinfer1::INetworkDefinition* network = nullptr;
  IParserError error;
};
inline IParser* createParser(nvinfer1::INetworkDefinition& network, nvinfer1::ILogger&) noexcept {
  auto* made = new IParser;
  made->network = &network;
  return made;
}
}  // namespace nvonnxparser
