// What a runtime gives: the model, opened, from the bytes of an input tensor to scores.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgekit {

// How a model is opened.
struct Options {
  bool gpu = false;  // LiteRT: all of the model on the GPU, or an error; TensorRT runs there always
  int threads = 1;   // of the CPU
};

class Network {
 public:
  Network() = default;
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  virtual ~Network() = default;

  // Returns the scores of one picture. Not for two threads at once.
  virtual std::vector<float> scores(const std::vector<std::uint8_t>& tensor) = 0;
};

// The model's runtime, or the GPU that it needs, is not here.
class NoRuntime : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace edgekit
